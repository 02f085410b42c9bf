"""When rows of a cluster may have content: never before every store that the map names keeps older programs out, and no
process that is connected to any of them is such a program."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4.cluster.placement import GONE
from s4.metadata.small import ABLE, OLDEST, READY, UNABLE, VERSION
from s4.storage.directory import format_directory, identity_of, keeps_out
from s4.storage.files import Files
from s4.upkeep.small import SmallRows

TOLD = 16 * 1024


class Cluster:
    """Nodes by name, of which one may be of 0.7, away, or not told; and what each is called by."""

    def __init__(self, root: Path, names: str) -> None:
        self.root, self.map = root, SimpleNamespace(stores=dict[str, Any]())
        self.old, self.away, self.full = set[str](), set[str](), set[str]()
        self.nodes: dict[str, SmallRows] = {}
        self.called_by: dict[str, int] = {}
        self.least: dict[str, int] = {}
        for name in names:
            self.add(name)

    def add(self, name: str, told: int = TOLD) -> SimpleNamespace:
        directory = self.root / name
        if not directory.exists():
            directory.mkdir()
            format_directory(Files(), directory, "c" * 32, 4)
        shards = SimpleNamespace(directory=directory, files=Files())
        member = SimpleNamespace(
            node=SimpleNamespace(shards=shards, small=None),
            peers=SimpleNamespace(spoken=lambda: self.called_by.get(name, VERSION)),
            only=lambda least: self.least.__setitem__(name, least),
        )
        gateway = SimpleNamespace(small_bytes=0)
        self.map.stores[name] = SimpleNamespace(state="serving")
        self.nodes[name] = SmallRows(gateway, self, member, told)  # type: ignore[arg-type]
        return gateway

    async def censuses(self) -> dict[str, Any]:
        return {
            name: None
            if name in self.away
            else SimpleNamespace(
                small=UNABLE if name in self.old else self.nodes[name].state(),
                free_bytes=100 if name in self.full else 101,
                reserve_bytes=100,
            )
            for name, one in self.map.stores.items()
            if one.state != GONE
        }

    def look(self, rounds: int = 1) -> list[int]:
        """What each node's gateway makes after so many looks of all: of today's, in their order."""
        for _ in range(rounds):
            for name, node in self.nodes.items():
                if name not in self.old | self.away:
                    asyncio.run(node.look())
        return [one._gateway.small_bytes for name, one in self.nodes.items() if name not in self.old | self.away]

    def marked(self) -> list[str]:
        return [name for name in self.nodes if keeps_out(self.root / name, OLDEST)]


def test_it_is_on_once_all_stores_keep_older_programs_out(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "abc")
    assert cluster.look(3) == [TOLD] * 3
    assert cluster.marked() == list("abc")
    assert cluster.least == dict.fromkeys("abc", VERSION)
    assert all(identity_of(tmp_path / name).format == 2 for name in "abc")  # type: ignore[union-attr]


def test_while_one_node_is_of_0_7_nobody_is_marked_and_nothing_is_made(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "abc")
    cluster.old.add("b")
    assert cluster.look(5) == [0, 0]
    assert cluster.marked() == []
    assert cluster.least == {}
    cluster.old.clear()
    assert cluster.look(3) == [TOLD] * 3


def test_a_gateway_of_0_7_on_any_node_holds_it_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "abc")
    cluster.called_by["c"] = 1
    assert cluster.look(5) == [0, 0, 0]
    assert cluster.marked() == []
    del cluster.called_by["c"]
    assert cluster.look(3) == [TOLD] * 3


def test_a_node_that_was_not_told_or_is_away_holds_it_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "ab")
    cluster.add("c", told=0)
    assert cluster.look(5) == [0, 0, 0]
    cluster.add("c")
    cluster.away.add("c")
    assert cluster.look(5) == [0, 0]
    assert cluster.marked() == []


def test_no_gateway_makes_such_rows_before_the_last_store_is_marked(tmp_path: Path) -> None:
    """Whatever the order of looks: each gateway that makes them has heard of every mark."""
    for order in ("abc", "cab", "bca"):
        cluster = Cluster(tmp_path / order if (tmp_path / order).mkdir() is None else tmp_path, "abc")
        for name in (order * 4)[:10]:
            asyncio.run(cluster.nodes[name].look())
            if any(one._gateway.small_bytes for one in cluster.nodes.values()):
                assert cluster.marked() == list("abc")


def test_it_goes_on_while_a_node_is_away_and_waits_for_one_that_is_new(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "abc")
    cluster.look(3)
    cluster.away.add("c")
    assert cluster.look(2) == [TOLD] * 2, "its mark is on its disk"
    cluster.add("d")
    cluster.old.add("d")
    assert cluster.look(2) == [0, 0], "a store of 0.7 is given no such rows"
    cluster.map.stores["d"].state = GONE
    assert cluster.look(1) == [TOLD] * 2


def test_while_any_store_has_less_than_its_reserve_content_goes_into_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go to every copy, whatever is left there (D5); a full store leaves shards to others."""
    monkeypatch.setattr("s4.upkeep.small.ROOM_S", -1.0)
    cluster = Cluster(tmp_path, "abc")
    assert cluster.look(3) == [TOLD] * 3
    cluster.full.add("b")
    assert cluster.look(1) == [0] * 3
    cluster.away.add("b")
    assert cluster.look(1) == [0] * 2, "who does not answer is as it was"
    cluster.away.clear()
    cluster.full.clear()
    assert cluster.look(1) == [TOLD] * 3


def test_a_mark_stays_after_a_restart_and_when_the_setting_is_taken_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "abc")
    cluster.look(3)
    cluster.add("a", told=0)
    assert cluster.nodes["a"].state() == READY
    assert cluster.look(1) == [0, TOLD, TOLD]


def test_a_store_that_joins_where_such_rows_may_be_is_marked_whatever_its_node_was_told(tmp_path: Path) -> None:
    """It is given copies of the rows that others made; unmarked, 0.7 would open it."""
    cluster = Cluster(tmp_path, "abc")
    cluster.look(3)
    cluster.add("d", told=0)
    cluster.called_by["d"] = 1  # by a gateway of 0.7
    cluster.look(2)
    assert cluster.marked() == list("abc")
    del cluster.called_by["d"]
    assert cluster.look(3) == [TOLD] * 3 + [0]
    assert cluster.marked() == list("abcd")


def test_a_disk_that_takes_no_mark_holds_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, "abc")
    replace = Files.replace

    def full(self: Files, path: Path, content: bytes) -> None:
        if path.parent.name == "b":
            raise OSError(28, "no space left")
        replace(self, path, content)

    monkeypatch.setattr(Files, "replace", full)
    assert cluster.look(4) == [0, 0, 0]
    assert cluster.nodes["b"].state() == ABLE
    monkeypatch.undo()
    assert cluster.look(2) == [TOLD] * 3
