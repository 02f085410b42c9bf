"""The auditor (which has nothing to do with the audit log): shards that no blob row names, references that nobody
holds and hints at content that is gone, left by crashes, lost requests and late ones.

Nothing is dropped before the claiming partition committed a `refused` row for its id, which every commit
checks (rule C3); so even an upload that outlives the auditor's patience is refused, not left dangling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from itertools import groupby

from s4.metadata import commands, keys
from s4.metadata.commands import Taken
from s4.metadata.rows import Reference, decode
from s4.node.base import Node
from s4.storage.shards import ShardStore
from s4.upkeep.forget import forget_answers, forget_refused
from s4.upkeep.hints import forget_stale

log = logging.getLogger(__name__)

PAUSE_EVERY = 1000


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


async def audit(node: Node, *, age_s: float) -> Audit:
    """Drop orphans that are older than `age_s` seconds."""
    result = Audit()
    await _references(node, age_s, result)
    await _shards(node, age_s, result)
    for partition in range(node.partitions):
        result.stale_contents += await forget_stale(node.host, partition, node.unknown_blobs)
    await _expire(node)
    return result


async def _references(node: Node, age_s: float, result: Audit) -> None:
    limit_ms = (time.time() - age_s) * 1000
    for partition in range(node.partitions):
        prefix = keys.table(partition, keys.REFERENCE)
        for key, value in node.host.scan(prefix):
            result.references_checked += 1
            if result.references_checked % PAUSE_EVERY == 0:
                await asyncio.sleep(0)
            row = decode(Reference, value)
            if row.created_ms > limit_ms:
                continue
            blob, reference = key[len(prefix) : len(prefix) + 16], key[len(prefix) + 16 :]
            asked = commands.RefuseReference(row.bucket, row.key, row.upload, blob, reference)
            answer = (
                await node.host.submit(row.partition, asked, own=True)
                if not _held(node, row, reference)
                else Taken(True)
            )
            if isinstance(answer, Taken) and not answer.granted:
                await node.host.submit(partition, commands.DropReferences([(blob, reference)]), own=True)
                result.orphan_references += 1


def _held(node: Node, row: Reference, reference: bytes) -> bool:
    """A first look without a command: most references are held, and reading says so."""
    found = node.host.newest(row.partition, row.bucket, row.key)
    return found is not None and reference in found[1]


async def _shards(node: Node, age_s: float, result: Audit) -> None:
    await node.drives.flush()
    for store in node.drives.stores:
        await _shards_of(node, store, age_s, result)
    await node.drives.flush()


async def _shards_of(node: Node, store: ShardStore, age_s: float, result: Audit) -> None:
    limit_s = time.time() - age_s
    for (partition, blob), group in groupby(store.records(), lambda item: (item[0].partition, item[0].blob)):
        created_s = max(location.created_s for _, location in group)
        result.blobs_checked += 1
        if result.blobs_checked % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
        if created_s > limit_s or node.host.get(keys.blob_row(partition, blob)) is not None:
            continue
        answer = await node.host.submit(partition, commands.RefuseBlob(blob), own=True)
        if isinstance(answer, Taken) and not answer.granted:
            result.orphan_bytes += await store.free(partition, blob)
            result.orphan_blobs += 1


async def _expire(node: Node) -> None:
    """Forget answers that nobody will ask again and refusals that nobody can run into any more."""
    for partition in range(node.partitions):
        now_ms = int(time.time() * 1000)
        await forget_answers(node.host, partition, now_ms)
        await forget_refused(node.host, partition, now_ms)
