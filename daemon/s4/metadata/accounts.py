"""Decisions on users, access keys, grants and jobs: small rows of partition 0."""

from __future__ import annotations

from s4.metadata import keys
from s4.metadata.commands import (
    DeleteAccessKey,
    DeleteJob,
    DeleteUser,
    Done,
    KeyKnown,
    PutAccessKey,
    PutJob,
    PutUser,
    UserKnown,
)
from s4.metadata.entry import Entry, RefusalError
from s4.metadata.rows import AccessKey, Policy, User, decode, encode


def put_user(entry: Entry, command: PutUser) -> UserKnown:
    row_key = keys.named_row(keys.USER, command.name)
    value = entry.get(row_key)
    if command.create and value is not None:
        raise RefusalError("EntityAlreadyExists", f"A user named {command.name} exists already.")
    if not command.create and value is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.name}.")
    created = decode(User, value).created_ms if value is not None else entry.now_ms
    user = User(command.name, created, command.enabled)
    entry.put(row_key, encode(user))
    entry.put(keys.named_row(keys.POLICY, command.name), encode(Policy(command.grants)))
    return UserKnown(user, command.grants)


def delete_user(entry: Entry, command: DeleteUser) -> Done:
    row_key = keys.named_row(keys.USER, command.name)
    if entry.get(row_key) is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.name}.")
    entry.delete(row_key)
    entry.delete(keys.named_row(keys.POLICY, command.name))
    for key, value in list(entry.scan(keys.table(0, keys.ACCESS_KEY))):
        if decode(AccessKey, value).user == command.name:
            entry.delete(key)
    return Done()


def put_key(entry: Entry, command: PutAccessKey) -> KeyKnown:
    """A key of the user's own gets the secret that is given."""
    if entry.get(keys.named_row(keys.USER, command.user)) is None:
        raise RefusalError("NoSuchEntity", f"There is no user named {command.user}.")
    row_key = keys.named_row(keys.ACCESS_KEY, command.access_key)
    held = entry.get(row_key)
    if held is not None and decode(AccessKey, held).user != command.user:
        raise RefusalError("EntityAlreadyExists", f"The access key {command.access_key} is another user's.")
    row = AccessKey(command.user, command.secret, entry.now_ms)
    entry.put(row_key, encode(row))
    return KeyKnown(row)


def delete_key(entry: Entry, command: DeleteAccessKey) -> Done:
    row_key = keys.named_row(keys.ACCESS_KEY, command.access_key)
    value = entry.get(row_key)
    if value is None or (command.user and decode(AccessKey, value).user != command.user):
        raise RefusalError("NoSuchEntity", f"There is no access key {command.access_key}.")
    entry.delete(row_key)
    return Done()


def put_job(entry: Entry, command: PutJob) -> Done:
    entry.put(keys.named_row(keys.JOB, command.id), encode(command.job))
    return Done()


def delete_job(entry: Entry, command: DeleteJob) -> Done:
    entry.delete(keys.named_row(keys.JOB, command.id))
    return Done()
