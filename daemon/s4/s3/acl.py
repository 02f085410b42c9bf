"""Access control lists, as far as S3 keeps them: canned ones, grants in headers, and the XML of both. Pure.

Source: S3 user guide, "Access control list (ACL) overview". ACLs count only in buckets whose ownership controls allow
them; the owner's own grants are shown and give nothing here, since S4 is one account, in which policies say what a
user may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from s4.s3.errors import S3Error
from s4.s3.xml import Element, tag

GROUPS = "http://acs.amazonaws.com/groups/global/"
ALL_USERS, AUTHENTICATED = GROUPS + "AllUsers", GROUPS + "AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
FULL, READ, WRITE, READ_ACP, WRITE_ACP = "FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP"
PERMISSIONS = (FULL, READ, WRITE, READ_ACP, WRITE_ACP)
OWNERS = "bucket-owner-full-control"
MOST = 100  # grants: they are in the row of what they are of
CANNED = {
    "private": (),
    "public-read": ((ALL_USERS, READ),),
    "public-read-write": ((ALL_USERS, READ), (ALL_USERS, WRITE)),
    "authenticated-read": ((AUTHENTICATED, READ),),
    "bucket-owner-read": (),
    OWNERS: (),
    "log-delivery-write": ((LOG_DELIVERY, WRITE), (LOG_DELIVERY, READ_ACP)),
    "aws-exec-read": (),
}
GRANT_HEADERS = {
    "x-amz-grant-full-control": FULL,
    "x-amz-grant-read": READ,
    "x-amz-grant-write": WRITE,
    "x-amz-grant-read-acp": READ_ACP,
    "x-amz-grant-write-acp": WRITE_ACP,
}
ASKED = frozenset(("x-amz-acl", *GRANT_HEADERS))  # headers that ask for an ACL
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'

# What a permission on a bucket, and on an object, lets do.
OF_BUCKET = {
    READ: ("s3:listbucket", "s3:listbucketversions", "s3:listbucketmultipartuploads"),
    WRITE: ("s3:putobject",),
    READ_ACP: ("s3:getbucketacl",),
    WRITE_ACP: ("s3:putbucketacl",),
}
OF_OBJECT = {
    READ: ("s3:getobject", "s3:getobjectversion"),
    READ_ACP: ("s3:getobjectacl", "s3:getobjectversionacl"),
    WRITE_ACP: ("s3:putobjectacl", "s3:putobjectversionacl"),
}


class Acl(msgspec.Struct, frozen=True, array_like=True):
    """Grants of permissions to others than the owner, (a group's URI or a canonical id, permission), and the owner's
    own permissions."""

    grants: tuple[tuple[str, str], ...] = ()
    own: tuple[str, ...] = (FULL,)

    @property
    def private(self) -> bool:
        """Whether it is what there is without one."""
        return not self.grants and self.own == (FULL,)

    @property
    def public(self) -> bool:
        return any(who in (ALL_USERS, AUTHENTICATED) for who, _ in self.grants)

    def allows(self, action: str, canonical: str, *, of_bucket: bool, ignore_public: bool) -> bool:
        """Whether a requester, anonymous where `canonical` is empty, may do `action` by this list."""
        names = {canonical} if canonical else set()
        if not ignore_public:
            names |= {ALL_USERS, AUTHENTICATED} if canonical else {ALL_USERS}
        table = OF_BUCKET if of_bucket else OF_OBJECT
        return any(
            who in names
            and any(
                action.lower() in table.get(one, ()) for one in ((*table,) if permission == FULL else (permission,))
            )
            for who, permission in self.grants
        )


def encode(acl: Acl) -> str:
    """As text, empty for a private one."""
    return "" if acl.private else msgspec.json.encode(acl).decode()


def decode(text: str) -> Acl:
    return msgspec.json.decode(text, type=Acl) if text else Acl()


def from_headers(headers: Mapping[str, str], owner: str) -> Acl | None:
    """What x-amz-acl or x-amz-grant-* ask for; None where there is neither. `owner`: its canonical id. Raises
    S3Error."""
    canned = headers.get("x-amz-acl")
    given = [name for name in GRANT_HEADERS if name in headers]
    if canned is not None:
        if given:
            raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
        if canned not in CANNED:
            raise S3Error("InvalidArgument", ArgumentName="x-amz-acl", ArgumentValue=canned)
        return Acl(CANNED[canned])
    if not given:
        return None
    grants = [(who, GRANT_HEADERS[name]) for name in given for who in _grantees(headers[name], name)]
    return _bounded(grants, owner)


def _bounded(grants: Iterable[tuple[str, str]], owner: str) -> Acl:
    found = tuple(dict.fromkeys(grants))
    if len(found) > MOST:
        raise S3Error("InvalidRequest", f"An ACL has at most {MOST} grants")
    own = tuple(permission for who, permission in found if who == owner)
    return Acl(tuple(one for one in found if one[0] != owner), own)


def _grantees(text: str, header: str) -> list[str]:
    found = []
    for piece in text.split(","):
        kind, _, value = piece.strip().partition("=")
        found.append(_grantee(kind.strip().lower(), value.strip().strip('"'), header))
    return found


def _grantee(kind: str, value: str, where: str) -> str:
    if kind == "uri" and value in (ALL_USERS, AUTHENTICATED, LOG_DELIVERY):
        return value
    if kind == "id" and re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    if kind == "emailaddress":
        raise S3Error("UnresolvableGrantByEmailAddress")
    raise S3Error(
        "InvalidArgument",
        "Invalid id" if kind == "id" else "Invalid group uri" if kind == "uri" else "Argument format not recognized",
        ArgumentName=where,
        ArgumentValue=value,
    )


def from_xml(root: Element, owner: str) -> Acl:
    """An AccessControlPolicy. Raises S3Error."""
    listed = next(root.all("AccessControlList"), None)
    if listed is None or any(child.name != "Grant" for child in listed.children):
        raise S3Error("MalformedACLError")
    grants = []
    for one in listed.all("Grant"):
        grantee, permission = next(one.all("Grantee"), None), one.get("Permission")
        if grantee is None or permission not in PERMISSIONS:
            raise S3Error("MalformedACLError")
        uri, name, email = grantee.get("URI"), grantee.get("ID"), grantee.get("EmailAddress")
        if (uri, name, email).count(None) < 2:  # which of them is meant nobody can say
            raise S3Error("MalformedACLError")
        kind, value = ("uri", uri) if uri else ("id", name) if name else ("emailaddress", email or "")
        grants.append((_grantee(kind, value, "Grantee"), permission))
    return _bounded(grants, owner)


def to_xml(acl: Acl, owner: str) -> str:
    """Owner and grants, the owner's own first. `owner`: its elements."""
    own = [_grant("CanonicalUser", owner, permission) for permission in acl.own]
    others = [
        _grant(
            *(("Group", tag("URI", who)) if who.startswith("http") else ("CanonicalUser", tag("ID", who))), permission
        )
        for who, permission in acl.grants
    ]
    return f"<Owner>{owner}</Owner><AccessControlList>{''.join(own + others)}</AccessControlList>"


def _grant(kind: str, who: str, permission: str) -> str:
    return f'<Grant><Grantee {_XSI} xsi:type="{kind}">{who}</Grantee>{tag("Permission", permission)}</Grant>'
