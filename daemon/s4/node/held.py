"""What a store keeps of the map, so that a map that is lost can be made again (cluster/recovery.py has the rules).

`map.seen` in the store's directory is a copy of the newest map, written within seconds of a change: a line
`s4 map 1 crc C` (CRC-32C of the rest, in hexadecimal), then the map. Losing or damaging it costs nothing while the
others have theirs: configurations, which must not be old, are beside the rows. Neither a map without partitions nor one
that is older, from a backup of the coordinator, is written over it: it knows who is gone since (M1).
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

from crc32c import crc32c

from s4.cluster import clustermap
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import MapKeeper
from s4.cluster.recovery import Held, Replica, age, pack
from s4.replica.group import Group
from s4.replica.keptrows import config_of
from s4.storage.directory import DirectoryError
from s4.storage.files import Files

log = logging.getLogger(__name__)

NAME = "map.seen"
LOOK_S = 1.0
_HEAD = re.compile(rb"s4 map 1 crc ([0-9a-f]{8})\n")


class Holding:
    """Of one store while it runs."""

    def __init__(self, files: Files, directory: Path, keeper: MapKeeper, group: Group) -> None:
        self._files, self._path, self._keeper, self._group = files, directory / NAME, keeper, group
        self._written: ClusterMap | None = None
        self._age: tuple[int, int] | None = None

    async def look(self) -> None:
        """Keep the map as it is now. Raises OSError."""
        current = self._keeper.current
        if not current.partitions or current is self._written:
            return
        if self._age is None:
            seen = read(self._path)
            self._age = age(clustermap.decode(seen)) if seen else (0, 0)
        if age(current) < self._age:
            return
        content = packed(clustermap.encode(current))
        await asyncio.get_running_loop().run_in_executor(None, self._files.replace, self._path, content)
        self._written, self._age = current, age(current)

    def told(self) -> bytes:
        """What the store tells while the map plans nothing; nothing while it does."""
        current = self._keeper.current
        if current.partitions:
            return b""
        seen = read(self._path)
        known = clustermap.decode(seen).partitions if seen else ()
        replicas = []
        for number in range(current.count):
            state, config = self._group.replica(number).state, config_of(self._group.database, number)
            last = state.log[-1].sequence if state.log else state.commit
            same = number < len(known) and known[number].config == config
            replicas.append(Replica(state.epoch, state.commit, last, state.joining, None if same else config))
        return pack(Held(seen, replicas))


def must_be_known(directory: Path, current: ClusterMap, store: str) -> None:
    """A store that was planned with is in every later map: one that is not there is of another life of the cluster, and
    would pass for a new one that may be filled (M3, R8). Raises DirectoryError."""
    if current.partitions and store not in current.stores and (directory / NAME).exists():
        raise DirectoryError(
            f"store {store} in {directory} is of this cluster, and the map does not know it: the map is an older one, from a "
            "backup (docs/recovery.md), or was begun anew without this store; to use the disk as a new store, empty it"
        )


def packed(value: bytes) -> bytes:
    return b"s4 map 1 crc %08x\n" % crc32c(value) + value


def read(path: Path) -> bytes:
    """The copy of the map, encoded; empty where there is none, or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        log.error("%s cannot be read: %s", path, error)
        return b""
    head = _HEAD.match(content)
    value = content[head.end() :] if head is not None else b""
    if head is None or int(head[1], 16) != crc32c(value):
        log.error("%s is damaged or of a newer format: others have theirs", path)
        return b""
    return value
