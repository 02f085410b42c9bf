"""Which keys are a cluster's: another master key or root key is told from the right one, and a change is no
lock-out."""

from __future__ import annotations

import pytest

from s4.metadata.keymarks import KeyMarks, kept_root, marked, wrong
from s4.metadata.rows import encode

OLD, NEW = ("S4OLD", "the old secret"), ("S4NEW", "the new secret")


@pytest.mark.parametrize(
    ("masters", "root", "word"),
    [
        (["aa"], OLD, ""),
        (["aa", "bb"], OLD, ""),
        (["aa"], None, ""),  # a gateway need not have the root keys
        (["bb"], OLD, "the master key is not this cluster's"),
        ([], OLD, "this process has none"),
        (["aa"], NEW, "the root keys are not this cluster's"),
        (["aa"], (OLD[0], "another secret"), "the root keys are not this cluster's"),
    ],
)
def test_a_process_with_other_keys_is_told(masters: list[str], root: tuple[str, str] | None, word: str) -> None:
    found = wrong(KeyMarks("aa", [marked(*OLD)]), masters, root)
    assert word in found
    assert bool(found) == bool(word)


def test_while_root_keys_are_changed_both_pairs_count() -> None:
    marks = KeyMarks("aa", [marked(*OLD, "sealed old"), marked(*NEW, "sealed new")])
    assert not wrong(marks, ["aa"], OLD)
    assert not wrong(marks, ["aa"], NEW)
    assert kept_root(encode(marks), NEW[0]) == "sealed new", (
        "a process that was started with the old pair knows the new one"
    )
    assert kept_root(encode(marks), "S4OTHER") is None
    assert kept_root(None, NEW[0]) is None
    after = KeyMarks("aa", [marked(*NEW)])
    assert wrong(after, ["aa"], OLD)
    assert kept_root(encode(after), OLD[0]) is None


def test_without_a_master_key_nothing_is_said_of_one() -> None:
    assert not wrong(KeyMarks("", []), ["aa"], OLD)
