"""Comparing what a store has with what should be on it: what the blob rows of its partitions say.

Reading what a store has finds what is damaged; what is missing altogether is found only from the rows. A store in doubt
(storage/shards.py) is compared at once: its last start could not read all, so shards may be gone that no heal row names.
Every store is compared on the cycle of its scrub. What it lacks is queued for healing before the doubt goes; so a crash
begins anew, and queues again what it queued before. The rows are asked of whoever leads a partition, a page at a time;
what is written meanwhile is written by who knows whether this store took it.

Without parity nothing can be made again: a store that lacks something stays in doubt then, and each start tries to read
it.
"""

from __future__ import annotations

import asyncio
import logging

from s4.metadata.commands import NeedHeal
from s4.node.base import Node
from s4.node.member import MemberNode
from s4.peer.api import NodeApi
from s4.storage.shards import ShardStore

log = logging.getLogger(__name__)


async def confirm(node: Node | MemberNode, everybody: NodeApi, store: ShardStore) -> int:
    """Queue what a store of this process lacks; returns how many shards that are. `everybody` answers for any partition.
    Raises CallError."""
    found, parity, name = 0, node.membership.geometry[1], store.store.hex()
    for partition in range(node.partitions):
        for position in range(sum(node.membership.geometry)):
            after = b""
            while node.membership.is_held(partition, position, name) and (
                rows := await everybody.list_blobs(partition, after)
            ):
                after = rows[-1][0]
                wanted = [(blob, row) for blob, row in rows if position < row.k + row.m]
                lacking = await node.lacking(partition, position, wanted)
                found += len(lacking)
                for blob in lacking if parity else ():
                    await everybody.execute(partition, NeedHeal(blob, [position]))
                await asyncio.sleep(0)
    return found


async def confirm_doubtful(node: Node | MemberNode, everybody: NodeApi) -> None:
    """Compare the stores of this process that are in doubt. One that is being filled waits for the end of that: who fills it
    may have asked what it lacks before the start that could not read it, and gives it the position with that missing."""
    for store in node.drives.stores:
        if not store.in_doubt or node.membership.is_joining(store.store.hex()):
            continue
        found = await confirm(node, everybody, store)
        if found:
            log.error("%s lacks %d shards that could not be read at the start", store.directory, found)
        if not found or node.membership.geometry[1]:
            store.trust()
            await store.flush()
