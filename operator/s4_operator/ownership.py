"""Whose bucket a Bucket gets, and what its user may do with it: nothing before that is known.

The name of a bucket says nothing about whose it is: people choose names, and a status is what somebody wrote. Its
owner is kept by S4, and a bucket that is not there yet is made with a key of the Bucket's own user, which may do that
and no more: the daemons decide in one step who was first. Only the owner's user, or one to which the bucket was lent,
gets the use of it. Keys that others can know come after that (buckets.py); a refusal takes rights and keys back.

The user may not delete its bucket: then its rights would be there before the next bucket of that name.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from s4_operator.daemons import DaemonError, Daemons, parts
from s4_operator.iam import Iam
from s4_operator.models import Adoption
from s4_operator.secrets_of import new_keys

POLICY = "S4OperatorBucket"  # the user's one inline policy
ADOPTED_BY = (
    "s4.dev/adopted-by"  # a bucket's tag: the Buckets that it is lent to, NAMESPACE/NAME with spaces between them
)

# All that a Writer may, but for making and deleting buckets.
USES = (
    "s3:Get*",
    "s3:List*",
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
    "s3:PutObjectRetention",
    "s3:PutObjectLegalHold",
    "s3:DeleteObject*",
    "s3:AbortMultipartUpload",
    "s3:PutBucketVersioning",
    "s3:PutBucketTagging",
    "s3:PutBucketCORS",
    "s3:PutBucketWebsite",
    "s3:DeleteBucketWebsite",
    "s3:PutLifecycleConfiguration",
    "s3:PutBucketNotification",
    "s3:PutEncryptionConfiguration",
    "s3:PutBucketObjectLockConfiguration",
)

# What an owner may besides: let others in, and get round a lock that allows it.
OWNS = (
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketAcl",
    "s3:PutObjectAcl",
    "s3:PutObjectVersionAcl",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketOwnershipControls",
    "s3:BypassGovernanceRetention",
)


class RefusedError(Exception):
    """The Bucket cannot be as it is asked for: (reason, message) for its Ready condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def document(name: str, actions: Sequence[str]) -> dict[str, Any]:
    """A policy that allows actions on a bucket and what is in it."""
    resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resources}]}


def is_lent(name: str, by: str, adoptions: Sequence[Adoption], tags: dict[str, str]) -> bool:
    """Whether the Bucket NAMESPACE/NAME may use a bucket that it did not make: the S4Cluster says so, or the bucket."""
    if by in tags.get(ADOPTED_BY, "").split():
        return True
    return any(fnmatch.fnmatchcase(name, one.bucket) and _names(one.by, by) for one in adoptions)


def _names(pattern: str, by: str) -> bool:
    """No `*` reaches over the slash: a namespace is one."""
    return all(map(fnmatch.fnmatchcase, by.split("/"), pattern.split("/")))


async def owner(daemons: Daemons, name: str) -> str | None:
    """The user whose bucket it is; None where there is no such bucket. Raises DaemonError."""
    try:
        said = ElementTree.fromstring(await daemons.s3("GET", f"/{quote(name)}?acl="))  # noqa: S314 - our own daemons' answer
    except DaemonError as error:
        if error.code == "NoSuchBucket":
            return None
        raise
    return next(parts(said, "DisplayName"), "")


async def tags(daemons: Daemons, name: str) -> dict[str, str]:
    """A bucket's tags. Raises DaemonError."""
    try:
        said = ElementTree.fromstring(await daemons.s3("GET", f"/{quote(name)}?tagging="))  # noqa: S314 - our own daemons' answer
    except DaemonError as error:
        if error.code == "NoSuchTagSet":
            return {}
        raise
    return dict(zip(parts(said, "Key"), parts(said, "Value"), strict=True))


async def claim(daemons: Daemons, user: str, name: str) -> bool:
    """Make the bucket with a key that nobody else ever has; False where another was first. Raises DaemonError."""
    await daemons.put_user(user, [])
    await daemons.enable_user(user, enabled=True)
    await daemons.put_policy(user, POLICY, document(name, ("s3:CreateBucket",)))
    keys = new_keys()
    await daemons.put_key(user, keys.access, keys.secret)
    try:
        await daemons.as_user(keys.access, keys.secret).s3("PUT", f"/{quote(name)}")
    except DaemonError as error:
        if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
        return error.code == "BucketAlreadyOwnedByYou"
    finally:
        await daemons.delete_key(user, keys.access)
    return True


async def allow(daemons: Daemons, user: str, name: str) -> None:
    """Have the user use a bucket, and no other: what 0.7 granted by name goes. Raises DaemonError."""
    wanted = document(name, USES)
    try:
        await daemons.put_policy(user, POLICY, wanted)
    except DaemonError as error:
        if error.code != "NoSuchEntity":
            raise
        await daemons.put_user(user, [])
        await daemons.put_policy(user, POLICY, wanted)
    await daemons.put_user(user, [])
    await daemons.enable_user(user, enabled=True)


async def is_allowed(iam: Iam, user: str, name: str) -> bool:
    """Whether a user was given the use of this bucket, and not only the making of it. Raises DaemonError."""
    found = await iam.find("GetUserPolicy", UserName=user, PolicyName=POLICY)
    if found is None:
        return False
    (said,) = json.loads(unquote(next(parts(found, "PolicyDocument"), "")))["Statement"]
    return bool(said["Resource"] == document(name, ())["Statement"][0]["Resource"] and len(said["Action"]) > 1)


async def shut_out(daemons: Daemons, user: str) -> bool:
    """Have a user do nothing more: first, in one step, by sessions too, which end later than keys; then end its keys.
    Whether there is such a user. Raises DaemonError."""
    known = (await daemons.users()).get(user)
    if known is None:
        return False
    await daemons.enable_user(user, enabled=False)
    for access in known:
        await daemons.delete_key(user, access)
    return True


async def withdraw(daemons: Daemons, user: str) -> None:
    """Take back all keys and rights of a Bucket's user. It stays: a bucket may be its own. Raises DaemonError."""
    if await shut_out(daemons, user):
        await daemons.delete_policy(user, POLICY)
        await daemons.put_user(user, [])
