"""From command to entry: the one table of which decision belongs to which command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s4.metadata import accounts, buckets, commands, gone, objects, references, repairs, repeats, uploads
from s4.metadata.commands import AnyAnswer, AnyCommand, Refused
from s4.metadata.entry import Entry, RefusalError


def forget_rows(entry: Entry, command: commands.ForgetRows) -> commands.Done:
    for row in command.rows:
        entry.delete(row)
    return commands.Done()


_DECISIONS: dict[type, Callable[[Entry, Any], AnyAnswer]] = {
    commands.PutObject: objects.put,
    commands.DeleteObject: objects.delete,
    commands.DeleteIfNewest: objects.delete_if_newest,
    commands.Expire: objects.expire,
    commands.ChangeObject: objects.change,
    commands.Rewrap: objects.rewrap,
    commands.CreateUpload: uploads.create,
    commands.PutPart: uploads.put_part,
    commands.CompleteUpload: uploads.complete,
    commands.AbortUpload: uploads.abort,
    commands.TakeReferences: references.take,
    commands.DropReferences: references.drop,
    commands.LetGo: gone.let_go,
    commands.PublishContent: references.publish,
    commands.UnpublishContent: references.unpublish,
    commands.RefuseReference: references.refuse_reference,
    commands.RefuseBlob: references.refuse_blob,
    commands.NeedHeal: references.need_heal,
    commands.Healed: references.healed,
    commands.ForgetRows: forget_rows,
    commands.Recounted: repairs.recounted,
    commands.ForgetAnswers: repeats.forget_answers,
    commands.CreateBucket: buckets.create,
    commands.SetVersioning: buckets.set_versioning,
    commands.SetDocument: buckets.set_document,
    commands.SetLock: buckets.set_lock,
    commands.SpreadSettings: buckets.spread,
    commands.BeginDelete: buckets.begin_delete,
    commands.CloseBucket: buckets.close,
    commands.ReopenBucket: buckets.reopen,
    commands.UndoDelete: buckets.undo_delete,
    commands.EndDelete: buckets.end_delete,
    commands.PutUser: accounts.put_user,
    commands.DeleteUser: accounts.delete_user,
    commands.PutAccessKey: accounts.put_key,
    commands.DeleteAccessKey: accounts.delete_key,
    commands.ChangeAccounts: accounts.change,
    commands.NoteUses: accounts.note_uses,
    commands.PutJob: accounts.put_job,
    commands.DeleteJob: accounts.delete_job,
}


def decide(entry: Entry, command: AnyCommand) -> AnyAnswer:
    """Decide one command. On a refusal or stale settings the entry's rows must be thrown away.

    Nobody else makes a `Refused`: who is told no by it takes back what it prepared, so that only who has looked for the
    command's first answer may say so (R12).
    """
    try:
        return _DECISIONS[type(command)](entry, command)
    except RefusalError as refusal:
        entry.clear()
        return Refused(refusal.code, refusal.message)
    except objects.StaleSettingsError as stale:
        entry.clear()
        return stale.answer
