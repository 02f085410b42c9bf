"""The erasure code, against the definition of what it is for: any k of k+m shards give the bytes back, range by
range."""

from __future__ import annotations

import itertools
import os
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from s4.erasure import isal
from s4.erasure.codec import MAX_SHARDS, Codec, ErasureError, codec, default_geometry, parse_geometry, shard_length

GEOMETRIES = [(k, m) for k in range(1, MAX_SHARDS + 1) for m in range(min(MAX_SHARDS - k, 4) + 1)]


@pytest.mark.parametrize(("k", "m"), GEOMETRIES)
def test_every_loss_up_to_m_is_made_good(k: int, m: int) -> None:
    """All choices where they are few, else a sample; sizes that divide evenly and ones that do not."""
    pick = random.Random(k * 100 + m)
    for size in (1, k, 4097, 65_536 * k + 13):
        data = os.urandom(size)
        shards = codec(k, m).encode(data)
        assert len(shards) == k + m
        assert {len(shard) for shard in shards} == {shard_length(size, k)}
        assert b"".join(map(bytes, shards[:k]))[:size] == data
        losses = list(itertools.combinations(range(k + m), m))
        for lost in pick.sample(losses, min(len(losses), 12)) if m else []:
            left = {index: shard for index, shard in enumerate(shards) if index not in lost}
            made = codec(k, m).reconstruct(left, lost)
            assert all(bytes(made[index]) == bytes(shards[index]) for index in lost)


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(("k", "m"), GEOMETRIES)
def test_what_is_encoded_in_place_is_the_same(k: int, m: int, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ISA-L itself, which pyeclib brings, and where that is not found; in memory that was used before."""
    if not found:
        monkeypatch.setattr(isal, "_path", lambda: "/nowhere/libisal.so")
    coder, stripe = Codec(k, m), 65_536 * k
    assert (coder._isal is not None) == (found and k > 1 and m > 0)
    memory = memoryview(bytearray(b"\xff" * coder.memory_bytes(stripe)))
    for size in (stripe, 1, k, 4097, stripe - 1):
        data = os.urandom(min(size, stripe))
        memory[: len(data)] = data
        made = coder.encode_in(memory, len(data), stripe)
        assert [bytes(shard) for shard in made] == [bytes(shard) for shard in coder.encode(data)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([(2, 1), (4, 2), (5, 3), (12, 4), (1, 2)]), st.binary(min_size=1, max_size=3000), st.data())
def test_a_range_is_made_from_the_same_range_of_others(
    geometry: tuple[int, int], data: bytes, draw: st.DataObject
) -> None:
    k, m = geometry
    shards = codec(k, m).encode(data)
    length = shard_length(len(data), k)
    start = draw.draw(st.integers(0, length - 1))
    stop = draw.draw(st.integers(start + 1, length))
    lost = draw.draw(st.integers(0, k + m - 1))
    left = {index: bytes(shard)[start:stop] for index, shard in enumerate(shards) if index != lost}
    assert bytes(codec(k, m).reconstruct(left, [lost])[lost]) == bytes(shards[lost])[start:stop]


def test_what_cannot_be_made_is_refused() -> None:
    shards = codec(4, 2).encode(os.urandom(1000))
    with pytest.raises(ErasureError, match="3 shards are left of which 4 are needed"):
        codec(4, 2).reconstruct(dict(enumerate(shards[:3])), [5])
    with pytest.raises(ErasureError, match="differ in length"):
        codec(4, 2).reconstruct({0: b"a", 1: b"ab", 2: b"a", 3: b"a"}, [5])
    for k, m in ((0, 1), (4, -1), (14, 3)):
        with pytest.raises(ErasureError, match="no geometry"):
            Codec(k, m)


def test_geometries_by_default_and_in_words() -> None:
    assert [default_geometry(drives) for drives in (1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 16, 30)] == [
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 2),
        (4, 2),
        (6, 2),
        (6, 3),
        (9, 3),
        (9, 4),
        (12, 4),
        (12, 4),
    ]
    assert parse_geometry("4+2") == (4, 2)
    for wrong in ("4", "4+", "+2", "0+2", "15+2", "a+b", "-4+2"):
        with pytest.raises(ValueError, match="is no erasure code; write K"):
            parse_geometry(wrong)
