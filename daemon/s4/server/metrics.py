"""What the metrics endpoint says of the stores, in one list. Of requests: http/metrics.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from s4.base.clock import boot_clock
from s4.base.health import Health
from s4.base.metrics import Metric, counter, gauge
from s4.cluster import growing
from s4.cluster.placement import DRAINING
from s4.metadata import keys
from s4.node.local import OpenStore
from s4.node.member import Member
from s4.peer.router import Router
from s4.replica.host import Host
from s4.replica.replicated import ReplicatedHost
from s4.storage.shards import ShardStore
from s4.storage.timing import KINDS
from s4.upkeep.drives import server_health, storable_bytes
from s4.upkeep.heal import Healer
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore
from s4.upkeep.scrub import Scrubber
from s4.upkeep.shard_repair import ShardRepair

COUNTED = 500  # rows of a partition


class Worker(Protocol):
    """Upkeep that says itself what it did."""

    def metrics(self) -> Iterable[Metric]: ...


def store_metrics(
    store: OpenStore, healer: Healer, scrubber: Scrubber, workers: Iterable[Worker], alarms: Sequence[str] = ()
) -> list[Metric]:
    """Of a server with all of its drives."""
    drives, host = store.drives, store.host
    sums = store.node.counters()
    current = store.membership.current
    filling = {one for status in current.status for one in status.joining}
    draining = [one for one in current.order if current.spec.stores[one] == DRAINING]
    return [
        *health_metrics(server_health(store.node, healer, alarms), storable_bytes(store.node)),
        gauge("s4_objects", "Object versions that are not delete markers", sums.objects),
        gauge("s4_logical_bytes", "Bytes of these as clients see them", sums.bytes),
        gauge("s4_blobs", "Unique blobs", sums.blobs),
        gauge("s4_references", "References to blobs", sums.references),
        gauge("s4_blob_bytes", "Bytes of unique blobs", sums.blob_bytes),
        gauge("s4_volumes", "Volume files", sum(len(shards.usage()) for shards in drives.stores)),
        *shards_metrics(drives.stores),
        *host_metrics(host, host.turns),
        gauge("s4_freeing_blobs", "Dead blobs whose shards are not freed yet", store.node.outbox_waiting),
        *(one for drive in drives.all for one in drive_metrics(drive.shards, str(drive.directory), of_several=True)),
        gauge("s4_drives", "Drives of this server", len(drives.all)),
        gauge("s4_drives_online", "Drives that are there", len(drives.stores)),
        gauge("s4_drives_filling", "Drives that do not hold all of their shards yet", len(filling)),
        gauge("s4_drives_draining", "Drives that are to hold nothing, and may be removed then", len(draining)),
        gauge("s4_positions_moving", "Positions on their way from one drive to another", growing.moves(current)),
        gauge("s4_metadata_copies", "Copies of the metadata that are level", len(current.status[0].in_sync)),
        gauge("s4_heal_waiting", f"Shards that must be made again, counted up to {COUNTED}", healer.waiting),
        *repair_metrics(healer.repair),
        gauge(
            "s4_fill_blobs_left",
            "Blobs that drives which are being filled have not been checked for yet",
            healer.left,
        ),
        *scrub_metrics(scrubber.bytes_read, scrubber.damaged, scrubber.ended_s),
        *(one for worker in workers for one in worker.metrics()),
    ]


def shards_metrics(stores: Sequence[ShardStore]) -> list[Metric]:
    """Of the shards of all drives of a process."""
    use = [volume for shards in stores for volume in shards.usage().values()]
    space, has_room = [shards.space() for shards in stores], all(shards.has_room() for shards in stores)
    return [
        gauge("s4_volume_bytes", "Bytes of records in volumes", sum(volume.used for volume in use)),
        gauge("s4_garbage_bytes", "Bytes of dead records in volumes", sum(volume.dead for volume in use)),
        gauge("s4_disk_free_bytes", "Free bytes of the fullest drive's file system", min(free for free, _ in space)),
        gauge("s4_disk_bytes", "All bytes of the smallest drive's file system", min(total for _, total in space)),
        gauge("s4_accepts_writes", "1 while free disk is above the reserve", float(has_room)),
        counter("s4_shard_read_bytes", "Bytes read from shards", sum(one.bytes_read for one in stores)),
        counter("s4_shard_written_bytes", "Bytes written to volumes", sum(one.bytes_written for one in stores)),
        counter("s4_damaged_reads", "Reads that found a shard missing or damaged", sum(one.damaged for one in stores)),
        counter("s4_failed_reads", "Reads that a disk could not do", sum(one.failing.count for one in stores)),
    ]


def host_metrics(host: Host | ReplicatedHost, turns: int) -> list[Metric]:
    return [
        gauge("s4_commands_waiting", "Commands that wait for the writer loop", host.waiting),
        counter("s4_turns", "Turns of the writer loop, one synced batch each", turns),
        counter("s4_commands", "Commands decided", host.commands),
        gauge("s4_row_cache_bytes", "Bytes of the row cache", host.cache_bytes),
    ]


def health_metrics(found: Health, storable: tuple[int, int]) -> list[Metric]:
    """What says at a glance whether somebody must look."""
    return [
        gauge("s4_health", "0 is ok, 1 degraded, 2 at risk, 3 down; `s4 admin status` says why", found.number),
        gauge("s4_alarms", "Reasons why it is not ok", len(found.reasons)),
        gauge("s4_storable_bytes", "Bytes that clients can still store", storable[0]),
        gauge("s4_storable_rows_bytes", "The same of objects so small that they live in rows", storable[1]),
    ]


def certificate_metrics(name: str, holds: tuple[float, float] | None) -> list[Metric]:
    """When the certificate that is in force for `name` began and ends, in seconds since 1970; of none, nothing."""
    if not holds or not holds[1]:
        return []
    begins, ends = holds
    return [
        gauge("s4_certificate_begins_timestamp_seconds", "From when a certificate holds", begins, certificate=name),
        gauge("s4_certificate_ends_timestamp_seconds", "Until when a certificate holds", ends, certificate=name),
    ]


def drive_metrics(shards: ShardStore | None, name: str, *, of_several: bool = False) -> Iterator[Metric]:
    """How a drive does, by its directory."""
    if of_several:
        yield gauge("s4_drive_up", "1 while a drive is there", float(shards is not None), drive=name)
    if shards is None:
        return
    times = shards.times
    for kind in KINDS:
        yield counter(
            f"s4_drive_{kind}_seconds", f"Seconds that {kind}s of a drive took", times.seconds[kind], drive=name
        )
        yield counter(f"s4_drive_{kind}s", f"How many {kind}s of a drive there were", times.count[kind], drive=name)
    errors, slow = sum(times.errors.values()) + shards.failing.count, float(bool(times.slow()))
    alarms = [one for one in (shards.watch.full(), *shards.watch.alarms()) if one]
    yield from (
        counter("s4_drive_errors", "Operations that a drive failed", errors, drive=name),
        gauge("s4_drive_slow", "1 while a drive takes long for what it is asked", slow, drive=name),
        gauge("s4_drive_failing", "1 while a drive fails to read many places", float(shards.failing.many), drive=name),
        gauge(
            "s4_drive_alarms",
            "What is to be said of a drive: slow, full, failing, emptied",
            len(alarms),
            drive=name,
        ),
        gauge("s4_drive_free_bytes", "Free bytes of a drive's file system", shards.space()[0], drive=name),
    )


def repair_metrics(repair: ShardRepair) -> list[Metric]:
    return [
        gauge("s4_heal_failed", "Shards that could not be made again when last tried", repair.failed),
        counter("s4_healed_shards", "Shards made again", repair.made_shards),
        counter("s4_healed_bytes", "Bytes of shards made again", repair.made_bytes),
        counter("s4_heal_read_bytes", "Bytes of other shards read for that", repair.read_bytes),
    ]


def scrub_metrics(read_bytes: int, damaged: int, ended_s: float) -> list[Metric]:
    return [
        counter("s4_scrubbed_bytes", "Bytes of shards that scrubbing read", read_bytes),
        counter("s4_scrub_damaged", "Shards that scrubbing found missing or damaged", damaged),
        gauge("s4_scrub_ended_timestamp_seconds", "When the last scrub ended; 0 for never", ended_s),
    ]


def router_metrics(router: Router) -> list[Metric]:
    """What every process of a cluster knows."""
    current = router.map
    alive = {store for store, one in current.stores.items() if one.state in ("serving", "draining")}
    moving = sum(
        have in alive and have != want
        for one in current.partitions
        for have, want in zip(one.config.members, one.wanted, strict=True)
    )
    return [
        gauge("s4_map_revision", "Revision of the map that this process knows", router.keeper.revision),
        gauge("s4_stores", "Stores that serve or are drained", len(alive)),
        gauge("s4_stores_up", "Those of them that this process reaches", sum(map(router.is_up, alive))),
        gauge("s4_positions_moving", "Positions on their way from one store to another", moving),
        gauge("s4_frozen", "1 while planned moves are stopped", float(current.freeze)),
    ]


def member_metrics(member: Member, mender: Mender, own: OwnStore, workers: Iterable[Worker]) -> list[Metric]:
    """What a node knows of its store and of the partitions that it leads."""
    node, shards = member.node, member.node.shards
    apart = max(node.clocks.apart(boot_clock(), time.time()).values(), default=0.0)
    led = set(node.led())
    return [
        *shards_metrics([shards]),
        *host_metrics(node.host, node.host.group.turns),
        *drive_metrics(shards, str(shards.directory)),
        *repair_metrics(mender.repair),
        gauge("s4_fills", "Positions that are being filled", len(mender.fills)),
        *scrub_metrics(own.read_bytes, own.damaged, own.scrubbed.ended_s),
        *(one for worker in workers for one in worker.metrics()),
        gauge("s4_clock_apart_seconds", "By how much at least another store's clock differs", apart),
        *(one for partition in range(node.partitions) for one in partition_metrics(node.host, partition, led)),
    ]


def partition_metrics(host: ReplicatedHost, partition: int, led: set[int]) -> Iterator[Metric]:
    """Of a replica here, and of what its primary alone knows."""
    replica, name = host.group.replica(partition), str(partition)
    serves = float(partition in led)
    yield gauge("s4_partition_epoch", "Epoch of a replica", replica.state.epoch, partition=name)
    yield gauge("s4_partition_serves", "1 where this node is the primary, under a lease", serves, partition=name)
    yield gauge("s4_partition_alarm", "1 where a replica refuses to go on", float(bool(replica.alarm)), partition=name)
    if partition in led and replica.document is not None:
        in_sync = len(replica.document.config.in_sync)
        heals, outbox = (_rows(host, partition, table) for table in (keys.HEAL, keys.OUTBOX))
        yield from (
            gauge("s4_partition_in_sync", "Replicas in sync", in_sync, partition=name),
            gauge("s4_partition_lag", "Entries that the slowest replica in sync lacks", replica.lag, partition=name),
            gauge(
                "s4_partition_heal",
                f"Shards that must be made again, counted up to {COUNTED}",
                heals,
                partition=name,
            ),
            gauge("s4_partition_outbox", f"Outbox rows, counted up to {COUNTED}", outbox, partition=name),
        )


def _rows(host: ReplicatedHost, partition: int, table: bytes) -> int:
    """Counted up to COUNTED: whoever asks for metrics waits here, and everybody else with them."""
    return sum(1 for _ in islice(host.scan(keys.table(partition, table)), COUNTED))
