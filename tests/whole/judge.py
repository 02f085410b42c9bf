"""What must hold when a seed has ended: nothing acknowledged is lost, nothing is left lying about, nothing has stopped.

Histories of keys are linearizable; every acknowledged version is there, with its bytes; rows, references and shards are
what the independent checker wants, who shares no code with upkeep; no background task has ended; nobody waits for ever.
"""

from __future__ import annotations

import gc

from checker import check_drives, check_parts
from s4.jobs import Jobs
from s4.metadata import keys
from s4.storage.records import Shard
from s4.storage.shards import ShardStore, parse_index_key
from sim.linear import is_linearizable
from whole.files import Disk, as_they_are
from whole.loop import Task
from whole.server import ServerWorld
from whole.workload import FOREVER, Call, Workload
from whole.world import World

MOST_STEPS = 6_000  # of one search


def histories(work: Workload) -> list[str]:
    """Sentences on keys whose history no order explains."""
    found = []
    for (bucket, key), known in sorted(work.history.items()):
        calls = [one for one in known.calls if not (one.kind == "get" and one.end == FOREVER)]
        if bucket == "documents":
            found += _not_regular(calls)
            continue

        def apply(call: Call, value: str | None) -> tuple[bool, str | None]:
            return _apply(work, call, value)

        if not any(one.kind in ("create", "swap") for one in calls):  # nothing but reads tells of a write whose outcome is unknown
            seen = {one.result for one in calls if one.kind == "get"}
            calls = [one for one in calls if one.end < FOREVER or one.kind == "delete" or one.value in seen]
        if not is_linearizable(calls, None, apply, MOST_STEPS):
            found.append(f"the history of {bucket}/{key.decode()} is not linearizable: {_shown(work, calls)}")
    return found


def _not_regular(calls: list[Call]) -> list[str]:
    """A setting is obeyed once the call that made it has returned (L2): meanwhile gateways may differ, so a read sees any
    write that no other has followed which was over before the read began."""
    writes = [one for one in calls if one.kind == "put"]
    found = []
    for read in (one for one in calls if one.kind == "get"):
        over = [one for one in writes if one.end < read.begin]
        may = {one.value for one in writes if one.begin < read.end and not any(other.begin > one.end for other in over)}
        if not over:
            may.add(None)
        if read.result not in may:
            found.append(f"a setting was {read.result} at {read.begin:.3f}-{read.end:.3f}, which had been replaced: {sorted(map(str, may))}")
    return found


def _shown(work: Workload, calls: list[Call]) -> str:
    """The calls of the shortest beginning that is not linearizable."""
    ends = sorted(one.end for one in calls if one.end < FOREVER)
    for end in ends:
        part = [one if one.end <= end else Call(one.kind, one.value, one.begin, expected=one.expected) for one in calls if one.begin <= end]
        part = [one for one in part if not (one.kind == "get" and one.end == FOREVER)]
        if not is_linearizable(part, None, lambda call, value: _apply(work, call, value), MOST_STEPS):
            return "; ".join(f"{one.kind} {one.value or ''}{one.expected[:6]} {one.begin:.3f}-{one.end:.3f} -> {one.result}" for one in part[-14:])
    return "?"


def _apply(work: Workload, call: Call, value: str | None) -> tuple[bool, str | None]:
    if call.kind == "get":
        return call.result == value, value
    if call.kind in ("put", "delete"):
        return True, call.value
    if call.kind == "create":
        fits = value is None
    else:
        etag = work.etags.get(value) if value is not None else ""
        fits = etag is None or etag == call.expected
    if call.end == FOREVER:
        return True, call.value if fits else value
    if call.kind == "swap" and value is not None and work.etags.get(value) is None:
        return True, call.value if call.result else value
    return fits == call.result, call.value if call.result else value


def at_rest(world: World, *, audited: bool) -> list[str]:
    """What the independent checker says of all rows and shards, as they are in a cluster that has nothing to do. Orphans are
    left where clocks were off: how old they are is not known then (`audited`)."""
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
        return check_parts(current, paths, rows, indexes, audited=audited)


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
    disks = {drive.store: disk for drive, disk in zip(opened.drives.all, (one.disk for one in world.nodes), strict=True)}
    current = opened.membership.current
    rows = {store: {key: value for key, value in disks[store].databases[str(disks[store].root / "meta")].now().items() if key != keys.TURN_ROW}
            for store in current.status[0].in_sync}  # fmt: skip
    indexes = {drive.store: _index(disks[drive.store], drive.shards) for drive in opened.drives.all if drive.shards is not None}
    with as_they_are():
        return check_drives(current.spec.members, current.spec.data + current.spec.parity, {store: disk.root for store, disk in disks.items()}, rows, indexes, audited=audited)


def background(world: World) -> list[str]:
    """Tasks of living processes that ended with an error which nobody looked at."""
    found = [f"{one.process.name}: {error}" for one in world.machines if one.process is not None for error in one.process.errors]
    for one in gc.get_objects():
        failed = isinstance(one, Task) and one.done() and not one.cancelled() and one._log_traceback
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
                found += [f"{process.name}: the job {job.name!r} has ended" for job, task in kept._tasks.items() if task.done()]
    return found
