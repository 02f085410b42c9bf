"""Erasure coding of stripes: the only module that knows pyeclib, beside isal.py, which knows what that brings.

A stripe of `size` bytes becomes k data shards, each ceil(size / k) bytes (the last padded with zeros), and m
parity shards of the same length. The code works byte by byte, so any range of a shard can be made again
from the same range of k others. Shards carry no header of the library's; its 80 bytes depend on geometry,
length and index only, so they are made once for each length and put back to reconstruct. k = 1 means copies
and m = 0 slices, which need no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from pyeclib.ec_iface import ECDriver, ECDriverError

from s4.base.said import SaidError
from s4.erasure.isal import Isal

Buffer = bytes | bytearray | memoryview

MAX_SHARDS = 16
CODE = "isa_l_rs_cauchy"  # invertible for every choice of k out of k+m, which Vandermonde matrices are not
_HEADER = 80
PAGE = 4096


class ErasureError(SaidError):
    """Too few shards, or shards that do not belong together."""


class Striped(Protocol):
    """The geometry of a blob: its bytes, those of a stripe, and data shards."""

    @property
    def size(self) -> int: ...

    @property
    def stripe(self) -> int: ...

    @property
    def k(self) -> int: ...


def stripes_of(blob: Striped) -> Iterator[tuple[int, int]]:
    """(number, length of its shards) of each stripe of a blob; none of one whose bytes are in its row (k is 0)."""
    for number, start in enumerate(range(0, blob.size, blob.stripe) if blob.k else ()):
        yield number, shard_length(min(blob.stripe, blob.size - start), blob.k)


def shard_length(size: int, k: int) -> int:
    """Bytes of each shard of a stripe of `size` bytes."""
    return -(-size // k)


class Codec:
    """Encodes and reconstructs for one geometry. Calls take microseconds for each 64 KiB and hold the interpreter."""

    def __init__(self, k: int, m: int) -> None:
        if k < 1 or m < 0 or k + m > MAX_SHARDS:
            raise ErasureError(f"{k}+{m} is no geometry: at least one data shard, {MAX_SHARDS} shards in all")
        self.k, self.m = k, m
        self._driver = ECDriver(k=k, m=m, ec_type=CODE) if k > 1 and m else None
        self._headers = lru_cache(64)(self._make_headers)
        self._isal = self._proven()

    def encode(self, data: Buffer) -> list[Buffer]:
        """The k+m shards of a stripe; the data shards share memory with `data` where its length allows it."""
        length = shard_length(len(data), self.k)
        if len(data) != length * self.k:
            data = bytes(data) + bytes(length * self.k - len(data))
        view = memoryview(data)
        shards: list[Buffer] = [view[at * length : (at + 1) * length] for at in range(self.k)]
        if self._driver is None:
            return shards if self.k > 1 else shards * (1 + self.m)
        fragments = self._driver.encode(data if isinstance(data, bytes) else bytes(data))
        return shards + [memoryview(fragment)[_HEADER:] for fragment in fragments[self.k :]]

    def memory_bytes(self, stripe_bytes: int) -> int:
        """Of a stripe and its parity, for `encode_in`."""
        length = shard_length(stripe_bytes, self.k)
        return -(-self.k * length // PAGE) * PAGE + self.m * -(-length // PAGE) * PAGE

    def encode_in(self, memory: memoryview, size: int, stripe_bytes: int) -> list[Buffer]:
        """As `encode`, of the first `size` bytes of memory of `memory_bytes`, which the shards share, at pages' starts where
        their lengths allow it."""
        length = shard_length(size, self.k)
        memory[size : length * self.k] = bytes(length * self.k - size)
        if self._isal is None:
            return self.encode(memory[: length * self.k])
        data = [memory[at * length : (at + 1) * length] for at in range(self.k)]
        first, step = -(-stripe_bytes // PAGE) * PAGE, -(-length // PAGE) * PAGE
        parity = [memory[first + at * step : first + at * step + length] for at in range(self.m)]
        self._isal.encode(data, parity)
        return [*data, *parity]

    def _proven(self) -> Isal | None:
        """ISA-L itself, where it makes the parity that pyeclib does."""
        if self._driver is None:
            return None
        try:
            isal = Isal(self.k, self.m)
        except (OSError, AttributeError):
            return None
        sample = bytearray(range(251)) * self.k
        data = [memoryview(sample)[at * 251 : (at + 1) * 251] for at in range(self.k)]
        parity = [memoryview(bytearray(251)) for _ in range(self.m)]
        isal.encode(data, parity)
        return isal if [*data, *parity] == self.encode(sample) else None

    def reconstruct(self, shards: Mapping[int, Buffer], wanted: Sequence[int]) -> dict[int, Buffer]:
        """The wanted shards (or the same range of them) from k others by index. Raises ErasureError."""
        if len(shards) < self.k:
            raise ErasureError(f"{len(shards)} shards are left of which {self.k} are needed")
        lengths = {len(shard) for shard in shards.values()}
        if len(lengths) != 1:
            raise ErasureError("the shards of a stripe differ in length")
        if self.k == 1:
            return dict.fromkeys(wanted, next(iter(shards.values())))
        if self._driver is None:
            raise ErasureError("without parity nothing can be reconstructed")
        headers = self._headers(lengths.pop())
        fragments = [headers[index] + bytes(shard) for index, shard in list(shards.items())[: self.k]]
        try:
            made = self._driver.reconstruct(fragments, list(wanted))
        except ECDriverError as error:
            raise ErasureError(f"reconstruction failed: {error}") from error
        return {index: memoryview(fragment)[_HEADER:] for index, fragment in zip(wanted, made, strict=True)}

    def _make_headers(self, length: int) -> list[bytes]:
        if self._driver is None:
            return []
        return [fragment[:_HEADER] for fragment in self._driver.encode(bytes(length * self.k))]


@lru_cache(32)
def codec(k: int, m: int) -> Codec:
    """The codec of a geometry, made once."""
    return Codec(k, m)


def default_geometry(drives: int) -> tuple[int, int]:
    """(k, m) for a number of drives where none was asked for: 1+0, 1+1, 2+1, 2+2, 3+2, 4+2, … 12+4."""
    shards = min(drives, MAX_SHARDS)
    parity = next(m for m, most in enumerate((1, 3, 8, 12, MAX_SHARDS)) if shards <= most)
    return shards - parity, parity


def parse_geometry(text: str) -> tuple[int, int]:
    """(k, m) of "K+M". Raises ValueError."""
    k, plus, m = text.partition("+")
    if not plus or not k.isdigit() or not m.isdigit() or int(k) < 1 or int(k) + int(m) > MAX_SHARDS:
        raise ValueError(f"{text!r} is no erasure code; write K+M, such as 4+2, with at most {MAX_SHARDS} in all")
    return int(k), int(m)
