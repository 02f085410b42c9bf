"""What the metrics endpoint says of the stores, in one list. Of requests: http/metrics.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from s4.base.clock import boot_clock
from s4.base.health import Health
from s4.cluster import growing
from s4.cluster.placement import DRAINING
from s4.metadata import keys
from s4.node.local import OpenStore
from s4.node.member import Member
from s4.peer.router import Router
from s4.replica.replicated import ReplicatedHost
from s4.storage.drives import Drives
from s4.storage.shards import ShardStore
from s4.storage.timing import KINDS
from s4.upkeep.drives import server_health, storable_bytes
from s4.upkeep.heal import Healer
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore
from s4.upkeep.scrub import Scrubber
from s4.upkeep.shard_repair import ShardRepair

COUNTED = 500  # rows of a partition
Figure = tuple[str, str, float, bool, str]
"""(name, help, value, whether it only rises, partition, bucket or receiver or empty)."""


class Worker(Protocol):
    """Upkeep that says itself what it did."""

    def figures(self) -> Iterator[Figure]: ...


def store_figures(
    store: OpenStore, healer: Healer, scrubber: Scrubber, workers: Iterable[Worker], alarms: Sequence[str] = ()
) -> Iterator[tuple[str, str, float, bool] | Figure]:
    """(name, help, value, whether it only rises) of each figure."""
    drives, host = store.drives, store.host
    use = [volume for shards in drives.stores for volume in shards.usage().values()]
    space = [shards.space() for shards in drives.stores]
    sums = store.node.counters()
    yield from health_figures(server_health(store.node, healer, alarms), storable_bytes(store.node))
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
    failed = sum(one.failing.count for one in drives.stores)
    yield "s4_failed_reads", "Reads that a disk could not do", failed, True
    yield from drives_figures(drives)
    current = store.membership.current
    filling = {one for status in current.status for one in status.joining}
    yield "s4_drives_filling", "Drives that do not hold all of their shards yet", len(filling), False
    draining = [one for one in current.order if current.spec.stores[one] == DRAINING]
    yield "s4_drives_draining", "Drives that are to hold nothing, and may be removed then", len(draining), False
    yield "s4_positions_moving", "Positions on their way from one drive to another", growing.moves(current), False
    yield (
        "s4_metadata_copies",
        "Copies of the metadata that are level",
        len(current.status[0].in_sync),
        False,
    )
    yield "s4_heal_waiting", f"Shards that must be made again, counted up to {COUNTED}", healer.waiting, False
    yield from repair_figures(healer.repair)
    yield (
        "s4_fill_blobs_left",
        "Blobs that drives which are being filled have not been checked for yet",
        healer.left,
        False,
    )
    yield "s4_scrubbed_bytes", "Bytes of shards that scrubbing read", scrubber.bytes_read, True
    yield "s4_scrub_damaged", "Shards that scrubbing found missing or damaged", scrubber.damaged, True
    for worker in workers:
        yield from worker.figures()
    yield "s4_scrub_ended_timestamp_seconds", "When the last scrub ended; 0 for never", scrubber.ended_s, False


def health_figures(found: Health, storable: int) -> Iterator[Figure]:
    """What says at a glance whether somebody must look."""
    yield "s4_health", "0 is ok, 1 degraded, 2 at risk, 3 down; `s4 admin status` says why", found.number, False, ""
    yield "s4_alarms", "Reasons why it is not ok", len(found.reasons), False, ""
    yield "s4_storable_bytes", "Bytes that clients can still store", storable, False, ""


def drive_figures(shards: ShardStore, name: str) -> Iterator[Figure]:
    """How a drive does, by its directory."""
    times = shards.times
    for kind in KINDS:
        yield f"s4_drive_{kind}_seconds", f"Seconds that {kind}s of a drive took", times.seconds[kind], True, name
        yield f"s4_drive_{kind}s", f"How many {kind}s of a drive there were", times.count[kind], True, name
    errors = sum(times.errors.values()) + shards.failing.count
    yield "s4_drive_errors", "Operations that a drive failed", errors, True, name
    yield "s4_drive_slow", "1 while a drive takes long for what it is asked", float(bool(times.slow())), False, name
    yield "s4_drive_failing", "1 while a drive fails to read many places", float(shards.failing.many), False, name
    yield (
        "s4_drive_alarms",
        "What is to be said of a drive: slow, full, failing, emptied",
        len([one for one in (shards.watch.full(), *shards.watch.alarms()) if one]),
        False,
        name,
    )
    yield "s4_drive_free_bytes", "Free bytes of a drive's file system", shards.space()[0], False, name


def drives_figures(drives: Drives) -> Iterator[Figure]:
    """Of a server's drives: how many there are, and how each does."""
    for drive in drives.all:
        yield "s4_drive_up", "1 while a drive is there", float(drive.shards is not None), False, str(drive.directory)
        if drive.shards is not None:
            yield from drive_figures(drive.shards, str(drive.directory))
    yield "s4_drives", "Drives of this server", len(drives.all), False, ""
    yield "s4_drives_online", "Drives that are there", len(drives.stores), False, ""


def repair_figures(repair: ShardRepair) -> Iterator[Figure]:
    yield "s4_heal_failed", "Shards that could not be made again when last tried", repair.failed, False, ""
    yield "s4_healed_shards", "Shards made again", repair.made_shards, True, ""
    yield "s4_healed_bytes", "Bytes of shards made again", repair.made_bytes, True, ""
    yield "s4_heal_read_bytes", "Bytes of other shards read for that", repair.read_bytes, True, ""


def router_figures(router: Router) -> Iterator[Figure]:
    """What every process of a cluster knows."""
    current = router.map
    alive = [store for store, one in current.stores.items() if one.state in ("serving", "draining")]
    yield "s4_map_revision", "Revision of the map that this process knows", router.keeper.revision, False, ""
    yield "s4_stores", "Stores that serve or are drained", len(alive), False, ""
    yield "s4_stores_up", "Those of them that this process reaches", sum(map(router.is_up, alive)), False, ""
    yield "s4_frozen", "1 while planned moves are stopped", float(current.freeze), False, ""


def member_figures(member: Member, mender: Mender, own: OwnStore, workers: Iterable[Worker]) -> Iterator[Figure]:
    """What a node knows of its store and of the partitions that it leads."""
    node, group, shards = member.node, member.node.host.group, member.node.shards
    free, total = shards.space()
    use = shards.usage().values()
    yield "s4_volume_bytes", "Bytes of records in volumes", sum(one.used for one in use), False, ""
    yield "s4_garbage_bytes", "Bytes of dead records in volumes", sum(one.dead for one in use), False, ""
    yield "s4_disk_free_bytes", "Free bytes of the disk", free, False, ""
    yield "s4_disk_bytes", "All bytes of the disk", total, False, ""
    yield "s4_accepts_writes", "1 while free disk is above the reserve", float(shards.has_room()), False, ""
    yield "s4_commands_waiting", "Commands that wait for the writer loop", node.host.waiting, False, ""
    yield "s4_commands", "Commands decided", node.host.commands, True, ""
    yield "s4_turns", "Turns of the writer loop, one synced batch each", group.turns, True, ""
    yield "s4_row_cache_bytes", "Bytes of the row cache", node.host.cache_bytes, False, ""
    yield "s4_shard_read_bytes", "Bytes read from shards", shards.bytes_read, True, ""
    yield "s4_shard_written_bytes", "Bytes written to volumes", shards.bytes_written, True, ""
    yield "s4_damaged_reads", "Reads that found a shard missing or damaged", shards.damaged, True, ""
    yield "s4_failed_reads", "Reads that the disk could not do", shards.failing.count, True, ""
    yield from drive_figures(shards, str(shards.directory))
    yield from repair_figures(mender.repair)
    yield "s4_fills", "Positions that are being filled", len(mender.fills), False, ""
    yield "s4_scrubbed_bytes", "Bytes of shards that scrubbing read", own.read_bytes, True, ""
    yield "s4_scrub_damaged", "Shards that scrubbing found missing or damaged", own.damaged, True, ""
    ended_s = own.scrubbed.ended_s
    yield "s4_scrub_ended_timestamp_seconds", "When the last scrub ended; 0 for never", ended_s, False, ""
    for worker in workers:
        yield from worker.figures()
    apart = max(node.clocks.apart(boot_clock(), time.time()).values(), default=0.0)
    yield "s4_clock_apart_seconds", "By how much at least another store's clock differs", apart, False, ""
    led = set(node.led())
    for partition in range(node.partitions):
        replica, name = group.replica(partition), str(partition)
        yield "s4_partition_epoch", "Epoch of a replica", replica.state.epoch, False, name
        yield "s4_partition_serves", "1 where this node is the primary, under a lease", partition in led, False, name
        yield "s4_partition_alarm", "1 where a replica refuses to go on", bool(replica.alarm), False, name
        if partition in led and replica.document is not None:
            in_sync = len(replica.document.config.in_sync)
            yield "s4_partition_in_sync", "Replicas in sync", in_sync, False, name
            yield "s4_partition_lag", "Entries that the slowest replica in sync lacks", replica.lag, False, name
            yield (
                "s4_partition_heal",
                f"Shards that must be made again, counted up to {COUNTED}",
                _rows(node.host, partition, keys.HEAL),
                False,
                name,
            )
            yield (
                "s4_partition_outbox",
                f"Outbox rows, counted up to {COUNTED}",
                _rows(node.host, partition, keys.OUTBOX),
                False,
                name,
            )


def _rows(host: ReplicatedHost, partition: int, table: bytes) -> int:
    """Counted up to COUNTED: whoever asks for metrics waits here, and everybody else with them."""
    return sum(1 for _ in islice(host.scan(keys.table(partition, table)), COUNTED))
