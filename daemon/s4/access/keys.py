"""Condition keys: which there are, what they apply to, of which type they are, and how each is filled from a request.
Pure.

Source: AWS Service Authorization Reference, "Amazon S3", "AWS Identity and Access Management", "AWS Security Token
Service"; IAM user guide, "AWS global condition context keys".

One table, `KEYS`, says all of it. A key that is not in it, or that applies to none of a statement's actions, is
refused when a document is put (access/checks.py): it would never be there, and a Deny that asks for it would never
bite. So an editor who adds a row says how it is filled; tests/access/test_denies.py fills every key of every action by
a request and denies by it.

A key is there for the actions that have it, and for no others: `?prefix=` on a GET says nothing of a listing. Keys
marked `asked` say what is asked rather than who asks how: a version, its tags, tags in a body. They differ between the
keys of one request, so whoever asks gives them (`more` of http/authorize.Authorizer), and nothing that rests on them is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from s4.access.actions import ON
from s4.s3 import lock, tags
from s4.s3.names import copy_source, exact_date

TAG_KEYS = "aws:tagkeys"
ACCOUNT = "000000000000"  # S4 is one account
Values = dict[str, tuple[str, ...]]

TEXT, TEXTS, NUMBER, DATE, TRUTH, ADDRESS, ARN = "text", "texts", "number", "date", "truth", "address", "ARN"
# Which families of operators a type has. A text operator on a number or an address would compare how it is written.
OPERATORS = {
    TEXT: ("string",),
    TEXTS: ("string",),
    NUMBER: ("numeric",),
    DATE: ("date",),
    TRUTH: ("bool", "string"),
    ADDRESS: ("ip",),
    ARN: ("arn", "string"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A request, as far as condition keys go by it. `signed` is s3:authType; `tls` a version such as 1.3; both may be
    empty. `about` are the keys of the requester."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    operation: str
    now: float
    remote: str = ""
    tls: str = ""
    signed: str = ""
    algorithm: str = ""
    signed_at: float = 0.0
    region: str = ""
    payload: str = ""  # what the signature says of the body
    about: Mapping[str, tuple[str, ...]] | None = None


KMS_KEY = "s3:x-amz-server-side-encryption-aws-kms-key-id"
Fill = Callable[[Facts], "str | tuple[str, ...] | Mapping[str, tuple[str, ...]] | None"]


@dataclass(frozen=True, slots=True)
class Key:
    """`name` ends in `/` where the key of a tag follows. `actions`: names, SERVICE:*, or *. `fill` is None where
    whoever asks gives it."""

    name: str
    type: str
    actions: tuple[str, ...]
    fill: Fill | None = None
    asked: bool = False

    def applies(self, action: str) -> bool:
        """`action` in lower case."""
        return any(one in ("*", action) or (one[-1] == "*" and action.startswith(one[:-1])) for one in self.actions)


def _header(name: str) -> Fill:
    return lambda facts: facts.headers.get(name)


def _query(name: str) -> Fill:
    return lambda facts: facts.query.get(name)


def _about(facts: Facts, name: str) -> tuple[str, ...] | None:
    return (facts.about or {}).get(name)


def _who(name: str) -> Fill:
    return lambda facts: _about(facts, name)


def _principal_tags(facts: Facts) -> dict[str, tuple[str, ...]]:
    start = "aws:principaltag/"
    return {name[len(start) :]: value for name, value in (facts.about or {}).items() if name.startswith(start)}


def _copied_from(facts: Facts) -> str | None:
    """The source as bucket/key, as the copy itself reads it."""
    text = facts.headers.get("x-amz-copy-source")
    return copy_source(text).decode("utf-8", "replace") if text is not None else None


def kms_key(facts: Facts) -> str | None:
    """The name of the key, however it is written: plain, as an alias or as an ARN. Names have no slash."""
    text = facts.headers.get("x-amz-server-side-encryption-aws-kms-key-id")
    return text.rpartition("/")[2] if text is not None else None


def _brought_tags(facts: Facts) -> dict[str, str]:
    """The tags that a write brings: not those that a copy says and does not take."""
    if facts.operation == "RenameObject":
        return {}
    if facts.operation == "CopyObject" and facts.headers.get("x-amz-tagging-directive", "COPY") != "REPLACE":
        return {}
    return tags.from_header(facts.headers) if "x-amz-tagging" in facts.headers else {}


def _lock(name: str) -> Fill:
    def fill(facts: Facts) -> tuple[str, ...] | None:
        if lock.UNTIL not in facts.headers:
            return None
        now_ms = int(facts.now * 1000)
        wanted = lock.from_headers(facts.headers, now_ms)
        return of_lock(wanted.mode, wanted.until_ms, now_ms).get(name)

    return fill


def _signature_age(facts: Facts) -> str | None:
    """In milliseconds, of a presigned request."""
    if facts.signed != "REST-QUERY-STRING":
        return None
    return f"{max(0.0, facts.now - facts.signed_at) * 1000:.0f}"


def _creates(facts: Facts) -> str | None:
    """Whether an object is there once the operation is done; an upload's steps make none."""
    if facts.operation in ("CreateMultipartUpload", "UploadPart", "UploadPartCopy"):
        return "false"
    return "true" if facts.operation else None


_PUT = ("s3:PutObject",)
_ACL = ("s3:CreateBucket", "s3:PutBucketAcl", "s3:PutObjectAcl", "s3:PutObjectVersionAcl")
_LISTS = ("s3:ListBucket", "s3:ListBucketVersions")
_TAGGED = (
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
    "s3:GetObject",
    "s3:GetObjectAcl",
    "s3:GetObjectAttributes",
    "s3:GetObjectTagging",
    "s3:GetObjectVersion",
    "s3:GetObjectVersionAcl",
    "s3:GetObjectVersionAttributes",
    "s3:GetObjectVersionTagging",
    "s3:PutObjectAcl",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionAcl",
    "s3:PutObjectVersionTagging",
)
_VERSIONS = (
    "s3:DeleteObjectVersion",
    "s3:DeleteObjectVersionTagging",
    "s3:GetObjectVersion",
    "s3:GetObjectVersionAcl",
    "s3:GetObjectVersionAttributes",
    "s3:GetObjectVersionTagging",
    "s3:PutObjectVersionAcl",
    "s3:PutObjectVersionTagging",
)
_TAGGING = ("s3:PutObjectTagging", "s3:PutObjectVersionTagging")
_LOCKED = (*_PUT, "s3:PutObjectRetention")
_TAGGED_BUCKETS = ("s3:ListTagsForResource", "s3:TagResource", "s3:UntagResource")  # AWS lists the keys for all three
_LABELLED = (
    "s3:CreateBucket",
    *_TAGGED_BUCKETS,
    "iam:CreateUser",
    "iam:CreateRole",
    "iam:CreatePolicy",
    "iam:CreateOpenIDConnectProvider",
    "iam:TagUser",
    "iam:TagRole",
    "iam:TagPolicy",
    "iam:TagOpenIDConnectProvider",
    "sts:AssumeRole",
    "sts:TagSession",
)
_ATTACHING = tuple(f"iam:{verb}{kind}Policy" for verb in ("Attach", "Detach") for kind in ("User", "Group", "Role"))
_BOUND = (
    *(one for one in _ATTACHING if "Group" not in one),
    "iam:DeleteRole",
    "iam:GetRole",
    "iam:UpdateRole",
    "iam:UpdateAssumeRolePolicy",
    *(
        f"iam:{verb}{kind}{what}"
        for verb in ("Put", "Delete")
        for kind in ("User", "Role")
        for what in ("Policy", "PermissionsBoundary")
    ),
    "iam:CreateUser",
    "iam:CreateRole",
)
_ASSUMING = ("sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:TagSession")
_OF_ACCOUNTS = tuple(f"iam:{name}" for kind in ("user", "role") for name in ON[kind])
_OF_OTHERS = tuple(f"iam:{name}" for kind in ("policy", "provider") for name in ON[kind])


def _copied(*names: str) -> list[Key]:
    """Keys that are headers of the same name."""
    return [Key(f"s3:{name}", TEXT, _PUT, _header(name)) for name in names]


_ROWS = [
    # of every action
    Key("aws:CurrentTime", DATE, ("*",), lambda facts: f"{facts.now:.3f}"),
    Key("aws:EpochTime", DATE, ("*",), lambda facts: f"{int(facts.now)}"),
    Key("aws:SecureTransport", TRUTH, ("*",), lambda facts: "true" if facts.tls else "false"),
    Key("aws:SourceIp", ADDRESS, ("*",), lambda facts: facts.remote or None),
    Key("aws:UserAgent", TEXT, ("*",), _header("user-agent")),
    Key("aws:Referer", TEXT, ("*",), _header("referer")),
    Key("aws:RequestedRegion", TEXT, ("*",), lambda facts: facts.region or None),
    Key("aws:ResourceAccount", TEXT, ("*",), lambda facts: ACCOUNT),
    Key("aws:ViaAWSService", TRUTH, ("*",), lambda facts: "false"),  # no service asks for anybody here
    Key("aws:PrincipalIsAWSService", TRUTH, ("*",), lambda facts: "false"),
    Key("aws:PrincipalArn", ARN, ("*",), _who("aws:principalarn")),
    Key("aws:PrincipalAccount", TEXT, ("*",), _who("aws:principalaccount")),
    Key("aws:PrincipalType", TEXT, ("*",), _who("aws:principaltype")),
    Key("aws:PrincipalTag/", TEXT, ("*",), _principal_tags),
    Key("aws:userid", TEXT, ("*",), _who("aws:userid")),
    Key("aws:username", TEXT, ("*",), _who("aws:username")),
    Key("aws:TokenIssueTime", DATE, ("*",), _who("aws:tokenissuetime")),
    Key("aws:MultiFactorAuthPresent", TRUTH, ("*",), _who("aws:multifactorauthpresent")),
    Key("aws:FederatedProvider", ARN, ("*",), _who("aws:federatedprovider")),
    # of every action of S3
    Key("s3:ResourceAccount", TEXT, ("s3:*",), lambda facts: ACCOUNT),
    Key("s3:authType", TEXT, ("s3:*",), lambda facts: facts.signed or None),
    Key("s3:signatureversion", TEXT, ("s3:*",), lambda facts: facts.algorithm or None),
    Key("s3:signatureAge", NUMBER, ("s3:*",), _signature_age),
    Key("s3:TlsVersion", NUMBER, ("s3:*",), lambda facts: facts.tls or None),
    Key(
        "s3:x-amz-content-sha256",
        TEXT,
        ("s3:*",),
        lambda facts: facts.payload or facts.headers.get("x-amz-content-sha256"),
    ),
    # of some actions of S3
    Key(
        "s3:prefix",
        TEXT,
        _LISTS,
        lambda facts: facts.query.get("prefix") if facts.operation.startswith("List") else None,
    ),
    Key(
        "s3:delimiter",
        TEXT,
        _LISTS,
        lambda facts: facts.query.get("delimiter") if facts.operation.startswith("List") else None,
    ),
    Key(
        "s3:max-keys",
        NUMBER,
        _LISTS,
        lambda facts: facts.query.get("max-keys") if facts.operation.startswith("List") else None,
    ),
    Key("s3:x-amz-acl", TEXT, (*_PUT, *_ACL), _header("x-amz-acl")),
    *(
        Key(f"s3:x-amz-grant-{what}", TEXT, (*_PUT, *_ACL), _header(f"x-amz-grant-{what}"))
        for what in ("full-control", "read", "read-acp", "write", "write-acp")
    ),
    *_copied(
        "x-amz-metadata-directive",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-website-redirect-location",
    ),
    Key(KMS_KEY, ARN, _PUT, kms_key),
    Key("s3:x-amz-copy-source", TEXT, _PUT, _copied_from),
    Key("s3:x-amz-storage-class", TEXT, _PUT, _header("x-amz-storage-class")),
    Key("s3:x-amz-object-ownership", TEXT, ("s3:CreateBucket",), _header("x-amz-object-ownership")),
    Key("s3:if-match", TEXT, (*_PUT, "s3:DeleteObject"), _header("if-match"), asked=True),
    Key("s3:if-none-match", TEXT, _PUT, _header("if-none-match")),
    Key("s3:ObjectCreationOperation", TRUTH, _PUT, _creates),
    Key("s3:locationconstraint", TEXT, ("s3:CreateBucket",), asked=True),
    Key("s3:versionid", TEXT, _VERSIONS, asked=True),
    Key("s3:ExistingObjectTag/", TEXT, _TAGGED, asked=True),
    Key("s3:RequestObjectTag/", TEXT, (*_PUT, *_TAGGING), lambda facts: by_key(_brought_tags(facts)), asked=True),
    Key("s3:RequestObjectTagKeys", TEXTS, (*_PUT, *_TAGGING), lambda facts: tuple(_brought_tags(facts)), asked=True),
    Key("s3:object-lock-mode", TEXT, _LOCKED, _lock("s3:object-lock-mode"), asked=True),
    Key("s3:object-lock-retain-until-date", DATE, _LOCKED, _lock("s3:object-lock-retain-until-date"), asked=True),
    Key(
        "s3:object-lock-remaining-retention-days",
        NUMBER,
        _LOCKED,
        _lock("s3:object-lock-remaining-retention-days"),
        asked=True,
    ),
    Key("s3:object-lock-legal-hold", TEXT, (*_PUT, "s3:PutObjectLegalHold"), _header(lock.HOLD), asked=True),
    # of accounts and sessions
    Key("aws:RequestTag/", TEXT, _LABELLED, asked=True),
    Key("aws:TagKeys", TEXTS, (*_LABELLED, "iam:UntagUser", "iam:UntagRole"), asked=True),
    Key("aws:ResourceTag/", TEXT, (*_OF_ACCOUNTS, *_OF_OTHERS, *_ASSUMING), asked=True),
    Key("iam:ResourceTag/", TEXT, (*_OF_ACCOUNTS, *_ASSUMING), asked=True),
    Key("iam:PolicyARN", ARN, _ATTACHING, asked=True),
    Key("iam:PermissionsBoundary", ARN, _BOUND, asked=True),
    Key("sts:ExternalId", TEXT, ("sts:AssumeRole", "sts:TagSession"), asked=True),  # both are asked by one call
    Key("sts:RoleSessionName", TEXT, _ASSUMING, asked=True),
]

KEYS = {
    row.name.lower(): Key(row.name, row.type, tuple(one.lower() for one in row.actions), row.fill, row.asked)
    for row in _ROWS
}
_FAMILIES = tuple(name for name in KEYS if name.endswith("/"))
SERVICES = ("aws", "s3", "iam", "sts", "s4")

# Claims of an OpenID Connect provider, as PROVIDER:CLAIM, in documents of trust.
CLAIMS = ("aud", "sub", "email", "azp")
_CLAIM = Key("PROVIDER:CLAIM", TEXTS, ("sts:assumerolewithwebidentity",), asked=True)

# Names of 0.7 for keys that have another.
RENAMED = {"s3:x-amz-object-lock-legal-hold": "s3:object-lock-legal-hold"}

# What AWS has and no request to S4: they are never there, whatever their condition then says.
NEVER = frozenset(
    (
        "aws:calledvia",
        "aws:calledviafirst",
        "aws:calledvialast",
        "aws:multifactorauthage",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:principalservicename",
        "aws:principalservicenameslist",
        "aws:resourceorgid",
        "aws:resourceorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceidentity",
        "aws:sourceorgid",
        "aws:sourceorgpaths",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:vpcsourceip",
        "s3:accesspointnetworkorigin",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
    )
)


@lru_cache(maxsize=4096)
def find(name: str) -> Key | None:
    """The key of a name in lower case; that of its family where a tag's key ends it."""
    found = KEYS.get(name)
    if found is not None and not name.endswith("/"):
        return found
    for family in _FAMILIES:
        if name.startswith(family) and len(name) > len(family):
            return KEYS[family]
    provider, _, claim = name.rpartition(":")
    if (
        claim in CLAIMS
        and provider
        and provider not in SERVICES
        and not provider.startswith(tuple(f"{one}:" for one in SERVICES))
    ):
        return _CLAIM
    return None


def is_asked(name: str) -> bool:
    """Whether a key, in lower case, may differ between what one request asks."""
    found = find(name)
    return found is None or found.asked


def context_of(facts: Facts) -> Values:
    """All keys that a request fills by itself, whatever they apply to. Raises S3Error where a header cannot be read."""
    found: Values = {}
    for name, key in KEYS.items():
        value = key.fill(facts) if key.fill is not None else None
        if isinstance(value, str):
            found[name] = (value,)
        elif isinstance(value, tuple):
            if value:
                found[name] = value
        elif value is not None:
            found.update({name + tag.lower(): values for tag, values in value.items()})
    return found


def for_action(context: Mapping[str, tuple[str, ...]], action: str) -> Values:
    """The keys that an action has."""
    lower = action.lower()
    return {name: value for name, value in context.items() if _has(lower, name)}


def _has(action: str, name: str) -> bool:
    key = find(name)
    return key is not None and key.applies(action)


# -- what is asked


def by_key(named: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Values by the key of a tag in lower case, for policies do not tell cases apart: where two keys differ in case
    only, there are two values, and a Deny looks for one that it meets, an Allow at all of them
    (conditions.Condition.holds)."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in named.items():
        found[name.lower()] = (*found.get(name.lower(), ()), value)
    return found


def of_tags(
    asked: Mapping[str, str], family: str = "s3:requestobjecttag", names: str = "s3:requestobjecttagkeys"
) -> Values:
    """Keys of the tags that a request brings."""
    return {names: tuple(asked), **{f"{family}/{name}": values for name, values in by_key(asked).items()}}


def of_labels(asked: Mapping[str, str]) -> Values:
    """The same of buckets, accounts and sessions."""
    return of_tags(asked, "aws:requesttag", TAG_KEYS)


def existing_tags(held: Mapping[str, str]) -> Values:
    return {f"s3:existingobjecttag/{name}": values for name, values in by_key(held).items()}


def resource_tags(held: Mapping[str, str]) -> Values:
    """Keys of the tags of the user, role, policy or provider that a call is about."""
    return {
        f"{service}:resourcetag/{name}": values for name, values in by_key(held).items() for service in ("aws", "iam")
    }


def of_lock(mode: str, until_ms: int, now_ms: int) -> Values:
    """Keys of the retention that a request brings."""
    if not mode:
        return {}
    days = str(max(0, -(-(until_ms - now_ms) // lock.DAY_MS)))
    return {
        "s3:object-lock-mode": (mode,),
        "s3:object-lock-retain-until-date": (exact_date(until_ms),),
        "s3:object-lock-remaining-retention-days": (days,),
    }


def of_etag(etag: str | None) -> Values | None:
    """The condition that a DeleteObjects says of one of its keys, as it is written."""
    return {"s3:if-match": (etag,)} if etag else None


def of_hold(hold: bool) -> Values:
    return {"s3:object-lock-legal-hold": ("ON" if hold else "OFF",)}
