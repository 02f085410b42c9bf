"""`python -m bench.digests`: what the digests of a body cost, in nanoseconds of a processor for each byte, by hashlib and
in one pass (s4/s3/hashing.py). Each is the least of ten times over 64 MiB in chunks of 64 KiB; the kinds take turns. Then what
the default checksum of a PUT costs by itself, from the object that computes it to the text that is kept."""

from __future__ import annotations

import base64
import os
import time

from s4.s3 import checksums, hashing

SIZE, CHUNK, TIMES = 64 << 20, 64 << 10, 10
SMALL = 1 << 10


def cost(kind: type[hashing.Separate] | type[hashing.Fused], data: bytes, chunks: bool) -> float:
    """Nanoseconds a byte; with `chunks` each is hashed for its signature too."""
    made, view, began = kind(True), memoryview(data), time.thread_time_ns()
    for at in range(0, len(data), CHUNK):
        if chunks:
            made.chunk()
        made.update(view[at : at + CHUNK])
        if chunks:
            made.chunk_sha256()
    return (time.thread_time_ns() - began) / len(data)


def default_cost(data: bytes, times: int) -> float:
    """Nanoseconds of a processor for the default checksum of one body."""
    began = time.thread_time_ns()
    for _ in range(times):
        made = checksums.new("CRC64NVME")
        made.update(data)
        base64.b64encode(made.digest()).decode()
    return (time.thread_time_ns() - began) / times


def main() -> None:
    data = os.urandom(SIZE)
    kinds = {"hashlib": hashing.Separate, **({"one pass": hashing.Fused} if hashing.FUSED else {})}
    found = {(name, chunks): list[float]() for name in kinds for chunks in (False, True)}
    for _ in range(TIMES):
        for (name, chunks), costs in found.items():
            costs.append(cost(kinds[name], data, chunks))
    for (name, chunks), costs in found.items():
        print(
            f"{name:8}  MD5 and {'two ' if chunks else ''}SHA-256{'' if chunks else '    '}  {min(costs):.2f} ns a byte"
        )
    small, large = (
        min(default_cost(one, times) for _ in range(TIMES)) for one, times in ((data[:SMALL], 10_000), (data, 1))
    )
    print(f"CRC64NVME of {SMALL} bytes  {small / 1000:.2f} µs, of {SIZE >> 20} MiB  {large / SIZE:.3f} ns a byte")


if __name__ == "__main__":
    main()
