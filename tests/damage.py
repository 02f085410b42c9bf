"""Damage to the files of a drive, done from outside as a disk or a careless hand would."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s4.storage.files import Files
from s4.storage.records import HEADER_SIZE, Record, unpack_volume
from s4.storage.volumes import Volumes


@dataclass(frozen=True)
class Place:
    """A record in a volume of a drive."""

    path: Path
    offset: int
    record: Record

    @property
    def data_at(self) -> int:
        return self.offset + self.record.front

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.record.size)

    def write(self, raw: bytes, at: int | None = None) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.offset if at is None else at)
            file.write(raw)

    def hurt_end(self) -> None:
        """Its last byte becomes another."""
        end = self.data_at + self.record.length - 1
        self.write(bytes([self.read()[end - self.offset] ^ 1]), end)

    def flip(self, chosen: random.Random) -> None:
        """One bit of the data, or of the table before it."""
        at = chosen.randrange(self.data_at - self.record.table_bytes, self.data_at + self.record.length)
        with self.path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << chosen.randrange(8))]))


def places(drive: Path) -> Iterator[Place]:
    """Every record in the volumes of a drive, dead ones too."""
    for path in sorted((drive / "volumes").glob("*.vol")):
        header = unpack_volume(path.read_bytes()[:HEADER_SIZE])
        volumes = Volumes(Files(), drive / "volumes", header.store, 4)
        volume = volumes.acquire(header.number)
        for offset, record, _ in volumes.headers(volume, 0):
            yield Place(path, offset, record)
        volumes.release(volume)
        volumes.close()


def flip(drive: Path, chosen: random.Random, share: float = 0.5) -> int:
    """Flip bits in some records; returns how many."""
    picked = [place for place in places(drive) if chosen.random() < share]
    for place in picked:
        place.flip(chosen)
    return len(picked)


def wipe_headers(drive: Path, chosen: random.Random, share: float = 0.5) -> int:
    picked = [place for place in places(drive) if chosen.random() < share]
    for place in picked:
        place.write(bytes(place.record.front))
    return len(picked)


def truncate(drive: Path, _: random.Random) -> int:
    """Cut every volume to half."""
    paths = list((drive / "volumes").glob("*.vol"))
    for path in paths:
        os.truncate(path, path.stat().st_size // 2)
    return len(paths)


def delete(drive: Path, _: random.Random) -> int:
    paths = list((drive / "volumes").glob("*.vol"))
    for path in paths:
        path.unlink()
    return len(paths)


def misplace(drive: Path, _: random.Random) -> int:
    """Put each record's bytes where another record of the same size was."""
    by_size: dict[int, list[Place]] = {}
    for place in places(drive):
        by_size.setdefault(place.record.size, []).append(place)
    moved = 0
    for group in by_size.values():
        raws = [place.read() for place in group]
        for place, raw in zip(group, raws[1:] + raws[:1], strict=True):
            if len(group) > 1:
                place.write(raw)
                moved += 1
    return moved


def swap(one: Path, other: Path) -> int:
    """Exchange the volumes of two drives, file for file."""
    mine = {path.name: path.read_bytes() for path in (one / "volumes").glob("*.vol")}
    theirs = {path.name: path.read_bytes() for path in (other / "volumes").glob("*.vol")}
    for target, files in ((one, theirs), (other, mine)):
        for name, raw in files.items():
            (target / "volumes" / name).write_bytes(raw)
    return len(mine) + len(theirs)
