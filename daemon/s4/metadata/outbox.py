"""What each outbox action asks of which partition (rules C1, C2).

An action whose partition takes part in the same turn is decided in it, so nothing can come between; the others wait
as outbox rows, in order, until they were carried out. Every action is idempotent, but for the second half of a rename,
which has an id: a marker on its source that was taken away since is not put there again by who leads next (R12).
"""

from __future__ import annotations

import hashlib

from s4.metadata import commands, keys
from s4.metadata.commands import AnyCommand
from s4.metadata.rows import AnyAction, Dereference, Publish, RemoveSource, Unpublish


def follow_id(key: bytes, action: AnyAction) -> bytes:
    """The id of an outbox row's command, the same for whoever carries it out; empty where it may be done twice."""
    if not isinstance(action, RemoveSource) or not action.at_ms:
        return b""
    return keys.command_id(action.at_ms, hashlib.blake2b(key, digest_size=10).digest())


def about(action: AnyAction) -> bytes:
    """What an action is about: those of one partition about the same thing keep their order."""
    if isinstance(action, Publish | Unpublish):
        return action.sha256
    return action.key if isinstance(action, RemoveSource) else action.blob


def follow_up(action: AnyAction, partitions: int) -> tuple[int, AnyCommand] | None:
    """(partition, command) of an action; None for one that is the store's to do, not a partition's."""
    if isinstance(action, Dereference):
        return action.partition, commands.DropReferences([(action.blob, action.reference)])
    if isinstance(action, Publish):
        home = keys.partition_of_content(action.sha256, partitions)
        return home, commands.PublishContent(action.sha256, action.partition, action.blob, action.size)
    if isinstance(action, Unpublish):
        home = keys.partition_of_content(action.sha256, partitions)
        return home, commands.UnpublishContent(action.sha256, action.blob)
    if isinstance(action, RemoveSource):
        partition = keys.partition_of(action.bucket, action.key, partitions)
        return partition, commands.DeleteIfNewest(action.bucket, action.key, action.version, action.notify)
    return None
