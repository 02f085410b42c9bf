"""The auditor (which has nothing to do with the audit log): shards that no blob row names, references that nobody
holds and hints at content that is gone, left by crashes, lost requests and late ones. The same on one server, which
leads every partition and has all drives, and on a cluster's node, which leads some and has one.

Nothing is dropped before the claiming partition committed a `refused` row for its id, which every commit
checks (rule C3); so even an upload that outlives the auditor's patience is refused, not left dangling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, islice

from s4.base.clock import boot_clock, wall_ms
from s4.metadata import commands, keys
from s4.metadata.commands import Taken
from s4.metadata.rows import Reference, decode
from s4.node.base import Node
from s4.node.member import MemberNode
from s4.peer.api import CallError, NodeApi
from s4.replica.pieces import pieces
from s4.storage.shards import ShardStore
from s4.upkeep.forget import forget_answers, forget_refused
from s4.upkeep.hints import forget_stale

log = logging.getLogger(__name__)

BATCH, MOST = 256, 10_000
READERS_S, LOOK_S = 15.0, 0.2  # that readers are waited for: gateways tell theirs each few seconds


@dataclass(slots=True)
class Audit:
    """What an audit found and dropped. Blobs are counted on each drive."""

    blobs_checked: int = 0
    orphan_blobs: int = 0
    orphan_bytes: int = 0
    references_checked: int = 0
    orphan_references: int = 0
    stale_contents: int = 0

    def report(self) -> None:
        """Log what was dropped, if anything was."""
        if self.orphan_blobs or self.orphan_references or self.stale_contents:
            log.info(
                "orphans dropped: %d blobs of %d bytes, %d references, %d hints at content",
                self.orphan_blobs,
                self.orphan_bytes,
                self.orphan_references,
                self.stale_contents,
            )


async def audit(
    node: Node | MemberNode, everybody: NodeApi, *, age_s: float, may_forget: Callable[[], bool] = lambda: True
) -> Audit:
    """Drop orphans older than `age_s` seconds: shards on the drives of this process, references and hints of the
    partitions that it leads. `everybody` answers for any partition; `may_forget` says whether this clock may end anything
    (R13)."""
    result = Audit()
    for partition in node.led():
        try:
            await _references(node, everybody, partition, age_s, result)
            result.stale_contents += await forget_stale(node.host, partition, everybody.unknown_blobs)
            if may_forget():
                now_ms = wall_ms()
                await forget_answers(node.host, partition, now_ms)
                await forget_refused(node.host, partition, now_ms)
        except CallError as error:
            log.info("partition %d: its references are audited later: %s", partition, error)
    await node.drives.flush()
    for store in node.drives.stores:
        await _shards(node, everybody, store, age_s, result)
    await node.drives.flush()
    return result


async def _references(node: Node | MemberNode, everybody: NodeApi, partition: int, age_s: float, result: Audit) -> None:
    limit_ms = (time.time() - age_s) * 1000
    prefix = keys.table(partition, keys.REFERENCE)
    async for key, value in pieces(node.host, prefix):
        result.references_checked += 1
        row, blob, reference = decode(Reference, value), key[len(prefix) :][:16], key[len(prefix) :][16:]
        if row.created_ms > limit_ms:
            continue
        found = await everybody.find_object(row.partition, row.bucket, row.key, "")
        if found is not None and reference in found.value:  # most are held, and reading says so
            continue
        asked = commands.RefuseReference(row.bucket, row.key, row.upload, blob, reference)
        answer = await everybody.execute(row.partition, asked)
        if isinstance(answer, Taken) and not answer.granted:
            await node.host.submit(partition, commands.DropReferences([(blob, reference)]), own=True)
            result.orphan_references += 1


async def _shards(node: Node | MemberNode, everybody: NodeApi, store: ShardStore, age_s: float, result: Audit) -> None:
    limit_s, dead = time.time() - age_s, list[tuple[int, bytes]]()
    for partition, records in groupby(store.records(), lambda one: one[0].partition):
        blobs = groupby(records, lambda one: one[0].blob)
        while batch := [(blob, max(at.created_s for _, at in group)) for blob, group in islice(blobs, BATCH)]:
            result.blobs_checked += len(batch)
            old = [blob for blob, created_s in batch if created_s <= limit_s]
            try:
                dead += [(partition, blob) for blob in await _unclaimed(everybody, partition, old)]
            except CallError as error:
                log.info("partition %d: its shards are audited later: %s", partition, error)
            if len(dead) >= MOST:
                await _free(node, store, dead, result)
            await asyncio.sleep(0)
    await _free(node, store, dead, result)


async def _unclaimed(everybody: NodeApi, partition: int, blobs: list[bytes]) -> list[bytes]:
    """Those that no row names, nor ever will."""
    found = []
    for blob in await everybody.unknown_blobs(partition, blobs) if blobs else []:
        answer = await everybody.execute(partition, commands.RefuseBlob(blob))
        if isinstance(answer, Taken) and not answer.granted:
            found.append(blob)
    return found


async def _free(node: Node | MemberNode, store: ShardStore, dead: list[tuple[int, bytes]], result: Audit) -> None:
    """Drop dead blobs once nobody reads who may have begun when they were none (D6): one that was deleted a moment ago
    has no row either. Where somebody reads for longer they are found again by the next audit."""
    since, deadline = boot_clock(), boot_clock() + READERS_S
    while dead and node.horizon() <= since and boot_clock() < deadline:  # noqa: ASYNC110 - readers end in any process, which no event here tells
        await asyncio.sleep(LOOK_S)
    if dead and node.horizon() > since:
        for partition, blob in dead:
            result.orphan_bytes += await store.free(partition, blob)
            result.orphan_blobs += 1
    dead.clear()
