"""Tables that may be long are walked a piece at a time: no step between two turns of the loop grows with them."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from s4.replica.pieces import PIECE, count, pieces

DAEMON = Path(__file__).parents[2] / "daemon" / "s4"
# Walks that are bounded by something else, or not in the loop that serves: (module, function) -> why.
BOUNDED = {
    ("node/base.py", "start"): "before anybody is served",
    ("node/local.py", "sealed_things"): "before anybody is served",
    ("node/base.py", "stats"): "buckets: as many as the limit named buckets",
    ("node/accounts.py", "list_jobs"): "renames of prefixes, each started by a person",
    ("node/rows.py", "counters"): "a row for each bucket with objects here",
    ("upkeep/heal.py", "waiting"): "a generator; islice is on it",
    ("upkeep/verify.py", "*"): "a snapshot's rows, with sleeps",
    ("storage/shards.py", "*"): "the index, for one blob",
    ("storage/index.py", "_loaded"): "a row for each volume, before anybody is served",
    ("replica/keptrows.py", "*"): "the log, at the start",
    ("replica/snapshot.py", "_rows"): "sends each part before it reads the next",
    ("replica/copies.py", "_next_rows"): "ends at JOIN_ROWS or JOIN_BYTES",
    ("upkeep/repair.py", "_differences"): "sleeps itself, over a snapshot",
    ("replica/host.py", "scan"): "is the walk",
    ("replica/replicated.py", "scan"): "is the walk",
}
BOUNDING = {"islice", "next", "pieces"}


class Rows:
    """A host of many rows that notes the most that were read between two turns of the loop."""

    def __init__(self, number: int) -> None:
        self.rows = [(b"t%06d" % at, b"v") for at in range(number)]
        self.read = self.most = 0

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for row in self.rows:
            if row[0].startswith(prefix) and row[0] >= start:
                self.read += 1
                self.most = max(self.most, self.read)
                yield row

    async def turns(self) -> None:
        while True:
            self.read = 0
            await asyncio.sleep(0)


@pytest.mark.parametrize("number", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3])
def test_a_walk_reads_every_row_and_a_piece_at_a_time(number: int) -> None:
    async def test() -> None:
        host = Rows(number)
        turns = asyncio.create_task(host.turns())
        assert [row async for row in pieces(host, b"t")] == host.rows
        assert await count(host, b"t") == number
        assert host.most <= PIECE
        turns.cancel()

    asyncio.run(test())


def test_rows_that_come_and_go_between_two_pieces_do_no_harm() -> None:
    async def test() -> None:
        host, seen = Rows(3 * PIECE), []
        async for key, _ in pieces(host, b"t"):
            seen.append(key)
            if len(seen) == PIECE:
                del host.rows[PIECE - 10 : PIECE + 10]
                host.rows.append((b"t999999", b"v"))
        assert seen == sorted(set(seen))
        assert len(seen) == 3 * PIECE - 10 + 1

    asyncio.run(test())


def walks(path: Path) -> Iterator[tuple[str, int]]:
    """(function, line) of each `.scan(` that nothing around it bounds. In metadata/ the decisions of a turn are
    counted by rows (test_letting.py)."""
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "scan"):
            continue
        at: ast.AST = node
        while not isinstance(at, ast.FunctionDef | ast.AsyncFunctionDef):
            at = parents[at]
            if isinstance(at, ast.Call) and isinstance(at.func, ast.Name) and at.func.id in BOUNDING:
                break
        else:
            yield at.name, node.lineno


def test_nobody_walks_a_table_in_one_piece() -> None:
    found = {
        (str(path.relative_to(DAEMON)), name): line
        for path in sorted(DAEMON.rglob("*.py"))
        if "metadata" not in path.parts and path.name != "pieces.py"
        for name, line in walks(path)
    }
    assert {known for known in BOUNDED if not any(known == one or known == (one[0], "*") for one in found)} == set(), (
        "nobody needs these"
    )
    assert {
        f"{path}:{line} {name}"
        for (path, name), line in found.items()
        if (path, name) not in BOUNDED and (path, "*") not in BOUNDED
    } == set()
