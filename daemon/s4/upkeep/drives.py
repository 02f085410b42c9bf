"""What people are told about the drives."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from s4.node import Node
from s4.upkeep.heal import Healer


class DriveStatus(msgspec.Struct, frozen=True):
    """`state` is online, away or filling; `filled` the share of blob rows that were confirmed on it."""

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


def drives_status(node: Node, healer: Healer) -> list[DriveStatus]:
    """All drives in the order of their directories."""
    return list(_drives(node, healer))


def _drives(node: Node, healer: Healer) -> Iterator[DriveStatus]:
    current = node.membership.current
    joining = {store for one in current.status for store in one.joining}
    for drive in node.drives.all:
        name, where, copy = drive.number + 1, str(drive.directory), drive.store in current.status[0].in_sync
        if drive.shards is None:
            yield DriveStatus(name, where, drive.store, "away", drive.reason, 0.0)
            continue
        free, total = drive.shards.space()
        used = sum(volume.used - volume.dead for volume in drive.shards.usage().values())
        state, done, rows, made = "online", 0, 0, 0
        if drive.store in joining:
            fill = healer.fills[drive.store]
            state, done, rows, made = "filling", fill.done, fill.total, fill.made_bytes
        yield DriveStatus(
            name, where, drive.store, state, "", _share(state, done, rows), done, rows, made,
            copy, free, total, used, drive.shards.damaged, drive.shards.failing.count,
        )  # fmt: skip


def _share(state: str, done: int, rows: int) -> float:
    """How much of a drive is filled. `rows` were counted when the filling began; it is whole only when its state says so."""
    return 1.0 if state == "online" else min(done / rows, 0.999) if rows else 0.0
