"""What a member decides by the map (D2, D3), and pages and commands as gateways put them together (L1, R12)."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.test_map import made
from metadata.cursors import SortedCursor
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import GONE
from s4.metadata import commands, keys
from s4.metadata.commands import Healed, NewBlob, PutObject, Refused, Settings, Taken
from s4.metadata.entry import Entry, Overlay
from s4.metadata.listing import Page, Query, Version, list_page
from s4.metadata.rows import Extent, Object, Summary, encode_object
from s4.node.member import MapView, adjusted
from s4.peer.pages import merged_objects
from s4.replica.layer import Layer
from s4.replica.turn import Decider, Turn

SETTINGS = Settings(7, 1, "")
BLOB = bytes(16)
ID, OTHER = keys.command_id(1_000_000, b"id"), keys.command_id(1_000_000, b"other")


def moving(one: ClusterMap, position: int) -> tuple[ClusterMap, str]:
    """The map while a new store is filled for a position of partition 0, and that store."""
    part = one.partitions[0]
    wanted = tuple("new" if at == position else store for at, store in enumerate(part.wanted))
    changed = replace(part, wanted=wanted, config=replace(part.config, joining="new", position=position))
    stores = {**one.stores, "new": next(iter(one.stores.values()))}
    return replace(one, stores=stores, partitions=(changed, *one.partitions[1:])), part.wanted[position]


def put(stores: list[str], missing: list[int] | None = None) -> PutObject:
    new = NewBlob(BLOB, b"r" * 16, 5000, 1 << 20, 4, 2, bytes(32), missing or [], stores)
    return PutObject(SETTINGS, b"k", Object(1, 5000, "e", False, True, "root"), blobs=[new])


def test_a_shard_on_a_store_that_does_not_hold_its_position_is_missing() -> None:
    one = made()
    members = list(one.partitions[0].config.members)
    assert adjusted(one, 0, put(members)).blobs[0].missing == []
    assert adjusted(one, 0, put([members[1], members[0], *members[2:]])).blobs[0].missing == [0, 1]
    assert adjusted(one, 0, put(["", *members[1:]], [0])).blobs[0].missing == [0]


def test_once_a_store_is_being_filled_new_shards_must_be_on_it() -> None:
    """D3: a gateway with an old map writes to the old store behind the walk of the one that is filled; a heal row
    follows."""
    one, old = moving(made(), 2)
    members = list(one.partitions[0].config.members)
    assert members[2] == old
    assert adjusted(one, 0, put(members)).blobs[0].missing == [2]
    assert adjusted(one, 0, put([*members[:2], "new", *members[3:]])).blobs[0].missing == []


def test_a_shard_that_was_healed_on_the_old_store_is_healed_again_on_the_new_one() -> None:
    one, old = moving(made(), 2)
    assert adjusted(one, 0, Healed(BLOB, [2], [old])).positions == []
    assert adjusted(one, 0, Healed(BLOB, [2], ["new"])).positions == [2]


def test_a_shard_on_a_store_that_is_gone_is_missing() -> None:
    """M1, found by a simulator (`sim/shards.py`, seed 131): a store's disk is replaced between a shard and its commit.
    The map says so at once, and names another for the position only later."""
    one = made()
    members = list(one.partitions[0].config.members)
    lost = replace(one, stores={**one.stores, members[1]: replace(one.stores[members[1]], state=GONE)})
    assert adjusted(lost, 0, put(members)).blobs[0].missing == [1]
    assert adjusted(lost, 0, Healed(BLOB, [1], [members[1]])).positions == []


def test_where_nobody_holds_a_position_nothing_counts_for_it() -> None:
    one = made()
    part = one.partitions[0]
    lost = replace(
        one,
        partitions=(
            replace(part, config=replace(part.config, members=("", *part.config.members[1:]))),
            *one.partitions[1:],
        ),
    )
    assert adjusted(lost, 0, put(["", *part.config.members[1:]])).blobs[0].missing == [0]


def test_what_has_too_few_shards_when_it_is_decided_is_refused() -> None:
    """Two stores changed places while an object was written with one shard missing: three good ones are no object
    (D1)."""
    one = made()
    members = list(one.partitions[0].config.members)
    decide, turn = decider()
    swapped = adjusted(one, 0, put([members[1], members[0], *members[2:5], ""], [5]))
    assert decide.answer(turn, 0, swapped, ID) == Refused(
        "ServiceUnavailable", "Too few stores hold this object's shards. Try again."
    )
    fewer = adjusted(one, 0, put([*members[:5], ""], [5]))
    assert isinstance(decide.answer(turn, 0, fewer, OTHER), commands.Written)


def test_a_strict_cluster_has_every_shard_when_it_is_decided() -> None:
    """D1: a store lost its position to another while an object was written, of which the gateway had all shards."""
    one, _ = moving(made(), 2)
    members = list(one.partitions[0].config.members)
    decide, turn = decider()
    answer = decide.answer(turn, 0, adjusted(one, 0, put(members), strict=True), ID)
    assert answer == Refused("ServiceUnavailable", "Too few stores hold this object's shards. Try again.")
    whole = adjusted(one, 0, put([*members[:2], "new", *members[3:]]), strict=True)
    assert isinstance(decide.answer(turn, 0, whole, OTHER), commands.Written)


# -- commands that come twice


class Empty:
    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
        return []


def decider() -> tuple[Decider, Turn]:
    def newest(entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        return next(entry.scan(keys.object_versions(entry.partition, bucket, key)), None)

    return Decider(8, newest, lambda: 1000.0), Turn(Overlay(Empty()), {0: 3}, {0: 0})


def test_a_command_that_comes_twice_gets_its_first_answer() -> None:
    one, turn = decider()
    command = PutObject(
        SETTINGS, b"k", Object(1, 0, "e", False, True, "root"), conditions=commands.Conditions(if_none_match="*")
    )
    first = one.answer(turn, 0, command, ID)
    assert one.answer(turn, 0, command, ID, again=True) == first
    assert one.answer(turn, 0, command, OTHER) == Refused(
        "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
    )


def test_a_refusal_of_a_command_that_was_sent_before_is_kept() -> None:
    """R12: else the first sending, late on another connection, takes effect after the client was told no."""
    one, turn = decider()
    command = PutObject(
        SETTINGS, b"k", Object(1, 0, "e", False, True, "root"), conditions=commands.Conditions(if_match="x")
    )
    refused = one.answer(turn, 0, command, ID, again=True)
    assert isinstance(refused, Refused)
    row = encode_object(Object(1, 0, "x", False, True, "root", extents=[Extent(0, 0)]))
    turn.overlay.merge({keys.object_row(0, 7, b"k", 3, 99): row})
    assert one.answer(turn, 0, command, ID) == refused


def test_what_is_harmless_twice_leaves_no_answer() -> None:
    one, turn = decider()
    assert one.answer(turn, 0, commands.RefuseBlob(BLOB), ID, again=True) == Taken(False)
    assert not [key for key in turn.overlay.rows if key[2:3] == keys.ANSWER]


# -- rows over a database


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60), st.integers(0, 60))
def test_a_layer_shows_the_newest_rows_until_they_are_in_the_source(
    changes: list[tuple[int, bool]], dropped: int
) -> None:
    class Source(dict[bytes, bytes]):
        def scan(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
            return sorted((key, value) for key, value in self.items() if start <= key < stop)

    source, wanted = Source(), dict[bytes, bytes]()
    layer = Layer(source)
    for number, (name, kept) in enumerate(changes):
        key, value = bytes([name]), b"%d" % number if kept else None
        layer.add([(key, value)], number)
        for at in (wanted, source if number <= dropped else wanted):
            if value is None:
                at.pop(key, None)
            else:
                at[key] = value
        if number == dropped:
            layer.drop(number)
    assert list(layer.scan(b"", b"\xff")) == sorted(wanted.items())
    assert all(layer.get(bytes([name])) == wanted.get(bytes([name])) for name in range(10))


# -- pages of several primaries


def page_of(rows: list[list[tuple[bytes, bytes]]], query: Query) -> Page:
    return next(page for page in list_page([SortedCursor(part) for part in rows], query) if page is not None)


@given(
    st.sets(st.text("ab/\x00", min_size=1, max_size=6), max_size=30),
    st.integers(1, 8),
    st.sampled_from([b"", b"/", b"a"]),
    st.sampled_from([b"", b"a", b"a/"]),
    st.integers(0, 2**32),
)
@pytest.mark.parametrize("versions", [False, True])
def test_merged_pages_are_what_one_store_would_list(
    versions: bool, names: set[str], limit: int, delimiter: bytes, prefix: bytes, seed: int
) -> None:
    chosen, parts = random.Random(seed), [[], [], []]  # type: tuple[random.Random, list[list[tuple[bytes, bytes]]]]
    for name in names:
        part = chosen.choice(parts)
        for sequence in range(chosen.randint(1, 2)):
            row = Object(1, 1, "e", chosen.random() < 0.2, False, "root")
            part.append(
                (keys.escape(name.encode()) + b"\x00\x01" + keys.version_suffix(1, sequence), encode_object(row))
            )
    query = Query(prefix, delimiter, b"", b"", limit, versions)
    whole = page_of([[row for part in parts for row in part]], query)
    merged = merged_objects([page_of([part], query) for part in parts], limit)
    assert [shown(item) for item in merged.items] == [shown(item) for item in whole.items]
    assert (merged.truncated, merged.next_key if merged.truncated else b"") == (
        whole.truncated,
        whole.next_key if whole.truncated else b"",
    )


def shown(item: Version | bytes) -> tuple[bytes, bytes, Summary | None, bool]:
    return (item, b"", None, False) if isinstance(item, bytes) else (item.key, item.suffix, item.row, item.latest)


def test_a_partition_with_a_store_that_is_gone_and_still_answers_is_not_whole() -> None:
    """C4: nobody is given a reference to a blob with a shard that counts no more."""
    one = made()
    view = MapView(SimpleNamespace(current=one), lambda _: True)  # type: ignore[arg-type]
    assert view.is_whole(0)
    member = one.partitions[0].config.members[1]
    stores = {**one.stores, member: replace(one.stores[member], state=GONE)}
    view = MapView(SimpleNamespace(current=replace(one, stores=stores)), lambda _: True)  # type: ignore[arg-type]
    assert not view.is_whole(0)
