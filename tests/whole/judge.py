"""What must hold when a seed has ended: nothing acknowledged is lost, nothing is left lying about, nothing has stopped.

Histories are linearizable; every acknowledged version is there, with its bytes, locks and tags; rows, references and
shards are what the independent checker wants, who shares no code with upkeep; statuses and metrics say so; no
background task has ended; nobody waits for ever.
"""

from __future__ import annotations

import gc
from dataclasses import replace

from checker import check_drives, check_parts
from s4.base.jobs import Jobs
from s4.cluster.clustermap import ClusterMap
from s4.metadata import keys
from s4.metadata.rows import decode_object
from s4.storage.records import Shard
from s4.storage.shards import ShardStore, parse_index_key
from sim.linear import is_linearizable
from whole.clients import FOREVER, History
from whole.disks import Disk
from whole.files import as_they_are
from whole.loop import Task
from whole.server import ServerWorld
from whole.workload import Workload
from whole.world import World

READS = ("get", "listed", "look")
LOOKS = 5
MOST_STEPS = 6_000  # of one search


def histories(work: Workload) -> list[str]:
    """Sentences on things whose history no order explains."""
    return [
        f"the history of {one.name} is not linearizable: {_shown(one)}"
        for one in work.histories()
        if not is_linearizable(one.calls, one.initial, one.apply, MOST_STEPS)
    ]


def _shown(history: History) -> str:
    """The calls of the shortest beginning that is not linearizable."""
    for end in sorted(one.end for one in history.calls if one.end < FOREVER):
        part = [
            one if one.end <= end else replace(one, end=FOREVER, result=None)
            for one in history.calls
            if one.begin <= end
        ]
        part = [one for one in part if not (one.kind in READS and one.end == FOREVER)]
        if not is_linearizable(part, history.initial, history.apply, MOST_STEPS):
            return "; ".join(
                f"{one.kind} {one.value or ''} {one.expected or ''} {one.begin:.3f}-{one.end:.3f} -> {one.result}"
                for one in part[-14:]
            )
    return "?"


def at_rest(world: World, *, audited: bool) -> list[str]:
    """What the independent checker says of all rows and shards, as they are in a cluster that has nothing to do.
    Orphans are left where clocks were off: how old they are is not known then (`audited`)."""
    if isinstance(world, ServerWorld):
        return _drives_at_rest(world, audited)
    current = world.map()
    rows, indexes, paths = {}, {}, {}
    for node in world.nodes:
        if node.member is None:
            return [f"{node.name} is not up"]
        paths[node.store] = node.disk.root
        shards = node.member.node.shards
        rows[node.store] = node.disk.databases[str(node.disk.root / "meta")].now()
        indexes[node.store] = _index(node.disk, shards)
    with as_they_are():
        return _left_over(current, rows) + check_parts(current, paths, rows, indexes, audited=audited)


def _left_over(current: ClusterMap, rows: dict[str, dict[bytes, bytes]]) -> list[str]:
    """Rows of partitions of which a store has no copy any more."""
    found = []
    for partition, part in enumerate(current.partitions):
        for store in set(rows) - {*part.config.in_sync, *part.config.eligible}:
            left = sum(key.startswith(partition.to_bytes(2, "big")) for key in rows[store])
            if left:
                found.append(f"{store[:8]} has {left} rows of partition {partition}, of which it has no copy")
    return sorted(found)


def _index(disk: Disk, shards: ShardStore) -> list[Shard]:
    """What the store knows of, flushed or not."""
    index = disk.databases[str(disk.root / "index")].now()
    for recent in (shards._flushing, shards._pending):
        for key, value in recent.items():
            index.pop(key, None) if value is None else index.update({key: value})
    return [parse_index_key(key) for key in index if key[:1] == b"i"]


def _drives_at_rest(world: ServerWorld, audited: bool) -> list[str]:
    """The same of a server's drives."""
    opened = world.server.opened
    if opened is None:
        return ["the server is not up"]
    disks = {
        drive.store: disk for drive, disk in zip(opened.drives.all, (one.disk for one in world.nodes), strict=True)
    }
    current = opened.membership.current
    rows = {
        store: {
            key: value
            for key, value in disks[store].databases[str(disks[store].root / "meta")].now().items()
            if key != keys.TURN_ROW
        }
        for store in current.status[0].in_sync
    }
    indexes = {
        drive.store: _index(disks[drive.store], drive.shards) for drive in opened.drives.all if drive.shards is not None
    }
    with as_they_are():
        return check_drives(
            current.spec.members,
            current.spec.data + current.spec.parity,
            {store: disk.root for store, disk in disks.items()},
            rows,
            indexes,
            audited=audited,
        )


def tasks() -> list[Task]:
    """All that there are. None has been collected: `loop.install` switches that off."""
    return [one for one in gc.get_objects() if type(one) is Task]


def background(world: World, tasks: list[Task]) -> list[str]:
    """Tasks of living processes that ended with an error which nobody looked at."""
    found = [
        f"{one.process.name}: {error}"
        for one in world.machines
        if one.process is not None
        for error in one.process.errors
    ]
    for one in tasks:
        failed = one.done() and not one.cancelled() and one._log_traceback  # type: ignore[attr-defined]
        if failed and one.process is not None and one.process.alive:
            found.append(f"a task ended for good: {one.get_coro().__qualname__}: {one.exception()!r}")
    return found


def leaders(world: World) -> list[str]:
    """Loops that must run as long as their process does."""
    found = []
    for node in world.machines:
        process = node.process
        if process is None or not process.alive:
            continue
        for kept in process.kept:
            if isinstance(kept, Jobs):
                found += [
                    f"{process.name}: the job {job.name!r} has ended"
                    for job, task in kept._tasks.items()
                    if task.done()
                ]
    return found


def figures(world: World) -> list[str]:
    """What statuses and metrics say, beside what is so. Work that begins just then shows in them: so it is looked at
    again."""
    found: list[str] = []
    for _ in range(LOOKS):
        found = _figures(world)
        if not found:
            break
        world.wait(1.0, lambda: False)
        world.wait(30.0, lambda: world.whole() == "")
    return found


def _figures(world: World) -> list[str]:
    found = world.unwell()
    objects = [
        row
        for key, value in world.rows().items()
        if key[2:3] == keys.OBJECT and not (row := decode_object(value)[0]).marker
    ]
    counted, said = (len(objects), sum(row.size for row in objects)), world.sums()
    return (
        found
        if counted == said
        else [*found, f"the metrics say {said[0]} objects of {said[1]} bytes, and there are {counted}"]
    )


def waiting(world: World, tasks: list[Task]) -> list[str]:
    """What is still held or waited for though nobody asks any more."""
    found = []
    for one in world.machines:
        gateway = one.gateway
        if gateway is None:
            continue
        if gateway.memory.used_bytes:
            found.append(f"{one.name}: {gateway.memory.used_bytes} bytes of requests are held for ever")
        if len(gateway.readers):
            found.append(f"{one.name}: {len(gateway.readers)} requests read for ever")
    for task in tasks:
        asked = task.asked and not task.done()
        if asked and task.process is not None and task.process.alive:
            found.append(
                f"{task.process.name}: a request of {task.asked:.3f} has no end: {task.get_coro().__qualname__}"
            )
    return found
