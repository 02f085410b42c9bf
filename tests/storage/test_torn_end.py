"""A database opens whatever a loss of power leaves of the write that was under way, and never where it is damaged."""

from __future__ import annotations

import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s4.storage.leveldb import UNSYNCED, Database, DatabaseError, mark
from s4.storage.torn_end import BLOCK, SECTOR, torn_from

SIZES = {"cache_bytes": 1 << 20, "write_buffer_bytes": 64 << 20, "open_files": 100}
Write = tuple[int, bytes]  # (where, what) of a log


def make(directory: Path, sizes: list[int]) -> tuple[Path, list[Write]]:
    """A database of so many rows, each a batch of its own: its log, and the appends that each batch made of it."""
    database = Database(directory, **SIZES)
    chosen, ends = random.Random(1), [0]
    (path,) = directory.glob("*.log")
    for number, size in enumerate(sizes):
        database.write([(b"%04d" % number, chosen.randbytes(size))])
        ends.append(path.stat().st_size)
    database.close()
    data = path.read_bytes()
    return path, [(start, data[start:end]) for start, end in itertools.pairwise(ends)]


def rows(directory: Path) -> int:
    database = Database(directory, **SIZES)
    count = sum(1 for _ in database.scan(b"", b"\xff"))
    database.close()
    return count


def put(path: Path, writes: list[Write], torn: bytes) -> None:
    path.write_bytes(b"".join(data for _, data in writes) + torn)


def left_of(write: Write, chosen: random.Random) -> bytes:
    """What a disk may have taken of it: any sectors, the rest as if nothing had been written there."""
    start, data = write
    edges = [0, *range(SECTOR - start % SECTOR, len(data), SECTOR), len(data)]
    kept = [chosen.random() < 0.5 for _ in edges[1:]]
    kept[chosen.randrange(len(kept))] = False
    whole = b"".join(
        data[first:end] if here else bytes(end - first)
        for first, end, here in zip(edges, edges[1:], kept, strict=False)
    )
    return whole if chosen.random() < 0.5 else whole.rstrip(b"\0")


@pytest.mark.parametrize("seed", range(60))
def test_the_write_under_way_may_be_torn_at_any_sector(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    sizes = [chosen.choice([10, 600, 5000, BLOCK - 40, 3 * BLOCK]) for _ in range(6)]
    path, writes = make(tmp_path / "meta", sizes)
    put(path, writes[:-1], left_of(writes[-1], chosen))
    assert rows(tmp_path / "meta") == len(sizes) - 1


def test_pieces_behind_one_that_was_never_written(tmp_path: Path) -> None:
    path, writes = make(tmp_path / "meta", [BLOCK - 200, 3000])
    start, data = writes[-1]
    edge = BLOCK - start
    put(path, writes[:-1], bytes(edge) + data[edge:])
    assert torn_from(path.read_bytes()) == start
    assert rows(tmp_path / "meta") == 1


@pytest.mark.parametrize("seed", range(40))
def test_what_a_sync_covered_is_never_cut(tmp_path: Path, seed: int) -> None:
    """Damage of a record with another behind it, and of the last where no sector is missing."""
    chosen = random.Random(seed)
    sizes = [chosen.choice([2000, 5000, BLOCK - 40, 3 * BLOCK]) for _ in range(4)]
    path, writes = make(tmp_path / "meta", sizes)
    data = bytearray(path.read_bytes())
    start, hit = writes[chosen.randrange(len(writes))]
    if start == writes[-1][0] or chosen.random() < 0.5:
        data[start + chosen.randrange(7, len(hit))] ^= 1 + chosen.randrange(255)
    else:
        first = start + 7 - (start + 7) % -SECTOR  # behind its header: LevelDB itself passes over one of zeros
        first += SECTOR * chosen.randrange(max(1, (len(hit) - 7) // SECTOR - 1))
        data[first : first + SECTOR] = bytes(SECTOR)
    path.write_bytes(data)
    with pytest.raises(DatabaseError, match="cannot open"):
        rows(tmp_path / "meta")
    assert path.read_bytes() == data


def test_an_edit_of_the_manifest_may_be_torn(tmp_path: Path) -> None:
    directory = tmp_path / "meta"
    make(directory, [100])
    (manifest,) = directory.glob("MANIFEST-*")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + bytes(SECTOR) + b"\x07" * 40)
    assert rows(directory) == 1


def test_a_database_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    path, _ = make(tmp_path / "meta", [10, 3 * BLOCK, BLOCK - 7 - 20, 500])
    data = path.read_bytes()
    assert [end for end in (*range(0, len(data), 997), len(data)) if torn_from(data[:end]) is not None] == []


@pytest.mark.parametrize("seed", range(40))
def test_of_writes_without_a_sync_a_beginning_is_left(tmp_path: Path, seed: int) -> None:
    """Any may be torn, and whole ones follow; LevelDB by itself passes over what reads as zeros."""
    chosen = random.Random(seed)
    sizes = [chosen.choice([10, 600, 5000, BLOCK - 40, 3 * BLOCK]) for _ in range(8)]
    path, writes = make(tmp_path / "meta", sizes)
    data = path.read_bytes()
    ends = [start for start, _ in writes] + [len(data)]
    sectors = []
    for at in range(0, len(data), SECTOR):  # each as it was after some write
        end = chosen.choice([*ends[1:], *[len(data)] * 8])
        sectors.append(data[at : min(end, at + SECTOR)].ljust(min(SECTOR, len(data) - at), b"\0") if at < end else b"")
    left = b"".join(one or bytes(SECTOR) for one in sectors)[: len(data)]
    path.write_bytes(left if chosen.random() < 0.5 else left.rstrip(b"\0"))
    whole = next((number for number, end in enumerate(ends[1:]) if left[:end] != data[:end]), len(sizes))
    mark(tmp_path / "meta", UNSYNCED)
    assert rows(tmp_path / "meta") == whole
    assert not (tmp_path / "meta.unsynced").exists()


def test_a_damaged_bit_among_writes_without_a_sync_cuts_nothing(tmp_path: Path) -> None:
    """Zeros far behind it are somebody's value."""
    path, writes = make(tmp_path / "meta", [600, 600, 600])
    zeros = Database(tmp_path / "meta", **SIZES)
    zeros.write([(b"zeros", bytes(3 * SECTOR))])
    zeros.close()
    (path,) = (tmp_path / "meta").glob("*.log")
    data = bytearray(b"".join(one for _, one in writes) + path.read_bytes())
    data[writes[1][0] + 100] ^= 1
    assert torn_from(bytes(data), unsynced=True) is None
    path.write_bytes(data)
    mark(tmp_path / "meta", UNSYNCED)
    with pytest.raises(DatabaseError, match="cannot open"):
        rows(tmp_path / "meta")


def test_several_threads_may_write_without_a_sync(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=64 << 10, open_files=100)
    with ThreadPoolExecutor(4) as pool:
        made = [
            pool.submit(database.write, [(b"%d" % number, bytes(3000))], sync=number % 3 == 0) for number in range(400)
        ]
    assert [one.result() for one in made] == [None] * 400
    database.close()
    assert rows(tmp_path / "meta") == 400


def test_no_later_log_follows_one_that_is_torn(tmp_path: Path) -> None:
    path, writes = make(tmp_path / "meta", [600, 600, 600])
    later = path.with_name("999999.log")
    later.write_bytes(path.read_bytes())
    put(path, writes[:1], writes[1][1][:-100])
    mark(tmp_path / "meta", UNSYNCED)
    assert rows(tmp_path / "meta") == 1


def test_a_log_that_is_full_is_synced_before_writes_to_the_next_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LevelDB leaves it as it is, and a sync covers the next one alone. Each write is looked at once it returned."""
    synced, sync = set[str](), os.fsync

    def noted(file: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{file}").readlink()).removesuffix(" (deleted)"))
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=64 << 10, open_files=100)
    logs = set[str]()
    for number in range(400):
        database.write([(b"%06d" % number, random.Random(number).randbytes(2000))], sync=number % 50 == 49)
        logs |= {str(one) for one in (tmp_path / "meta").glob("*.log")}
        assert logs - {max(logs)} <= synced
    assert len(logs) > 5
    assert (tmp_path / "meta.unsynced").exists()
    database.close()
