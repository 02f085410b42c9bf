"""`python -m bench.disk`: ways to write and to send, apart from S4: what io_uring, O_DIRECT, preallocation and
sendfile could give.

    python -m bench.disk [--directory /tmp]            with io_uring where the package `liburing` is installed

Appends are written and made durable one after the other, as one appender does; milliseconds are the median of
each. Sends go from a file in the page cache over loopback to a reader that throws them away.
"""

from __future__ import annotations

import mmap
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crc32c import crc32c

from bench.load import command

try:
    import liburing as uring
except ImportError:
    uring = None

MIB = 1 << 20


@contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        path.unlink()


def timed(count: int, step: Callable[[int], object]) -> tuple[float, float]:
    """(median milliseconds of a step, processor milliseconds of one)."""
    times, used = [], time.process_time()
    for number in range(count):
        began = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000, (time.process_time() - used) / count * 1000


def plain(fd: int, data: bytes | mmap.mmap) -> Callable[[int], object]:
    def step(number: int) -> None:
        os.pwritev(fd, [data], number * len(data))
        os.fdatasync(fd)

    return step


def ring_step(fd: int, data: bytes) -> Callable[[int], object] | None:
    """A write and the sync linked behind it, in one system call."""
    if uring is None:
        return None
    ring, done, buffer = uring.Ring(), uring.Cqe(), bytearray(data)
    uring.io_uring_queue_init(8, ring, 0)

    def step(number: int) -> None:
        write = uring.io_uring_get_sqe(ring)
        uring.io_uring_prep_write(write, fd, buffer, len(buffer), number * len(buffer))
        uring.io_uring_sqe_set_flags(write, uring.IOSQE_IO_LINK)
        uring.io_uring_prep_fsync(uring.io_uring_get_sqe(ring), fd, uring.IORING_FSYNC_DATASYNC)
        uring.io_uring_submit_and_wait(ring, 2)
        for _ in range(2):
            uring.io_uring_wait_cqe(ring, done)
            entry = done[0]
            if entry.res < 0:
                raise OSError(-entry.res, os.strerror(-entry.res))
            uring.io_uring_cqe_seen(ring, entry)

    return step


def appends(directory: Path, size: int, count: int) -> Iterator[tuple[str, float, float]]:
    data, path = os.urandom(size), directory / "disk.bench"
    with opened(path) as fd:
        yield "pwritev, fdatasync", *timed(count, plain(fd, data))
    with opened(path) as fd:
        os.posix_fallocate(fd, 0, size * count)
        yield "the same, space preallocated", *timed(count, plain(fd, data))
    with opened(path) as fd:
        step = ring_step(fd, data)
        if step is not None:
            yield "io_uring, write linked to fdatasync", *timed(count, step)
    aligned = mmap.mmap(-1, size)
    aligned.write(data)
    with opened(path, os.O_DIRECT) as fd:
        os.posix_fallocate(fd, 0, size * count)
        yield "O_DIRECT, fdatasync, preallocated", *timed(count, plain(fd, aligned))


def sends(directory: Path) -> Iterator[tuple[str, float]]:
    """MB/s of 1 MiB pieces."""
    size, count = 256 * MIB, 8
    with opened(directory / "disk.bench") as fd:
        os.pwrite(fd, os.urandom(size), 0)

        def run(step: Callable[[socket.socket, int], object]) -> float:
            ours, theirs = _loopback()
            sink = threading.Thread(target=_drain, args=(theirs,))
            sink.start()
            began = time.perf_counter()
            for _ in range(count):
                for at in range(0, size, MIB):
                    step(ours, at)
            ours.close()
            sink.join()
            return size * count / (time.perf_counter() - began) / 1e6

        def copied(to: socket.socket, at: int) -> None:
            to.sendall(os.pread(fd, MIB, at))

        def checked(to: socket.socket, at: int) -> None:
            data = memoryview(os.pread(fd, MIB, at))
            for start in range(0, MIB, 65536):
                crc32c(data[start : start + 65536])
            to.sendall(data)

        def straight(to: socket.socket, at: int) -> None:
            sent = 0
            while sent < MIB:
                sent += os.sendfile(to.fileno(), fd, at + sent, MIB - sent)

        yield "pread, each block's CRC, send: what S4 does", run(checked)
        yield "pread, send, nothing checked", run(copied)
        yield "sendfile, nothing checked", run(straight)


def _loopback() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def _drain(connection: socket.socket) -> None:
    buffer = bytearray(MIB)
    while connection.recv_into(buffer):
        pass
    connection.close()


def main() -> None:
    parser = command("disk", __doc__)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    for size, count in ((4096, 2000), (2 * MIB, 150)):
        print(f"\n| appends of {size >> 10} KiB | ms | of the processor |\n|---|---|---|")
        for name, took, used in appends(arguments.directory, size, count):
            print(f"| {name} | {took:.3f} | {used:.3f} |")
    print("\n| sends | MB/s |\n|---|---|")
    for name, speed in sends(arguments.directory):
        print(f"| {name} | {speed:.0f} |")


if __name__ == "__main__":
    main()
