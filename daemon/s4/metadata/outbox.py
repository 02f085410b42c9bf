"""What each outbox action asks of which partition (rules C1, C2).

An action whose partition is committed by the same batch is decided in the same turn, so nothing can come
between; the others wait as outbox rows, in order, until they were carried out. Every action is idempotent.
"""

from __future__ import annotations

from s4.metadata import commands, keys
from s4.metadata.commands import AnyCommand, Settings
from s4.metadata.entry import Source
from s4.metadata.rows import AnyAction, BucketState, Dereference, Publish, RemoveSource, Unpublish, decode


def follow_up(action: AnyAction, partitions: int, rows: Source) -> tuple[int, AnyCommand] | None:
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
        settings = settings_of(partition, action.bucket, rows)
        return partition, commands.DeleteObject(settings, action.key, only_if_newest=action.version)
    return None


def settings_of(partition: int, bucket: int, rows: Source) -> Settings:
    """The settings that a partition itself holds of a bucket."""
    value = rows.get(keys.bucket_state_row(partition, bucket))
    state = decode(BucketState, value) if value is not None else BucketState(1, "")
    return Settings(bucket, state.revision, state.versioning)
