"""Rows of partitions of which a store has no copy any more go a piece at a time, and no others do."""

from __future__ import annotations

from pathlib import Path

from s4.cluster.messages import LOST, State
from s4.replica.leftover import LeftOver
from s4.replica.pieces import PIECE
from s4.storage.leveldb import Database


def rows_of(database: Database, partition: int) -> int:
    return sum(1 for _ in database.scan(partition.to_bytes(2, "big"), (partition + 1).to_bytes(2, "big")))


def test_they_go_a_piece_at_a_time_and_nothing_else_does(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=100)
    try:
        names = [partition.to_bytes(2, "big") + b"o%06d" % at for partition in range(4) for at in range(PIECE * 2 + 3)]
        database.write([(name, b"v") for name in names])
        states = [State(3, 9), State(3, 0, joining=LOST), State(3, 0, joining=LOST), State(3, 9, joining=LOST)]
        left = LeftOver(database, states.__getitem__, range(4))
        first = left.piece()
        assert list(first) == names[PIECE * 2 + 3 : PIECE * 3 + 3]
        database.write(first.items())
        left = LeftOver(database, states.__getitem__, range(4))  # after a crash
        states[2] = State(3, 0)  # it was filled by its log: what is there is alive
        while left:
            database.write(left.piece().items())
        assert [rows_of(database, one) for one in range(4)] == [PIECE * 2 + 3, 0, PIECE * 2 + 3, PIECE * 2 + 3]
        states[1:] = [State(3, 0, joining=LOST)] * 3
        for one in (2, 3):
            left.add(one)
        while 3 in left:
            piece = left.piece([3])
            assert len(piece) <= PIECE
            assert 3 not in left or all(name[:2] == b"\x00\x03" for name in piece), "it is waited for"
            database.write(piece.items())
        assert [rows_of(database, one) for one in range(4)] == [PIECE * 2 + 3, 0, PIECE + 3, 0]
    finally:
        database.close()
