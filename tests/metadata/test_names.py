"""Names of accounts that differ in case are one: decided where rows are written, since two gateways may look at
once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from s4.metadata import accounts, keys
from s4.metadata.commands import ChangeAccounts, PutUser, Taken
from s4.metadata.entry import Entry, RefusalError
from s4.metadata.rows import Grant, Group, User, encode


class Rows:
    """What an entry has of the store: rows in a dictionary."""

    now_ms, epoch, sequence = 1, 1, 1

    def __init__(self, *users: str) -> None:
        self.rows = {keys.named_row(keys.USER, name): encode(User(name, 1)) for name in users}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key, value) for key, value in sorted(self.rows.items()) if key.startswith(prefix))

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)


def change(rows: Rows, *changes: tuple[bytes, bytes | None]) -> bool:
    answer: Any = accounts.change(cast(Entry, rows), ChangeAccounts([], list(changes)))
    assert isinstance(answer, Taken)
    return answer.granted


def row(name: str, kind: Any = User) -> tuple[bytes, bytes]:
    table = keys.USER if kind is User else keys.GROUP
    return keys.named_row(table, name), encode(kind(name, 2) if kind is User else kind(name, 2, "AGPA"))


def test_the_second_of_two_at_once_is_not_made() -> None:
    rows = Rows("ana")
    assert not change(rows, row("Ana"))
    assert change(rows, row("ben")) and not change(rows, row("BEN"))
    assert change(rows, row("ana", Group)), "a group is another kind"
    with pytest.raises(RefusalError, match="exists"):
        accounts.put_user(cast(Entry, rows), PutUser("ANA", [Grant("Reader")], True, True))


def test_a_name_may_change_its_case() -> None:
    rows = Rows("ana")
    assert change(rows, (keys.named_row(keys.USER, "ana"), None), row("Ana"))


def test_pairs_of_before_stay_usable() -> None:
    rows = Rows("ana", "Ana")
    assert change(rows, row("ana")) and change(rows, row("Ana"))
    accounts.put_user(cast(Entry, rows), PutUser("Ana", [Grant("Reader")], True, False))
