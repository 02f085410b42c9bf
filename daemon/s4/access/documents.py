"""Settings of a bucket that gateways obey: how each is kept as a text in the bucket's row, and what holds without it.

What cannot be read is the strictest there is: a policy that denies, a block of everything public, no ACLs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from s4.access.policy import DENY, Policy
from s4.access.requester import UNREADABLE, read_of_bucket
from s4.metadata import events
from s4.metadata.buckets import LOCK
from s4.metadata.entry import RefusalError
from s4.metadata.rows import Bucket
from s4.s3 import lifecycle
from s4.s3.cors import CorsRule
from s4.s3.encryption import Default as Encryption
from s4.s3.errors import S3Error
from s4.s3.lock import Default
from s4.s3.website import Website

POLICY, TAGS, ACL, CORS, OWNERSHIP, BLOCK = "policy", "tags", "acl", "cors", "ownership", "block"
RATE = "rate"
QUOTA, WEBSITE, LIFECYCLE, ENCRYPTION, NOTIFICATION = "quota", "website", "lifecycle", "encryption", "notification"
ENFORCED, PREFERRED, WRITER = "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"
T = TypeVar("T")
Other = TypeVar("Other")
REMOVED = "removed"  # of ownership controls: S3 then goes by ObjectWriter, and has none to show


class Block(msgspec.Struct, frozen=True):
    """S3's public access block. As in S3 today, a new bucket has all four."""

    acls: bool = True
    ignore: bool = True
    policy: bool = True
    restrict: bool = True
    shown: bool = True


_BLOCKED = Block()
NO_BLOCK = Block(False, False, False, False, shown=False)


@lru_cache(maxsize=8192)
def _decoded(kind: Any, text: str) -> Any:
    return msgspec.json.decode(text, type=kind)


def _read(bucket: Bucket, setting: str, kind: type[T], otherwise: Other, called: str = "") -> T | Other:
    """A setting, or what holds where a bucket has none. So does it where the setting cannot be read; but one that is
    `called` something is then an S3Error that is raised, for nothing goes on without it."""
    text = bucket.documents.get(setting, "")
    if not text:
        return otherwise
    try:
        return cast("T", _decoded(cast("Any", kind), text))
    except msgspec.MsgspecError as error:
        if called:
            raise S3Error("InternalError", f"The bucket's {called} cannot be read: put it again.") from error
        return otherwise


def encode(
    value: msgspec.Struct | list[CorsRule] | list[lifecycle.Rule] | list[events.NotificationRule] | dict[str, str],
) -> str:
    return msgspec.json.encode(value).decode()


def block_of(bucket: Bucket) -> Block:
    return _read(bucket, BLOCK, Block, _BLOCKED)


def ownership_of(bucket: Bucket) -> str:
    return bucket.documents.get(OWNERSHIP, ENFORCED)


def object_owner(bucket: Bucket, writer: str) -> str:
    """Whose an object is that `writer` brings: where ownership is not the writer's, the bucket's."""
    return bucket.owner if ownership_of(bucket) in (ENFORCED, PREFERRED) else writer


def has_acls(bucket: Bucket) -> bool:
    return ownership_of(bucket) in (PREFERRED, WRITER, REMOVED)


def cors_of(bucket: Bucket) -> list[CorsRule]:
    return _read(bucket, CORS, list[CorsRule], [])


def website_of(bucket: Bucket) -> Website | None:
    return _read(bucket, WEBSITE, Website, None)


def default_lock(bucket: Bucket) -> Default | None:
    """The retention that new versions get. Raises S3Error where it cannot be read: nothing is written unlocked then."""
    return _read(bucket, LOCK, Default, None, "default retention")


def tags_of(bucket: Bucket) -> dict[str, str]:
    text = bucket.documents.get(TAGS, "")
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


def lifecycle_of(bucket: Bucket) -> list[lifecycle.Rule]:
    """Rules that cannot be read end nothing."""
    return _read(bucket, LIFECYCLE, list[lifecycle.Rule], [])


def encryption_of(bucket: Bucket) -> Encryption | None:
    """How what comes is encrypted. Raises S3Error where it cannot be read: nothing is written in the clear then."""
    return _read(bucket, ENCRYPTION, Encryption, None, "encryption")


def notification_of(bucket: Bucket) -> list[events.NotificationRule]:
    """Raises S3Error where it cannot be read."""
    text = bucket.documents.get(NOTIFICATION)
    try:
        return events.rules_of(text) if text is not None else []
    except RefusalError as error:
        raise S3Error(error.code, error.message) from error


def quota_of(bucket: Bucket) -> int:
    """Bytes that a bucket may hold; 0 is no bound."""
    return int(bucket.documents.get(QUOTA, "0"))


def rate_of(bucket: Bucket) -> tuple[int, int]:
    """Requests and bytes a second; 0 where the general ones count."""
    text = bucket.documents.get(RATE)
    if text is None:
        return 0, 0
    requests, _, sent = text.partition(" ")
    return int(requests), int(sent)


def policy_of(bucket: Bucket) -> Policy | None:
    text = bucket.documents.get(POLICY, "")
    return read_of_bucket(text) if text else None


def policy_for(bucket: Bucket, *, anonymous: bool) -> Policy | None:
    """The bucket's policy as it counts for a requester: one that is public lets in no stranger past a block."""
    found = policy_of(bucket)
    if found is None or found is UNREADABLE or not anonymous or not found.public or not block_of(bucket).restrict:
        return found
    return Policy(tuple(one for one in found.statements if one.effect == DENY))
