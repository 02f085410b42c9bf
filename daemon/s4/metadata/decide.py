"""From command to entry: the one table of commands, with the decision of each and what the others have to know of
it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from s4.metadata import accounts, buckets, commands, gone, objects, references, repairs, repeats, uploads
from s4.metadata.commands import AnyAnswer, AnyCommand, Refused
from s4.metadata.entry import Entry, RefusalError


def forget_rows(entry: Entry, command: commands.ForgetRows) -> commands.Done:
    for row in command.rows:
        entry.delete(row)
    return commands.Done()


class Spec(NamedTuple):
    """What there is to know of a command.

    `settings`: gateways hold under lease what it changes (L1). `room`: it waits for a disk that takes more (D5).
    `twice`: why it may be decided again; all others are remembered by their ids (R12). `patient`: nobody waits for its
    answer, so that in a cluster it goes with an entry that others need (replica/replicated.py).
    """

    decide: Callable[[Entry, Any], AnyAnswer]
    settings: bool = False
    room: bool = False
    twice: str = ""
    patient: bool = False


COMMANDS: dict[type, Spec] = {
    commands.PutObject: Spec(objects.put, room=True),
    commands.DeleteObject: Spec(objects.delete),
    commands.DeleteIfNewest: Spec(objects.delete_if_newest),
    commands.Expire: Spec(objects.expire),
    commands.ChangeObject: Spec(objects.change),
    commands.Rewrap: Spec(
        objects.rewrap, twice="names the wrapped key that it replaces, and no key is wrapped into the same bytes twice"
    ),
    commands.CreateUpload: Spec(uploads.create, room=True),
    commands.PutPart: Spec(uploads.put_part, room=True),
    commands.CompleteUpload: Spec(uploads.complete),
    commands.AbortUpload: Spec(uploads.abort),
    commands.TakeReferences: Spec(
        references.take,
        twice="names a new random reference: there already, it is passed over; dropped since, it is one that nobody holds, which the auditor finds",
    ),
    commands.DropReferences: Spec(references.drop, twice="names references that are never used again (C1)"),
    commands.LetGo: Spec(
        gone.let_go,
        twice="lets go of what its row names, which goes in the same entry, and whose key is never used again",
    ),
    commands.PublishContent: Spec(
        references.publish,
        twice="a hint: a blob that is gone gives no reference, and its content is written and published anew (C4); audits remove it",
        patient=True,
    ),
    commands.UnpublishContent: Spec(
        references.unpublish,
        twice="only where the content row still names that blob, which is dead for good",
        patient=True,
    ),
    commands.RefuseReference: Spec(
        references.refuse_reference,
        twice="a reference that is claimed is left alone, and one that is not will never be (C3)",
    ),
    commands.RefuseBlob: Spec(
        references.refuse_blob,
        twice="a blob that has a row is left alone, and one that has none will never have one (C3)",
    ),
    commands.NeedHeal: Spec(references.need_heal, twice="a shard that is whole by now is made once more"),
    commands.Healed: Spec(references.healed),
    commands.ForgetRows: Spec(forget_rows),
    commands.Recounted: Spec(repairs.recounted, twice="done for good where the partition says that it was done"),
    commands.ForgetAnswers: Spec(repeats.forget_answers, twice="what is forgotten stays forgotten"),
    commands.CreateBucket: Spec(buckets.create, settings=True, room=True),
    commands.SetVersioning: Spec(buckets.set_versioning, settings=True),
    commands.SetDocument: Spec(buckets.set_document, settings=True),
    commands.SetLock: Spec(buckets.set_lock, settings=True),
    commands.SpreadSettings: Spec(buckets.spread, twice="older settings than the partition knows are sent back (L2)"),
    commands.BeginDelete: Spec(buckets.begin_delete, settings=True),
    commands.CloseBucket: Spec(buckets.close),
    commands.ReopenBucket: Spec(buckets.reopen),
    commands.UndoDelete: Spec(buckets.undo_delete, settings=True),
    commands.EndDelete: Spec(buckets.end_delete, settings=True),
    commands.PutUser: Spec(accounts.put_user, settings=True),
    commands.DeleteUser: Spec(accounts.delete_user, settings=True),
    commands.PutAccessKey: Spec(accounts.put_key, settings=True),
    commands.DeleteAccessKey: Spec(accounts.delete_key, settings=True),
    commands.ChangeAccounts: Spec(accounts.change, settings=True),
    commands.NoteUses: Spec(accounts.note_uses, twice="an older use than the known one is passed over"),
    commands.PutJob: Spec(accounts.put_job),
    commands.DeleteJob: Spec(accounts.delete_job),
}


def decide(entry: Entry, command: AnyCommand) -> AnyAnswer:
    """Decide one command. On a refusal or stale settings the entry's rows must be thrown away.

    Nobody else makes a `Refused`: who is told no by it takes back what it prepared, so that only who has looked for the
    command's first answer may say so (R12).
    """
    try:
        spec = COMMANDS[type(command)]
        if spec.room:
            entry.must_have_room()
        return spec.decide(entry, command)
    except RefusalError as refusal:
        entry.clear()
        return Refused(refusal.code, refusal.message)
    except objects.StaleSettingsError as stale:
        entry.clear()
        return stale.answer
