"""A drive that cannot read many places is put aside, where the others can do without it.

A few bad sectors are healed, elsewhere on the same drive. Many of them in a short time are a drive that goes: each read
of it costs its time-out, and what is healed onto it is as good as lost. Which drives are there is decided at start, so
the process ends and starts again without it (server/restart.py), as after a failed write.
"""

from __future__ import annotations

import logging

from s4.cluster.shardmap import ShardMap
from s4.node.base import Node
from s4.storage.directory import FailingDriveError

log = logging.getLogger(__name__)


def can_spare(current: ShardMap, store: str, copies_needed: int) -> bool:
    """Whether everything can be read and written without a store (D1, R9)."""
    needed = current.spec.data + (1 if current.spec.parity > 1 else 0)
    others = {one for status in current.status for one in (*status.members, *status.joining)} - {"", store}
    left = (current.live(partition, others) for partition in range(current.partitions))
    copies = [one for one in current.status[0].in_sync if one != store]
    return current.spec.parity > 0 and all(have >= needed for have in left) and len(copies) >= copies_needed


def put_aside(node: Node) -> None:
    """Look at every drive; ends the process where one is to be left out."""
    for drive, store in node.drives.online():
        if not store.failing.many:
            continue
        membership = node.membership
        if can_spare(membership.current, drive.store, membership.copies_needed(strict=False)):
            store.give_up(FailingDriveError(f"{store.failing.count} reads failed, of many places"))
        else:
            log.error("drive %d, %s, fails to read and cannot be spared: replace it", drive.number + 1, drive.directory)
