"""How well a server or cluster is, decided from what is known of it."""

from __future__ import annotations

import pytest

from s4.base.health import AT_RISK, DEGRADED, DOWN, OK, Part, Shape, full, judge, storable, told

SHAPE = Shape(4, 2, 2, 3)
WHOLE = Part(6, 3)


@pytest.mark.parametrize(
    ("more", "part", "level", "word"),
    [
        ({}, WHOLE, OK, ""),
        ({}, Part(5, 3), OK, ""),  # who is away is said by name
        ({"away": ["drive 2 is away: it does not exist"]}, Part(5, 3), DEGRADED, "drive 2 is away"),
        ({"heals": 3}, WHOLE, DEGRADED, "3 shards wait"),
        ({"moves": 3}, WHOLE, DEGRADED, "on their way"),
        ({"alarms": ["drive 2 is slow"]}, WHOLE, DEGRADED, "is slow"),
        ({"full": ["drive 2 is full"]}, Part(6, 3, full=1), DEGRADED, "is full"),
        ({"full": ["drives 2 and 3 are full"]}, Part(6, 3, full=2), AT_RISK, "uploads are refused"),
        ({}, Part(6, 2), DEGRADED, "fewer copies"),
        ({}, Part(6, 1), AT_RISK, "writes are refused"),
        ({}, Part(4, 3), AT_RISK, "writes are refused"),
        ({}, Part(3, 3), DOWN, "cannot be read"),
        ({}, Part(6, 3, served=False), DOWN, "no primary"),
    ],
)
def test_what_is_known_makes_one_level(more: dict[str, list[str]], part: Part, level: str, word: str) -> None:
    found = judge(SHAPE, [WHOLE, part], **more)  # type: ignore[arg-type]
    assert found.level == level
    assert word in " ".join(found.reasons)
    assert bool(found.reasons) == (level != OK)
    assert found.text().splitlines()[0] == level


def test_the_gravest_reason_comes_first() -> None:
    found = judge(SHAPE, [Part(3, 2)], heals=1, away=["a is away"], alarms=["b is slow"])
    assert "cannot be read" in found.reasons[0]
    assert found.reasons[-1] == "b is slow"


def test_a_drive_is_full_at_its_reserve_and_silent_ones_are_not() -> None:
    assert full(100, 100, 1000)
    assert not full(101, 100, 1000)
    assert not full(0, 100, 0), "it does not say how much room it has"


def test_what_can_be_stored_ends_with_the_first_store_that_is_full() -> None:
    """Six drives of 4+2, each with a position of all 16 partitions: four shares of the fullest one."""
    assert storable(4, 16, [(1000, 16)] * 5 + [(100, 16)]) == 400
    assert storable(4, 16, [(1000, 16)] * 5 + [(-5, 16)]) == 0
    assert storable(4, 16, [(1000, 8)] * 12) == 8000, "who holds half as much is filled half as fast"
    assert storable(4, 16, [(10, 0), (1000, 16)]) == 4000, "who holds nothing is no bound"
    assert storable(1, 16, [(1000, 16)] * 3 + [(1000, 0)] * 3) == 1000, "in rows: each copy has all of it"
    assert storable(1, 16, [(1000, 8)] * 6) == 2000


def test_what_all_say_alike_is_said_once() -> None:
    said = [(f"node-{number}", ["the coordinator does not answer"]) for number in range(1, 7)]
    assert told([*said, ("node-2", ["its disk is slow"])]) == [
        "6 nodes: the coordinator does not answer",
        "node-2: its disk is slow",
    ]
