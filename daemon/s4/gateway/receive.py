"""Receiving a body: decode, hash and store it in one pass, in bounded memory.

The event loop reads from the socket while a thread decodes and hashes what came before; full stripes go to
the store while the next one fills. Small bodies are handled at once. The last stripe is held back until the
content's SHA-256 is known: content that is already there gets a reference, and what was written is dropped.
Where the client signed the hash, the reference is taken first and nothing is written (rule C4). What is encrypted is so
before it is cut into stripes: it is a blob like others, whose content nobody else has, so that nothing is shared.

A body that fails any check leaves nothing: its shards are discarded, its grants dropped. After a crash the
orphan audit does that. Nothing here is visible until the caller commits it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from s4.base.tasks import in_task
from s4.crypto.segments import SEAL_BYTES, Sealer
from s4.erasure.codec import Buffer, codec
from s4.gateway.context import Gateway, execute
from s4.gateway.memory import KEPT_BYTES, Share
from s4.gateway.places import PLACE
from s4.gateway.sealing import Seal
from s4.metadata import keys
from s4.metadata.commands import Claim, DropReferences, NewBlob, Taken, TakeReferences
from s4.metadata.rows import Extent
from s4.s3.checksums import Digests, Expected
from s4.s3.errors import S3Error
from s4.s3.hashing import BodyHash
from s4.storage.records import DiskFullError, OfflineError, Shard

SMALL_BYTES = 64 * 1024
BATCH_BYTES = 512 * 1024
APPENDS_IN_FLIGHT = 1  # beside the stripe that fills; two were no faster
# memory of one large upload: what fills, what is encoded with its parity, what is on its way, what waits in the socket
STRIPES_HELD = 6
REFERENCES_AT_ONCE = 128  # in one command: everybody else's come between
MANY_PIECES = 32  # of one read: joined, so that thousands of tiny chunks do not hold what surrounded them


class Decoder(Protocol):
    trailers: dict[str, str]

    @property
    def finished(self) -> bool: ...

    def feed(self, data: bytes) -> list[memoryview]: ...

    def hash_into(self, body: BodyHash, /) -> bool: ...


class Body(Protocol):
    """A request's body. `length` is the number of bytes once decoded."""

    length: int
    decoder: Decoder

    async def read(self) -> bytes:
        """The next bytes as they came, empty at the end. Raises S3Error."""
        ...


class Destination(msgspec.Struct, frozen=True):
    """Where a body will belong: partition and claim."""

    partition: int
    bucket: int
    key: bytes
    upload: bytes = b""
    number: int = 0


class Stored(msgspec.Struct, eq=False):
    """A body that is durable and not yet committed: put `blobs` and `granted` into the command that does."""

    extent: Extent
    etag: str
    checksum: str
    inline: bytes = b""
    blobs: list[NewBlob] = []
    granted: list[bytes] = []
    brought: str = ""  # the checksum that was compared and is not kept


@dataclass(slots=True)
class _Granted:
    partition: int
    blob: bytes
    reference: bytes


class _BlobWriter:
    """Stripes of one new blob on their way to the stores: encoded as they fill, one shard for each position.

    A position whose drive is away or full is `missing` from then on, for the whole blob, and healed later; so is one
    whose stripes met two processes, or two stores (D2).
    """

    def __init__(self, gateway: Gateway, partition: int, sealer: Sealer | None = None) -> None:
        self._gateway, self._partition, self.sealer = gateway, partition, sealer
        self._codec = codec(gateway.layout.data, gateway.layout.parity)
        self.blob = gateway.random(16)
        self.missing: set[int] = set()
        self.takers: dict[int, str] = {}  # by position, the store and its process
        self._full_drives = 0
        self._pieces: list[bytes | memoryview] = []  # of the stripe that fills, behind what is in its memory
        self._memory: memoryview | None = None
        self._poured = self._fill = 0
        self._full: deque[list[Buffer]] = deque()
        self._appends: deque[asyncio.Task[None]] = deque()
        self._stripes = 0
        self._synced = False

    def new(self, reference: bytes, size: int, sha256: bytes) -> NewBlob:
        """What a commit makes known, once `finish` has returned."""
        k, m = self._codec.k, self._codec.m
        return NewBlob(
            self.blob,
            reference,
            size,
            self._gateway.stripe_bytes,
            k,
            m,
            sha256,
            sorted(self.missing),
            self.stores(),
            synced=self._synced,
        )

    @property
    def held(self) -> int:
        """Bytes that wait here for more."""
        if self._memory is not None:
            return len(self._memory) + BATCH_BYTES
        return self._fill + BATCH_BYTES if self._fill else 0

    def add(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Encrypt what is to be, and gather it into stripes. Runs on a hashing thread."""
        self._cut(pieces if self.sealer is None else self.sealer.feed(pieces))

    def _cut(self, pieces: Sequence[bytes | memoryview]) -> None:
        if len(pieces) > MANY_PIECES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            view = memoryview(piece)
            while view:
                if self._fill == self._gateway.stripe_bytes:
                    self._seal()
                step = min(len(view), self._gateway.stripe_bytes - self._fill)
                self._pieces.append(view[:step])
                self._fill += step
                view = view[step:]
        if self._fill > KEPT_BYTES:  # whose client waits with less holds no more than that
            self._pour()

    def _pour(self) -> memoryview:
        """Bring what has come to where it is encoded and written from."""
        memory = self._memory = self._gateway.stripes.take() if self._memory is None else self._memory
        for piece in self._pieces:
            memory[self._poured : self._poured + len(piece)] = piece
            self._poured += len(piece)
        self._pieces = []
        return memory

    def _seal(self) -> None:
        """Encode the stripe that is full, or the last one."""
        if self._fill > KEPT_BYTES:
            shards = self._codec.encode_in(self._pour(), self._fill, self._gateway.stripe_bytes)
        else:
            shards = self._codec.encode(b"".join(self._pieces))
        self._pieces, self._memory, self._poured, self._fill = [], None, 0, 0
        self._full.append(shards)

    async def push(self) -> None:
        """Send full stripes; wait where too many are on their way."""
        while self._full:
            await self._send(self._full.popleft(), sync=False)

    async def finish(self) -> None:
        """Send the rest; durable on return, or by the commit where that is on the same node and it is little: others
        share that turn, and are not to wait for much. Raises S3Error."""
        if self.sealer is not None:
            self._cut([self.sealer.finish()])
        if self._fill <= SMALL_BYTES:
            self._seal()
        else:
            await asyncio.get_running_loop().run_in_executor(self._gateway.pool, self._seal)
        while len(self._full) > 1:
            await self._send(self._full.popleft(), sync=False)
        await self._drain(0)
        last = self._full.popleft()
        self._synced = not self._gateway.commit_syncs or self._stripes > 0 or len(last[0]) > SMALL_BYTES
        await self._send(last, sync=self._synced)
        await self._drain(0)
        shards = self._codec.k + self._codec.m - len(self.missing)
        if shards < self._gateway.shards_needed:
            if self._full_drives:
                raise S3Error("StorageFull")
            raise S3Error(
                "ServiceUnavailable",
                f"{shards} drives can take this object and {self._gateway.shards_needed} are needed. Try again later.",
                headers={"Retry-After": "5"},
            )

    async def _send(self, shards: list[Buffer], *, sync: bool) -> None:
        await self._drain(APPENDS_IN_FLIGHT - 1)
        self._appends.append(asyncio.ensure_future(self._append(self._stripes, shards, sync)))
        self._stripes += 1

    async def _append(self, stripe: int, shards: list[Buffer], sync: bool) -> None:
        if self._gateway.commit_syncs and len(shards[0]) <= SMALL_BYTES:
            # on this process's drives, written where we stand: tasks would cost more than they overlap
            for position, data in enumerate(shards):
                await self._append_shard(stripe, position, data, sync)
            return
        writes = [self._append_shard(stripe, position, data, sync) for position, data in enumerate(shards)]
        for failure in await asyncio.gather(*writes, return_exceptions=True):  # all have ended before one is told
            if failure is not None:
                raise failure

    async def _append_shard(self, stripe: int, position: int, data: Buffer, sync: bool) -> None:
        if position in self.missing:
            return
        shard = Shard(self._partition, self.blob, position, stripe)
        try:
            taker = await self._gateway.node.append(shard, memoryview(data), sync)
        except OfflineError:
            self.missing.add(position)
            return
        except DiskFullError:
            self.missing.add(position)
            self._full_drives += 1
            return
        if self.takers.setdefault(position, taker) != taker:
            self.missing.add(position)

    def stores(self) -> list[str]:
        """The store that has the shards of each position, empty where they are missing."""
        return [
            "" if position in self.missing else self.takers[position].partition(".")[0]
            for position in range(self._codec.k + self._codec.m)
        ]

    async def _drain(self, most: int) -> None:
        while len(self._appends) > most:
            await self._appends.popleft()

    async def discard(self) -> None:
        """Drop everything that was written."""
        while self._appends:
            with contextlib.suppress(Exception):
                await self._appends.popleft()
        if self._stripes:
            await self._gateway.node.discard(self._partition, self.blob)


class _RowWriter:
    """A new blob whose bytes go with the commit: nothing is anywhere before, and nothing is left."""

    held = 0

    def __init__(self, gateway: Gateway, sealer: Sealer | None) -> None:
        self.blob, self.sealer = gateway.random(16), sealer
        self._pieces: list[bytes | memoryview] = []

    def add(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._pieces += pieces if self.sealer is None else self.sealer.feed(pieces)

    async def push(self) -> None:
        return

    async def finish(self) -> None:
        if self.sealer is not None:
            self._pieces.append(self.sealer.finish())

    def new(self, reference: bytes, size: int, sha256: bytes) -> NewBlob:
        return NewBlob(self.blob, reference, size, 0, 0, 0, sha256, content=b"".join(self._pieces))

    async def discard(self) -> None:
        return


_Writer = _BlobWriter | _RowWriter


async def receive(
    gateway: Gateway, body: Body, expected: Expected, to: Destination, seal: Seal | None = None
) -> Stored:
    """Read the whole body and store it, encrypted where there is a seal. Raises S3Error with nothing left behind."""
    digests = Digests(expected, content=seal is None or expected.sha256 is not None)
    digests.leave_to(body.decoder)
    sealer = Sealer(seal.key, gateway.random(SEAL_BYTES)) if seal is not None else None
    if body.length < gateway.inline_bytes:
        share = Share(gateway.memory, lambda: 0)
        try:
            data = await _read_small(body, digests, share)
        finally:
            share.drop()
        await PLACE.get().again()
        digests.verify(body.decoder.trailers)
        if sealer is not None:
            data = b"".join((*sealer.feed([data]), sealer.finish()))
        extent = Extent(
            to.number,
            digests.size,
            etag=_etag(gateway, digests, seal),
            checksum=digests.checksum(),
            seal=sealer.seal if sealer is not None else b"",
        )
        return Stored(extent, extent.etag, extent.checksum, inline=data, brought=digests.brought())
    signed = expected.sha256 if sealer is None else None
    granted = await _known(gateway, signed, body.length, to) if signed is not None else None
    writer: _Writer | None = None
    if not granted:
        in_row = body.length <= gateway.small_bytes
        writer = _RowWriter(gateway, sealer) if in_row else _BlobWriter(gateway, to.partition, sealer)
    try:
        share = Share(gateway.memory, lambda: writer.held if writer is not None else 0)
        try:
            if body.length <= SMALL_BYTES:
                data = await _read_small(body, digests, share)
                await share.take(2 * len(data))
                if writer is not None:
                    writer.add([data])
            else:
                await _pipeline(gateway, body, digests, writer, share)
            await PLACE.get().again()
            digests.verify(body.decoder.trailers)
            if writer is not None:
                if sealer is None:
                    granted = await _known(gateway, digests.sha256(), digests.size, to)
                if granted is None:
                    await writer.finish()
        finally:
            share.drop()
        if writer is not None and granted is not None:
            await writer.discard()
    except BaseException as error:
        await asyncio.shield(_undo(gateway, writer, granted))
        if isinstance(error, DiskFullError):
            raise S3Error("StorageFull") from error
        raise
    return _stored(gateway, digests, to, writer, granted, _etag(gateway, digests, seal))


def _etag(gateway: Gateway, digests: Digests, seal: Seal | None) -> str:
    return digests.md5_hex() if seal is None or seal.md5_etag else gateway.random(16).hex()


def _stored(
    gateway: Gateway, digests: Digests, to: Destination, writer: _Writer | None, granted: _Granted | None, etag: str
) -> Stored:
    checksum, size = digests.checksum(), digests.size
    if granted is not None:
        extent = Extent(to.number, size, granted.partition, granted.blob, granted.reference, etag, checksum)
        return Stored(extent, etag, checksum, granted=[granted.reference], brought=digests.brought())
    if writer is None:
        raise S3Error("InternalError", "A body was neither written nor known.")
    content = writer.sealer or digests  # what is stored: its size and hash are the blob's
    new = writer.new(gateway.random(16), content.size, content.sha256())
    seal = writer.sealer.seal if writer.sealer is not None else b""
    extent = Extent(to.number, size, to.partition, new.blob, new.reference, etag, checksum, seal)
    return Stored(extent, etag, checksum, blobs=[new], brought=digests.brought())


async def abandon(gateway: Gateway, stored: Stored) -> None:
    """Drop what was stored, after a commit that was surely refused."""
    for new in stored.blobs:
        if new.k:
            await gateway.node.discard(stored.extent.partition, new.blob)
    if stored.granted:
        await drop_references(gateway, [stored.extent])


async def drop_references(gateway: Gateway, extents: Sequence[Extent]) -> None:
    by_partition: dict[int, list[tuple[bytes, bytes]]] = {}
    for extent in extents:
        if extent.blob:
            by_partition.setdefault(extent.partition, []).append((extent.blob, extent.reference))
    for partition, references in by_partition.items():
        for at in range(0, len(references), REFERENCES_AT_ONCE):
            await execute(gateway, partition, DropReferences(references[at : at + REFERENCES_AT_ONCE]))


async def _undo(gateway: Gateway, writer: _Writer | None, granted: _Granted | None) -> None:
    if writer is not None:
        await writer.discard()
    if granted is not None:
        await execute(gateway, granted.partition, DropReferences([(granted.blob, granted.reference)]))


async def _known(gateway: Gateway, sha256: bytes, size: int, to: Destination) -> _Granted | None:
    """A reference to content that is already there, or None. A hash alone never yields content (C4)."""
    if not gateway.dedup:
        return None
    home = keys.partition_of_content(sha256, gateway.partitions)
    content = await gateway.node.find_content(home, sha256)
    if content is None or content.size != size:
        return None
    reference = gateway.random(16)
    claim = Claim(content.blob, reference, to.partition, to.bucket, to.key, to.upload)
    answer = await execute(gateway, content.partition, TakeReferences([claim]))
    if isinstance(answer, Taken) and answer.granted:
        return _Granted(content.partition, content.blob, reference)
    return None


async def _read(body: Body, share: Share) -> tuple[bytes, bool]:
    """The next bytes, and whether they were so long in coming that the share was given back meanwhile."""
    if getattr(body, "at_hand", True):
        return await body.read(), False
    await in_task()
    share.await_client()
    try:
        data = await body.read()
    except asyncio.CancelledError:
        if share.ended:
            raise share.refusal() from None
        raise
    finally:
        stalled = share.client_came()
    return data, stalled


async def _read_small(body: Body, digests: Digests, share: Share) -> bytes:
    received = bytearray()
    whole = b""
    while data := (await _read(body, share))[0]:
        pieces = body.decoder.feed(data)
        if not received and len(pieces) == 1 and len(pieces[0]) == body.length:
            whole = bytes(pieces[0])
        else:  # copied, so that thousands of tiny chunks do not hold what surrounded them
            for piece in pieces:
                received += piece
    if not body.decoder.finished:
        raise S3Error("IncompleteBody")
    whole = whole or bytes(received)
    digests.update(whole)
    return whole


async def _pipeline(gateway: Gateway, body: Body, digests: Digests, writer: _Writer | None, share: Share) -> None:
    """Read, hash and write at the same time: one batch is hashed while the next is read."""
    loop = asyncio.get_running_loop()

    def work(batch: list[bytes]) -> None:
        for data in batch:
            pieces = body.decoder.feed(data)
            for piece in pieces:
                digests.update(piece)
            if writer is not None:
                writer.add(pieces)

    hashing: Awaitable[None] | None = None
    full = min(STRIPES_HELD * gateway.stripe_bytes, 2 * body.length)
    try:
        batch: list[bytes] = []
        size = run = 0
        while True:
            data, stalled = await _read(body, share)
            run = len(data) + (0 if stalled else run)
            here = size + len(data) + (writer.held if writer is not None else 0)
            wanted = full if run >= BATCH_BYTES else min(full, 2 * here)  # a client that trickles has what is here
            if data and wanted > share.size:
                await share.take(wanted)
            if data:
                batch.append(data)
                size += len(data)
            if (size >= BATCH_BYTES or not data) and batch:
                if hashing is not None:
                    waiting, hashing = hashing, None
                    await waiting
                    if writer is not None:
                        await writer.push()
                await gateway.turns.turn(size)
                hashing = loop.run_in_executor(gateway.pool, work, batch)
                batch, size = [], 0
            if not data:
                break
        if hashing is not None:
            waiting, hashing = hashing, None
            await waiting
        if writer is not None:
            await writer.push()
    finally:
        if hashing is not None:  # the thread must be done with the buffers before they are dropped
            with contextlib.suppress(Exception):
                await asyncio.shield(hashing)
    if not body.decoder.finished:
        raise S3Error("IncompleteBody")
