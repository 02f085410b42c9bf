"""Commands that come twice (rule R12): which may be decided twice, and until when the others are known again.

A command is remembered by its id: id and answer are a row of its own entry, and a repeat is told that answer. Only what is
listed here, with the reason, may be decided anew. Ids begin with the time at which they were made, so that old answers
stand together; they are forgotten up to a time that is a row too, in the same entry, and a command whose id is older
than that is never decided: whether it was before, nobody knows any more. So no clock can make a repeat look new; clocks
only say when it is time to forget.
"""

from __future__ import annotations

from itertools import islice

from s4.metadata import commands, keys
from s4.metadata.commands import Command
from s4.metadata.entry import Entry
from s4.metadata.rows import Forgotten, decode, encode

KEPT_MS = 900_000  # answers, by the time of their ids: much longer than a router repeats (peer/router.py)
FORGOTTEN_AT_ONCE = 256

HARMLESS: dict[type[Command], str] = {
    commands.TakeReferences: "names a new random reference: there already, it is passed over; dropped since, it is one that nobody holds, which the auditor finds",
    commands.DropReferences: "names references that are never used again (C1)",
    commands.LetGo: "lets go of what its row names, which goes in the same entry, and whose key is never used again",
    commands.PublishContent: "a hint: a blob that is gone gives no reference, and its content is written and published anew (C4)",
    commands.UnpublishContent: "only where the content row still names that blob, which is dead for good",
    commands.RefuseReference: "a reference that is claimed is left alone, and one that is not will never be (C3)",
    commands.RefuseBlob: "a blob that has a row is left alone, and one that has none will never have one (C3)",
    commands.NeedHeal: "a shard that is whole by now is made once more",
    commands.Rewrap: "names the wrapped key that it replaces, and no key is wrapped into the same bytes twice",
    commands.SpreadSettings: "older settings than the partition knows are sent back (L2)",
    commands.Recounted: "done for good where the partition says that it was done",
    commands.NoteUses: "an older use than the known one is passed over",
    commands.ForgetAnswers: "what is forgotten stays forgotten",
}  # fmt: skip


def forgotten_ms(value: bytes | None) -> int:
    """Of a partition's `forgotten` row: commands with older ids are not known any more."""
    return decode(Forgotten, value).before_ms if value is not None else 0


def forget_answers(entry: Entry, command: commands.ForgetAnswers) -> commands.Taken:
    """By a clock that is that of the peers (R13). What was forgotten once stays so: a clock that is behind brings nothing
    back."""
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
