"""The layout of encrypted bytes against its own definition: any range, nothing moved, nothing cut off, no nonce
twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4.crypto import segments
from s4.crypto.segments import SEGMENT, TAG, InvalidTag, Opener, Sealer, stored_size
from s4.metadata.rows import Extent

KEY, SEAL = bytes(range(32)), bytes(range(16))
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([n * SEGMENT + d for n in (1, 2, 3) for d in (-1, 0, 1, 77)]))


def content(size: int) -> bytes:
    return (b"%d," % size * (size // 2 + 1))[:size]


def sealed(data: bytes, cuts: list[int] = [], key: bytes = KEY, seal: bytes = SEAL) -> bytes:  # noqa: B006 - read only
    sealer, out, at = Sealer(key, seal), [], 0
    for cut in [*sorted(cuts), len(data)]:
        out += sealer.feed([data[at:cut], memoryview(b"")])
        at = max(at, cut)
    whole = b"".join([*out, sealer.finish()])
    assert (sealer.size, len(whole)) == (len(whole), stored_size(Extent(0, len(data), seal=seal)))
    return whole


def opened(stored: bytes, size: int, key: bytes = KEY, seal: bytes = SEAL) -> bytearray:
    return Opener(key, Extent(0, size, seal=seal)).open(0, stored)


@given(SIZES, st.lists(st.integers(0, 4 * SEGMENT), max_size=5), st.data())
def test_any_range_of_any_size_however_it_came(size: int, cuts: list[int], more: st.DataObject) -> None:
    data = content(size)
    stored = sealed(data, [cut for cut in cuts if cut <= size])
    assert opened(stored, size) == data
    if size:
        offset = more.draw(st.integers(0, size - 1))
        length = more.draw(st.integers(1, size - offset))
        opener = Opener(KEY, Extent(0, size, seal=SEAL))
        start, span = opener.span(offset, length)
        assert start + span <= len(stored)
        assert span <= (length // SEGMENT + 2) * (SEGMENT + TAG), "no more is read than the segments it touches"
        plain = opener.open(offset // SEGMENT, stored[start : start + span])
        assert plain[offset % SEGMENT :][:length] == data[offset : offset + length]


@given(SIZES, st.data())
def test_one_bit_is_enough(size: int, more: st.DataObject) -> None:
    stored = bytearray(sealed(content(size)))
    at = more.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= 1 << more.draw(st.integers(0, 7))
    with pytest.raises(InvalidTag):
        opened(bytes(stored), size)


def test_segments_are_bound_to_their_place() -> None:
    size = 3 * SEGMENT
    stored, step = sealed(content(size)), SEGMENT + TAG
    pieces = [stored[at : at + step] for at in range(0, len(stored), step)]
    for wrong in ([1, 0, 2], [0, 0, 2], [0, 2, 1], [0, 2, 2]):
        with pytest.raises(InvalidTag):
            opened(b"".join(pieces[one] for one in wrong), size)
    for fewer in (1, 2):  # cut off, by who changes the row's size too
        with pytest.raises(InvalidTag):
            opened(b"".join(pieces[:fewer]), fewer * SEGMENT)
    for left in (1, TAG - 1, TAG, step - 1):
        with pytest.raises(InvalidTag):
            opened(stored[: 2 * step + left], size)
    with pytest.raises(InvalidTag):  # gone on with
        opened(stored + sealed(b"more"), size + 4)
    for key, seal in ((KEY[::-1], SEAL), (KEY, SEAL[::-1])):
        with pytest.raises(InvalidTag):
            opened(stored, size, key, seal)


def test_no_nonce_comes_twice_under_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []
    real = segments.AESGCM

    class Noting:
        def __init__(self, key: bytes) -> None:
            self._key, self._real = key, real(key)

        def encrypt_into(self, nonce: bytes, data: Any, about: Any, into: Any) -> int:
            used.append((self._key, nonce))
            return self._real.encrypt_into(nonce, data, about, into)

    monkeypatch.setattr(segments, "AESGCM", Noting)
    for seal in (bytes([number]) * 16 for number in range(5)):
        for size in (0, 1, SEGMENT, 5 * SEGMENT + 1):
            sealed(content(size), seal=bytes([size % 251]) + seal[1:])
    assert len(used) == len(set(used)) > 40
