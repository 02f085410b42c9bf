"""Cross-origin rules of a bucket. Pure. Source: S3 user guide, "Using cross-origin resource sharing"; the Fetch
standard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from s4.s3.errors import S3Error
from s4.s3.xml import Element, tag

METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
MOST = 100
_TOKEN = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+").fullmatch


class CorsRule(msgspec.Struct, frozen=True):
    origins: list[str]
    methods: list[str]
    headers: list[str] = []
    exposed: list[str] = []
    max_age_s: int | None = None
    id: str = ""

    def takes(self, origin: str, method: str, headers: Sequence[str]) -> bool:
        return (
            method in self.methods
            and any(_matches(pattern, origin) for pattern in self.origins)
            and all(any(_matches(pattern.lower(), name) for pattern in self.headers) for name in headers)
        )


def _matches(pattern: str, text: str) -> bool:
    """With at most one star."""
    front, star, back = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(front) + len(back) and text.startswith(front) and text.endswith(back)


def find(rules: Sequence[CorsRule], origin: str, method: str, headers: Sequence[str] = ()) -> CorsRule | None:
    """The first rule that takes a request from an origin, with these header names (lower case). What is echoed to it is
    fit for a header: an origin in ASCII, and names that are names."""
    if not (origin.isascii() and origin.isprintable() and all(map(_TOKEN, headers))):
        return None
    return next((rule for rule in rules if rule.takes(origin, method, headers)), None)


def asked_of(headers: Mapping[str, str], method: str) -> tuple[str, list[str]]:
    """(method, names of headers) that a request is judged by: those that it says it will have, a preflight or not."""
    names = headers.get("access-control-request-headers", "").split(",")
    return headers.get("access-control-request-method", method), [
        name.strip().lower() for name in names if name.strip()
    ]


def answer(rule: CorsRule, origin: str, asked: Sequence[str] = ()) -> dict[str, str]:
    """The headers that tell a browser what it may do. S3 gives a preflight and what follows it the same."""
    anybody = "*" in rule.origins
    found = {
        "Access-Control-Allow-Origin": "*" if anybody else origin,
        "Access-Control-Allow-Methods": ", ".join(rule.methods),
    }
    if not anybody:
        found["Access-Control-Allow-Credentials"] = "true"
    if asked:
        found["Access-Control-Allow-Headers"] = ", ".join(asked)
    exposed = [name for name in rule.exposed if _TOKEN(name)]  # 0.7 took what is no name
    if exposed:
        found["Access-Control-Expose-Headers"] = ", ".join(exposed)
    if rule.max_age_s is not None:
        found["Access-Control-Max-Age"] = str(rule.max_age_s)
    found["Vary"] = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
    return found


def from_xml(root: Element) -> list[CorsRule]:
    """Raises S3Error MalformedXML, InvalidRequest."""
    rules = [_rule(one) for one in root.all("CORSRule")]
    if not 1 <= len(rules) <= MOST or len(rules) != len(root.children):
        raise S3Error("MalformedXML")
    return rules


def _rule(element: Element) -> CorsRule:
    def texts(name: str) -> list[str]:
        return [one.text.strip() for one in element.all(name)]

    rule_id, age = element.get("ID") or "", element.get("MaxAgeSeconds")
    rule = CorsRule(
        texts("AllowedOrigin"),
        texts("AllowedMethod"),
        texts("AllowedHeader"),
        texts("ExposeHeader"),
        int(age) if age is not None and age.isascii() and age.isdigit() and len(age) < 10 else None,
        rule_id,
    )
    if not rule.origins or not rule.methods or (age is not None and rule.max_age_s is None) or len(rule_id) > 255:
        raise S3Error("MalformedXML")
    for method in rule.methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for name, patterns in (("AllowedOrigin", rule.origins), ("AllowedHeader", rule.headers)):
        for pattern in patterns:
            if pattern.count("*") > 1:
                raise S3Error("InvalidRequest", f'{name} "{pattern}" can not have more than one wildcard.')
    for exposed in rule.exposed:
        if "*" in exposed:
            raise S3Error(
                "InvalidRequest",
                f'ExposeHeader "{exposed}" contains wildcard. We currently do not support wildcard for ExposeHeader.',
            )
        if not _TOKEN(exposed):
            raise S3Error("InvalidRequest", f'ExposeHeader "{exposed}" is no name of a header.')
    return rule


def to_xml(rules: Sequence[CorsRule]) -> str:
    return "".join(
        "<CORSRule>"
        + (tag("ID", rule.id) if rule.id else "")
        + "".join(tag("AllowedHeader", one) for one in rule.headers)
        + "".join(tag("AllowedMethod", one) for one in rule.methods)
        + "".join(tag("AllowedOrigin", one) for one in rule.origins)
        + "".join(tag("ExposeHeader", one) for one in rule.exposed)
        + (tag("MaxAgeSeconds", rule.max_age_s) if rule.max_age_s is not None else "")
        + "</CORSRule>"
        for rule in rules
    )
