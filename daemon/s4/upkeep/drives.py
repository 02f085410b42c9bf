"""What people are told about the drives, and how the server is that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from s4.base.health import Health, Part, Shape, judge, storable
from s4.cluster import growing
from s4.cluster.placement import DRAINING
from s4.cluster.shardmap import ShardMap
from s4.node.base import Node
from s4.storage.timing import KINDS
from s4.upkeep.heal import Healer
from s4.upkeep.shard_repair import Fill


class DriveStatus(msgspec.Struct, frozen=True):
    """`state` is online, away, filling (also while it is compared with what it should hold), draining or drained (which
    may be removed); `filled` the share of blob rows that were confirmed on it. `alarms` are what
    somebody should look at, `milliseconds` how long a read, write or sync took on average, `errors` how many failed."""

    number: int
    directory: str
    store: str
    state: str
    reason: str = ""
    filled: float = 1.0
    filled_blobs: int = 0
    fill_blobs: int = 0
    made_bytes: int = 0
    metadata: bool = False
    free_bytes: int = 0
    total_bytes: int = 0
    used_bytes: int = 0
    damaged_reads: int = 0
    failed_reads: int = 0
    alarms: list[str] = []
    milliseconds: dict[str, float] = {}
    errors: int = 0
    positions: int = 0


def drives_status(node: Node, healer: Healer) -> list[DriveStatus]:
    """All drives in the order of their directories."""
    return list(_drives(node, healer))


def _drives(node: Node, healer: Healer) -> Iterator[DriveStatus]:
    current = node.membership.current
    joining = {store for one in current.status for store in one.joining}
    for drive in node.drives.all:
        name, where, copy = drive.number + 1, str(drive.directory), drive.store in current.status[0].in_sync
        positions = growing.holds(current, drive.store)
        if drive.shards is None:
            yield DriveStatus(name, where, drive.store, "away", drive.reason, 0.0, positions=positions)
            continue
        free, total = drive.shards.space()
        used = sum(volume.used - volume.dead for volume in drive.shards.usage().values())
        state, done, rows, made = "online", 0, 0, 0
        if drive.store in joining or drive.shards.in_doubt:
            fill = healer.fills.get(drive.store, Fill())
            state, done, rows, made = "filling", fill.done, fill.total, fill.made_bytes
        if current.spec.stores[drive.store] == DRAINING:
            state = "drained" if growing.may_leave(current, drive.store) else "draining"
        elif current.spec.later and not positions:
            state = "filling"
        watch, times = drive.shards.watch, drive.shards.times
        alarms = [one for one in (watch.full(), *watch.alarms()) if one]
        took = {kind: round(1000 * times.seconds[kind] / max(1, times.count[kind]), 3) for kind in KINDS}
        yield DriveStatus(
            name,
            where,
            drive.store,
            state,
            "; ".join(alarms),
            _share(state, done, rows),
            done,
            rows,
            made,
            copy,
            free,
            total,
            used,
            drive.shards.damaged,
            drive.shards.failing.count,
            alarms,
            took,
            sum(times.errors.values()),
            positions,
        )


def _share(state: str, done: int, rows: int) -> float:
    """How much of a drive is filled. `rows` were counted when the filling began; it is whole only when its state says
    so."""
    return 1.0 if state != "filling" else min(done / rows, 0.999) if rows else 0.0


def server_health(node: Node, healer: Healer, more: Sequence[str] = ()) -> Health:
    """How a server is that keeps everything by itself. `more` are alarms of its process."""
    current, spec = node.membership.current, node.membership.current.spec
    names = {drive.number: f"drive {drive.number + 1}, {drive.directory}," for drive in node.drives.all}
    there = {drive.store for drive, _ in node.drives.online()}
    crowded = 0 if node.drives.has_room() else len(node.drives.all)  # one that is full refuses for all
    parts = (
        Part(current.live(partition, there), sum(store in there for store in one.in_sync), full=crowded)
        for partition, one in enumerate(current.status)
    )
    away = [f"{names[one.number]} is away: {one.reason}" for one in node.drives.all if one.shards is None]
    filling = refilled(current)
    away += [f"{names[one.number]} is being filled" for one in node.drives.all if one.store in filling]
    watches = [(names[drive.number], shards.watch) for drive, shards in node.drives.online()]
    full = [f"{name} {text}" for name, watch in watches if (text := watch.full())]
    alarms = [*more, *(f"{name} {text}" for name, watch in watches for text in watch.alarms())]
    if healer.repair.failed:
        alarms.append(f"{healer.repair.failed} shards cannot be made again: too many others are lost")
    return judge(
        Shape(spec.data, spec.parity, node.membership.copies_needed(strict=False), spec.replicas),
        parts,
        away=away,
        heals=healer.waiting,
        moves=growing.moves(current),
        full=full,
        alarms=alarms,
    )


def refilled(current: ShardMap) -> set[str]:
    """Stores that are filled with what no other has for them: drives that are new in their place, or were away."""
    both = ((one, wanted) for one, wanted in zip(current.status, current.spec.members, strict=True))
    return {
        want
        for one, wanted in both
        for have, want in zip(one.members, wanted, strict=True)
        if not have and want in one.joining
    }


def storable_bytes(node: Node) -> tuple[int, int]:
    """What clients can still store, before the first drive is full: of content in shards, and of what lives in rows."""
    members, copies = node.drives.members, [one.in_sync for one in node.membership.current.status]
    shards_in, rows_in = [], []
    for drive, shards in node.drives.online():
        free, total = shards.space()
        if total:
            free -= shards.settings.reserve_bytes
            shards_in.append((free, sum(drive.number in kept for kept in members)))
            rows_in.append((free, sum(drive.store in kept for kept in copies)))
    return storable(node.membership.geometry[0], len(members), shards_in), storable(1, len(copies), rows_in)
