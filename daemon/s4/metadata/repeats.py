"""Commands that come twice (rule R12): until when they are known again.

A command is remembered by its id: id and answer are a row of its own entry, and a repeat is told that answer. Only
what has a reason for it in the table of commands (decide.py) may be decided anew. Ids begin with the time at which
they were made, so that old answers stand together; they are forgotten up to a time that is a row too, in the same
entry, and a command whose id is older than that is never decided: whether it was before, nobody knows any more. So no
clock can make a repeat look new; clocks only say when it is time to forget.
"""

from __future__ import annotations

from itertools import islice

from s4.metadata import commands, keys
from s4.metadata.entry import Entry
from s4.metadata.rows import Forgotten, decode, encode

KEPT_MS = 900_000  # answers, by the time of their ids: much longer than a router repeats (peer/router.py)
FORGOTTEN_AT_ONCE = 256


def forgotten_ms(value: bytes | None) -> int:
    """Of a partition's `forgotten` row: commands with older ids are not known any more."""
    return decode(Forgotten, value).before_ms if value is not None else 0


def forget_answers(entry: Entry, command: commands.ForgetAnswers) -> commands.Taken:
    """By a clock that is that of the peers (R13). What was forgotten once stays so: a clock that is behind brings
    nothing back."""
    row = keys.forgotten_row(entry.partition)
    known_ms = forgotten_ms(entry.get(row))
    before_ms = max(known_ms, entry.expiry_ms - KEPT_MS)
    answers = islice(entry.scan(keys.table(entry.partition, keys.ANSWER)), FORGOTTEN_AT_ONCE)
    old = [key for key, _ in answers if keys.command_ms(keys.command_of(key)) < before_ms]
    for key in old:
        entry.delete(key)
    if old and before_ms > known_ms:
        entry.put(row, encode(Forgotten(before_ms)))
    return commands.Taken(len(old) == FORGOTTEN_AT_ONCE)
