"""What the metrics endpoint says of the stores, in one list."""

from __future__ import annotations

from collections.abc import Iterator

from s4.embedded import OpenStore
from s4.upkeep.heal import Healer
from s4.upkeep.scrub import Scrubber

Figure = tuple[str, str, float, bool]


def store_figures(store: OpenStore, healer: Healer, scrubber: Scrubber) -> Iterator[Figure]:
    """(name, help, value, whether it only rises) of each figure."""
    drives, host = store.drives, store.host
    use = [volume for shards in drives.stores for volume in shards.usage().values()]
    space = [shards.files.free_bytes(shards.directory) for shards in drives.stores]
    sums = store.node.counters()
    yield "s4_objects", "Object versions that are not delete markers", sums.objects, False
    yield "s4_logical_bytes", "Bytes of these as clients see them", sums.bytes, False
    yield "s4_blobs", "Unique blobs", sums.blobs, False
    yield "s4_references", "References to blobs", sums.references, False
    yield "s4_blob_bytes", "Bytes of unique blobs", sums.blob_bytes, False
    yield "s4_volumes", "Volume files", len(use), False
    yield "s4_volume_bytes", "Bytes of records in volumes", sum(volume.used for volume in use), False
    yield "s4_garbage_bytes", "Bytes of dead records in volumes", sum(volume.dead for volume in use), False
    yield "s4_disk_free_bytes", "Free bytes of the fullest drive's file system", min(free for free, _ in space), False
    yield "s4_disk_bytes", "All bytes of the smallest drive's file system", min(total for _, total in space), False
    yield "s4_accepts_writes", "1 while free disk is above the reserve", float(drives.has_room()), False
    yield "s4_commands_waiting", "Commands that wait for the writer loop", host.waiting, False
    yield "s4_turns", "Turns of the writer loop, one synced batch each", host.turns, True
    yield "s4_commands", "Commands decided", host.commands, True
    yield "s4_freeing_blobs", "Dead blobs whose shards are not freed yet", store.node.outbox_waiting, False
    yield "s4_row_cache_bytes", "Bytes of the row cache", host.cache_bytes, False
    yield "s4_shard_read_bytes", "Bytes read from shards", sum(one.bytes_read for one in drives.stores), True
    yield "s4_shard_written_bytes", "Bytes written to volumes", sum(one.bytes_written for one in drives.stores), True
    yield (
        "s4_damaged_reads",
        "Reads that found a shard missing or damaged",
        sum(one.damaged for one in drives.stores),
        True,
    )
    yield "s4_drives", "Drives of this server", len(drives.all), False
    yield "s4_drives_online", "Drives that are there", len(drives.stores), False
    filling = {one for status in store.membership.current.status for one in status.joining}
    yield "s4_drives_filling", "Drives that do not hold all of their shards yet", len(filling), False
    yield (
        "s4_metadata_copies",
        "Copies of the metadata that are level",
        len(store.membership.current.status[0].in_sync),
        False,
    )
    yield "s4_heal_waiting", "Shards that must be made again", healer.waiting, False
    yield "s4_heal_failed", "Shards that cannot be made again, too many others being lost", healer.failed, False
    yield "s4_healed_shards", "Shards made again", healer.healed, True
    yield "s4_healed_bytes", "Bytes of shards made again", healer.healed_bytes, True
    yield "s4_heal_read_bytes", "Bytes of other shards read for that", healer.read_bytes, True
    yield (
        "s4_fill_blobs_left",
        "Blobs that drives which are being filled have not been checked for yet",
        healer.left,
        False,
    )
    yield "s4_scrubbed_bytes", "Bytes that scrubbing read", scrubber.bytes_read, True
    yield "s4_scrub_damaged", "Shards that scrubbing found missing or damaged", scrubber.damaged, True
    yield "s4_scrub_ended_timestamp_seconds", "When the last scrub ended; 0 for never", scrubber.ended_s, False
