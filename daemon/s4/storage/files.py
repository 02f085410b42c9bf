"""The file layer: every system call that storage makes on volumes and small files, in one place.

It exists so that faults can be put under the store: a twin with the same methods loses, tears, delays or
fails writes and syncs. Nothing else in `s4` calls these functions of `os` on data. Methods block; callers
run them on threads of their own, but for reads with `nowait`, which never wait for the disk.

Errors are `OSError` as the kernel gave them. The callers decide which of them end the process (rule D7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_IOV_MAX = 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

Buffer = bytes | bytearray | memoryview


_OF_THE_PROCESS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR))


def is_damage(error: OSError) -> bool:
    """Whether a read that failed says something of what was read (D7), and not of this process, which is out of
    descriptors or memory."""
    return error.errno not in _OF_THE_PROCESS


class Files:
    """The real thing: Linux files."""

    def create(self, path: Path) -> int:
        """Make a new file, which must not exist, and make its name durable. Returns a descriptor."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.sync_directory(path.parent)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_direct(self, path: Path) -> int | None:
        """A descriptor that writes past the page cache; None where the file system has none of that."""
        try:
            return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def is_linked(self, fd: int) -> bool:
        """Whether an open file still has a name."""
        return os.fstat(fd).st_nlink > 0

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        """Write all pieces at `offset`; returns the number of bytes."""
        return self._write_all(fd, pieces, offset)

    def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
        """As `write`, past the page cache by the descriptor `direct` of the same file; `offset` and each piece's memory and
        length are multiples of 4096. What a short write leaves over goes by `fd`. Raises OSError EINVAL, with nothing
        written, where the file system wants it otherwise."""
        return self._write_all(fd, pieces, offset, direct)

    def _write_all(self, fd: int, pieces: Sequence[Buffer], offset: int, first: int | None = None) -> int:
        total = 0
        for start in range(0, len(pieces), _IOV_MAX):
            group = list(pieces[start : start + _IOV_MAX])
            want = sum(map(len, group))
            done = self._write_some(fd if first is None or total else first, group, offset + total)
            total += done
            if done != want:
                total += self._finish(fd, memoryview(b"".join(group))[done:], offset + total, done)
        return total

    def _finish(self, fd: int, rest: memoryview, offset: int, done: int) -> int:
        """What a short write left over, with as many calls as it takes; `done` is what the last one took."""
        start = offset
        while rest:
            if done <= 0:  # neither taken nor refused: not to be tried for ever
                raise OSError(errno.EIO, "a write took no bytes")
            done = self._write_some(fd, [rest], offset)
            offset, rest = offset + done, rest[done:]
        return offset - start

    def _write_some(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        """One call, which may take fewer bytes than it is given. Every byte that is written here passes it."""
        return os.pwritev(fd, pieces, offset)

    def read(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int, *, nowait: bool = False) -> int:
        """Fill the buffers from `offset`; returns the bytes read, which at the end of a file are fewer.

        With `nowait` returns -1 where the page cache does not hold all of it.
        """
        want = sum(map(len, buffers))
        if nowait:
            try:
                done = os.preadv(fd, buffers, offset, os.RWF_NOWAIT)
            except BlockingIOError:
                return -1
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                    return -1
                raise
            return done if done == want else -1
        done = os.preadv(fd, buffers, offset)
        while 0 < done < want:
            rest, skip = [], done
            for buffer in buffers:
                if skip < len(buffer):
                    rest.append(memoryview(buffer)[skip:])
                skip = max(0, skip - len(buffer))
            step = os.preadv(fd, rest, offset + done)
            if step == 0:
                break
            done += step
        return done

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def forget(self, fd: int, offset: int) -> None:
        """Have what is read from `offset` on come from the disk. After a sync that failed the page cache has what the
        disk may not have, and neither a read nor a later sync says so; call after `sync`, which writes what can be."""
        os.posix_fadvise(fd, offset - offset % 4096, 0, os.POSIX_FADV_DONTNEED)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve disk for `length` bytes at `offset` without changing the file's size.

        Raises `OSError` with ENOSPC where the disk has no room: then nothing was written and nothing is
        in doubt. File systems without fallocate are left alone.
        """
        self._fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, length)

    def punch(self, fd: int, offset: int, length: int) -> None:
        """Give the disk space of a range back; the file keeps its size and reads zeros there."""
        self._fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length)

    def _fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        if _libc.fallocate(fd, mode, offset, length) != 0:
            code = ctypes.get_errno()
            if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(code, os.strerror(code))

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def unlink(self, path: Path) -> None:
        path.unlink()
        self.sync_directory(path.parent)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(bytes free to us, bytes in all) of the file system that holds `path`."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize

    def replace(self, path: Path, content: bytes, mode: int = 0o600) -> None:
        """Put `content` into `path` durably, wholly or not at all (D5): temporary file, sync, rename, sync of the
        directory. Where it raises, the old content is there; only after a failed sync of the directory is the new one,
        and a loss of power may still bring the old one back."""
        temporary = path.with_name(path.name + ".new")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                self._write_all(fd, [content], 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # it holds room on a disk that has none
                temporary.unlink()
            raise
        self.sync_directory(path.parent)
