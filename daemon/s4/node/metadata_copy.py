"""A cluster's member and its own copy of the metadata: found damaged, it leaves the sets that count on it, is emptied,
and joins them again by snapshots (R7, R8).

The order, and what a crash between any two steps leaves:
1. A read, a scrub, a failed write or a failed open finds damage. A file beside the database says so, durably. Whatever
   ends the process after that, the next start goes on from here.
2. While this copy is needed (`needed`) it stays as it is, and the store's status says so: rows that can be read are
   better than none, and entries are durable here as well as elsewhere. But it lets another lead that is in sync: who
   leads fills those that join, and this one cannot read all that they need. Each is asked once, for it may be damaged
   as well, and hand over in its turn.
3. Others lead, and go on without this store (`Group.leave`); then the process ends. It does not open the database again
   before the newest map counts on it nowhere: silent, it is removed by who leads, or by who promotes itself (R6).
4. The database is removed, a new one made, and each partition in it marked LOST in one synced batch; only then the
   mark beside it goes. Until it has gone, all of this step is done again. A change of the map that was decided before
   and comes late may still name this store: what is marked LOST neither leads nor counts as whole, whatever the map
   says (M4).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.keeper import MapKeeper
from s4.cluster.messages import LOST, State
from s4.replica.group import Group
from s4.replica.keptrows import checked, state_row
from s4.storage.leveldb import DAMAGED, AnyDatabaseError, Database, DatabaseError, is_damage, unmark, verify

log = logging.getLogger(__name__)

LOOK_S = 1.0
PATIENCE_S = 30.0  # for others to go on without a copy that could still be used
LEAVE_S = 3.0

Open = Callable[[Path], Database]


def needed(current: ClusterMap, store: str) -> list[int]:
    """Partitions that have too few copies of their metadata without this store (R2, R9)."""
    return [
        number
        for number, one in enumerate(current.partitions)
        if store in one.config.eligible
        or (store in one.config.in_sync and len(one.config.in_sync) - 1 < max(1, current.minimum))
    ]


def counted(current: ClusterMap, store: str) -> bool:
    """Whether any partition counts on what this store has. Any may where the map has none: it is to be made again of
    what stores have (cluster/recovery.py)."""
    return not current.partitions or any(
        store in (*one.config.in_sync, *one.config.eligible) for one in current.partitions
    )


async def open_copy(path: Path, store: str, keeper: MapKeeper, opened: Open) -> tuple[Database, str]:
    """The database, emptied first where it is damaged and nobody counts on it; and what is wrong with it, or
    nothing."""
    marker = path.with_name(path.name + DAMAGED)
    if not marker.exists():
        try:
            return checked(opened(path), keeper.current.count), ""
        except DatabaseError as error:
            if not is_damage(error.__cause__ or error):
                raise
            log.error("%s", error)
            with contextlib.suppress(OSError):  # what follows does not depend on it, but after a crash
                marker.touch()
    left = PATIENCE_S
    while await _is_counted(keeper, store):
        if needed(keeper.current, store) or left <= 0:
            try:
                whole = checked(opened(path), keeper.current.count)
                return whole, "its copy of the metadata is damaged, and cannot be done without"
            except DatabaseError as error:
                log.error("waiting for copies of the metadata elsewhere: %s", error)
        await asyncio.sleep(LOOK_S)
        left -= LOOK_S
    return _made_again(path, keeper.current, opened), ""


async def _is_counted(keeper: MapKeeper, store: str) -> bool:
    try:
        return counted(await keeper.refresh(), store)
    except CoordinatorError as error:
        log.warning("the map cannot be read: %s", error)
        return True


def _made_again(path: Path, current: ClusterMap, opened: Open) -> Database:
    if path.exists():
        shutil.rmtree(path)
    database = opened(path)
    lost = [state_row(number, State(one.config.epoch, 0, [], LOST)) for number, one in enumerate(current.partitions)]
    database.write(lost)
    unmark(path)
    log.warning("the metadata in %s were damaged: they are filled again by the other copies", path)
    return database


class OwnCopy:
    """One member's copy while it runs. `fatal` ends the process, which starts again."""

    def __init__(
        self, store: str, keeper: MapKeeper, group: Group, fatal: Callable[[BaseException], None], alarm: str = ""
    ) -> None:
        self._store, self._keeper, self._group, self._fatal = store, keeper, group, fatal
        self.alarm = alarm
        self._asked: dict[int, dict[str, int]] = {}  # by partition: whom we had lead, and since which epoch we had led
        group.database.watch(self._found)

    def _found(self, error: Exception) -> None:
        if not self.alarm:
            log.error("the copy of the metadata is damaged: %s", error)
            self.alarm = "its copy of the metadata is damaged"

    async def scrub(self, bytes_per_s: float = 0.0) -> None:
        """Read every row, also those that wait to be committed; 0 is no bound. Damage is noted, and ends it. Raises
        DatabaseError where this process could not read."""
        try:
            await verify(self._group.database, b"\xff" * 8, bytes_per_s)
        except AnyDatabaseError as error:
            if not is_damage(error):
                raise
            self._found(error)

    async def renew(self) -> None:
        """Where the copy is damaged and the others can do without it: let them, and end, to be made again at the
        start. Else have others lead."""
        if not self.alarm:
            return
        current = await self._keeper.refresh()
        if only := needed(current, self._store):
            self._hand_over(current, only)
            return
        await self._group.leave(LEAVE_S)
        self._fatal(DatabaseError("the copy of the metadata is damaged, and is made again"))

    def _hand_over(self, current: ClusterMap, only: list[int]) -> None:
        stuck = []
        for number in only:
            core, config = self._group.replica(number), current.partitions[number].config
            stayed = core.leading and core.swap is None  # whoever changed the map meanwhile: then nobody led for us
            asked = {
                store: began
                for store, began in self._asked.get(number, {}).items()
                if store in config.in_sync and not (stayed and began == core.began)
            }
            if heir := core.hand_over(self._group.clock(), asked):
                log.warning("partition %d: store %s is to lead, for the copy here is damaged", number, heir[:8])
                asked[heir] = core.began
            elif stayed:
                stuck.append(number)
            self._asked[number] = asked
        self.alarm = "its copy of the metadata is damaged, and cannot be done without"
        if stuck:
            some = ", ".join(str(number) for number in stuck[:5]) + (" and others" if len(stuck) > 5 else "")
            self.alarm += f"; no other copy of partition {some} can lead: what can be read of it here is served"
