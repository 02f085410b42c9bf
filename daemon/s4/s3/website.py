"""Website hosting of a bucket: its configuration, and where its rules send a visitor. Pure.

Source: Amazon S3 user guide, "Hosting a static website using Amazon S3"; API: PutBucketWebsite.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from s4.s3.errors import S3Error
from s4.s3.names import number
from s4.s3.xml import Element, tag

MOST_RULES = 50
LOCATION = "x-amz-website-redirect-location"  # of an object: its visitors go there
LOCATION_BYTES = 2048


class RoutingRule(msgspec.Struct, frozen=True):
    """A routing rule: `prefix` and `error` (a status) say when, the rest where to. Empty where there is none."""

    prefix: str = ""
    error: int = 0
    host: str = ""
    protocol: str = ""
    code: int = 301
    new_prefix: str | None = None
    new_key: str | None = None
    coded: bool = True  # whether the code was given; 0.7 did not tell


class Website(msgspec.Struct, frozen=True):
    """Either `all_to` says where every visitor goes, or `index` is what folders show. `error` is a key."""

    index: str = ""
    error: str = ""
    all_to: RoutingRule | None = None
    rules: list[RoutingRule] = []

    def key_of(self, key: str) -> str:
        """The key that a visitor's path stands for."""
        return key + self.index if not key or key.endswith("/") else key

    def route(self, key: str, error: int = 0) -> RoutingRule | None:
        """The first rule for a key, once its reading failed with a status, or before."""
        return next((rule for rule in self.rules if rule.error == error and key.startswith(rule.prefix)), None)


def target(rule: RoutingRule, key: str, scheme: str, host: str) -> str:
    """The address that a rule sends a visitor to, who asked for `key` at `scheme://host`."""
    if rule.new_key is not None:
        key = rule.new_key
    elif rule.new_prefix is not None:
        key = rule.new_prefix + key[len(rule.prefix) :]
    return f"{rule.protocol or scheme}://{rule.host or host}/{quote(key, safe='/-_.~')}"


def check_location(text: str) -> str:
    """Raises S3Error InvalidRedirectLocation."""
    if not text.startswith(("/", "http://", "https://")) or len(text) > LOCATION_BYTES:
        raise S3Error("InvalidRedirectLocation")
    return text


def from_xml(root: Element) -> Website:
    """Raises S3Error MalformedXML, InvalidArgument, InvalidRequest."""
    everything = list(root.all("RedirectAllRequestsTo"))
    rules = [_rule(one) for group in root.all("RoutingRules") for one in group.all("RoutingRule")]
    if any(not any(group.all("RoutingRule")) for group in root.all("RoutingRules")):
        raise S3Error("MalformedXML")
    if everything:
        if len(root.children) != 1 or everything[0].get("HostName") is None:
            raise S3Error("MalformedXML")
        return Website(all_to=_redirect(everything[0]))
    index = next((one.get("Suffix") for one in root.all("IndexDocument")), None)
    error = next((one.get("Key") for one in root.all("ErrorDocument")), "")
    if index is None or error is None:
        raise S3Error("MalformedXML")
    if not error and any(root.all("ErrorDocument")):
        raise S3Error("InvalidArgument", "The ErrorDocument Key is not well formed", ArgumentName="ErrorDocument")
    if not index or "/" in index:
        raise S3Error("InvalidArgument", "The IndexDocument Suffix is not well formed", ArgumentName="IndexDocument")
    if len(rules) > MOST_RULES:
        raise S3Error(
            "InvalidRequest",
            f"{len(rules)} routing rules provided, the number of routing rules in a website configuration is limited to {MOST_RULES}.",
        )
    return Website(index, error, None, rules)


def _rule(element: Element) -> RoutingRule:
    redirects, conditions = list(element.all("Redirect")), list(element.all("Condition"))
    if len(redirects) != 1 or len(conditions) > 1:
        raise S3Error("MalformedXML")
    rule = _redirect(redirects[0])
    if not conditions:
        return rule
    prefix, error = conditions[0].get("KeyPrefixEquals"), conditions[0].get("HttpErrorCodeReturnedEquals")
    if prefix is None and error is None:
        raise S3Error(
            "InvalidRequest",
            "Condition cannot be empty. To redirect all requests without a condition, the condition element shouldn't be present.",
        )
    return msgspec.structs.replace(rule, prefix=prefix or "", error=_error(error))


def _redirect(element: Element) -> RoutingRule:
    protocol, code = element.get("Protocol"), element.get("HttpRedirectCode")
    if not element.children:
        raise S3Error("MalformedXML", "A redirect must say where to.")
    if protocol not in (None, "http", "https"):
        raise S3Error(
            "InvalidRequest",
            "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.",
        )
    new_key, new_prefix = element.get("ReplaceKeyWith"), element.get("ReplaceKeyPrefixWith")
    if new_key is not None and new_prefix is not None:
        raise S3Error("InvalidRequest", "You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
    host = element.get("HostName")
    if host == "":
        raise S3Error(
            "InvalidRequest",
            "The HostName cannot be blank. To redirect within the same domain, the element should not be present.",
        )
    host = host or ""
    if not host.isascii() or not host.isprintable() or set(host) & set(" /?#"):
        raise S3Error("InvalidRequest", "The HostName of a redirect must be a host's name.")
    status = number(code, 301, 399) if code is not None else 301
    if status is None:
        raise S3Error(
            "InvalidRequest",
            f"The provided HTTP redirect code ({code}) is not valid. Valid codes are 3XX except 300.",
        )
    return RoutingRule(
        host=host,
        protocol=protocol or "",
        code=status,
        new_prefix=new_prefix,
        new_key=new_key,
        coded=code is not None,
    )


def _error(text: str | None) -> int:
    found = number(text, 400, 599) if text is not None else 0
    if found is None:
        raise S3Error(
            "InvalidRequest", f"The provided HTTP error code ({text}) is not valid. Valid codes are 4XX or 5XX."
        )
    return found


def to_xml(site: Website) -> str:
    if site.all_to is not None:
        return f"<RedirectAllRequestsTo>{_optional(HostName=site.all_to.host, Protocol=site.all_to.protocol)}</RedirectAllRequestsTo>"
    error = f"<ErrorDocument>{tag('Key', site.error)}</ErrorDocument>" if site.error else ""
    return f"<IndexDocument>{tag('Suffix', site.index)}</IndexDocument>{error}" + _rules_xml(site.rules)


def _rules_xml(rules: Sequence[RoutingRule]) -> str:
    listed = "".join(_rule_xml(rule) for rule in rules)
    return f"<RoutingRules>{listed}</RoutingRules>" if listed else ""


def _rule_xml(rule: RoutingRule) -> str:
    when = _optional(KeyPrefixEquals=rule.prefix, HttpErrorCodeReturnedEquals=str(rule.error or ""))
    code = str(rule.code) if rule.coded else ""
    where = _optional(HostName=rule.host, Protocol=rule.protocol, HttpRedirectCode=code)
    if rule.new_prefix is not None:
        where += tag("ReplaceKeyPrefixWith", rule.new_prefix)
    if rule.new_key is not None:
        where += tag("ReplaceKeyWith", rule.new_key)
    return f"<RoutingRule>{f'<Condition>{when}</Condition>' if when else ''}<Redirect>{where}</Redirect></RoutingRule>"


def _optional(**texts: str) -> str:
    return "".join(tag(name, value) for name, value in texts.items() if value)
