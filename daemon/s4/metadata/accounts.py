"""Decisions on users, access keys, grants and jobs: small rows of partition 0."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from s4.metadata import keys
from s4.metadata.canonical import canonical_id
from s4.metadata.commands import (
    ChangeAccounts,
    DeleteAccessKey,
    DeleteJob,
    DeleteUser,
    Done,
    KeyKnown,
    NoteUses,
    PutAccessKey,
    PutJob,
    PutUser,
    Taken,
    UserKnown,
)
from s4.metadata.entry import Entry, RefusalError, find
from s4.metadata.rows import AccessKey, Job, LastUse, Policy, User, decode, encode


def put_user(entry: Entry, command: PutUser) -> UserKnown:
    row_key = keys.named_row(keys.USER, command.name)
    old = find(entry, User, row_key)
    if command.create and (old is not None or _differs_in_case(entry, row_key)):
        raise RefusalError("EntityAlreadyExists", f"A user named {command.name} exists already.")
    if not command.create and old is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.name}.")
    # An id that no user had: the entry's sequence is never given out again.
    unique = f"AIDA{entry.epoch:08X}{entry.sequence:09X}"
    fresh = User(command.name, entry.now_ms, id=unique, canonical=canonical_id(unique))
    user = replace(old or fresh, enabled=command.enabled)
    entry.put(row_key, encode(user))
    entry.put(keys.named_row(keys.POLICY, command.name), encode(Policy(command.grants)))
    return UserKnown(user, command.grants)


def delete_user(entry: Entry, command: DeleteUser) -> Done:
    row_key = keys.named_row(keys.USER, command.name)
    if entry.get(row_key) is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.name}.")
    entry.delete(row_key)
    entry.delete(keys.named_row(keys.POLICY, command.name))
    _delete_keys(entry, command.name)
    return Done()


def _delete_keys(entry: Entry, user: str) -> None:
    """No key outlives its user: a new one of that name would have it."""
    for key, value in list(entry.scan(keys.table(0, keys.ACCESS_KEY))):
        if decode(AccessKey, value).user == user:
            entry.delete(key)
            entry.delete(keys.named_row(keys.LAST_USE, key[3:].decode()))


def put_key(entry: Entry, command: PutAccessKey) -> KeyKnown:
    """A key of the user's own gets the secret that is given."""
    if entry.get(keys.named_row(keys.USER, command.user)) is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.user}.")
    row_key = keys.named_row(keys.ACCESS_KEY, command.access_key)
    held = find(entry, AccessKey, row_key)
    if held is not None and held.user != command.user:
        raise RefusalError("EntityAlreadyExists", f"The access key {command.access_key} is another user's.")
    row = AccessKey(command.user, command.secret, entry.now_ms)
    entry.put(row_key, encode(row))
    return KeyKnown(row)


def delete_key(entry: Entry, command: DeleteAccessKey) -> Done:
    row_key = keys.named_row(keys.ACCESS_KEY, command.access_key)
    held = find(entry, AccessKey, row_key)
    if held is None or (command.user and held.user != command.user):
        raise RefusalError("NoSuchEntity", f"There is no access key {command.access_key}.")
    entry.delete(row_key)
    return Done()


ACCOUNT_TABLES = frozenset(
    (keys.USER, keys.GROUP, keys.ROLE, keys.MANAGED, keys.PROVIDER, keys.ACCESS_KEY, keys.POLICY, keys.MARKS)
)


# Kinds whose names are one where they differ in case only, as on AWS. Pairs that are there already stay.
CASELESS = frozenset((keys.USER, keys.GROUP, keys.ROLE, keys.MANAGED))


def _differs_in_case(entry: Entry, row_key: bytes, gone: Collection[bytes] = ()) -> bool:
    """Whether a row of the kind has this name in another case."""
    name = row_key[3:].decode().casefold()
    rows = entry.scan(keys.table(0, row_key[2:3]))
    return any(key not in gone and key != row_key and key[3:].decode().casefold() == name for key, _ in rows)


def change(entry: Entry, command: ChangeAccounts) -> Taken:
    for row_key, _ in command.rows:
        if row_key[:2] != bytes(2) or row_key[2:3] not in ACCOUNT_TABLES:
            raise RefusalError("InternalError", "A change of accounts names another row.")
    if any(entry.get(row_key) != value for row_key, value in command.seen):
        return Taken(False)
    gone = {row_key for row_key, value in command.rows if value is None}
    for row_key, value in command.rows:
        new = value is not None and row_key[2:3] in CASELESS and entry.get(row_key) is None
        if new and _differs_in_case(entry, row_key, gone):
            return Taken(False)  # somebody was first: whoever looks again sees it
    for row_key, value in command.rows:
        if value is None:
            entry.delete(row_key)
            if row_key[2:3] == keys.USER:
                _delete_keys(entry, row_key[3:].decode())
            elif row_key[2:3] == keys.ACCESS_KEY:
                entry.delete(keys.named_row(keys.LAST_USE, row_key[3:].decode()))
        else:
            entry.put(row_key, value)
    return Taken(True)


def note_uses(entry: Entry, command: NoteUses) -> Done:
    for access_key, use in command.uses:
        row_key = keys.named_row(keys.LAST_USE, access_key)
        before = find(entry, LastUse, row_key)
        older = before is not None and before.used_ms >= use.used_ms  # another gateway was first
        if not older and entry.get(keys.named_row(keys.ACCESS_KEY, access_key)) is not None:
            entry.put(row_key, encode(use))
    return Done()


def put_job(entry: Entry, command: PutJob) -> Taken:
    row_key = keys.named_row(keys.JOB, command.id)
    if command.before is not None and find(entry, Job, row_key) != command.before:
        return Taken(False)
    entry.put(row_key, encode(command.job))
    return Taken(True)


def delete_job(entry: Entry, command: DeleteJob) -> Done:
    entry.delete(keys.named_row(keys.JOB, command.id))
    return Done()
