"""What partition 0 knows by name: buckets, users, roles, groups, policies, access keys, jobs.

What was read of settings is kept here until a turn changes one, and nowhere else in a node. As all reads of rows: a
host's `check` comes after each and before its answer (R5).
"""

from __future__ import annotations

from msgspec.structs import replace

from s4.metadata import keymarks, keys
from s4.metadata.builtin import BUILT_IN
from s4.metadata.entry import find
from s4.metadata.rows import AccessKey, Bucket, Grant, Group, Job, Managed, Policy, Role, User, decode
from s4.node.hosts import AnyHost
from s4.peer.api import Identity
from s4.replica.pieces import pieces

ROOT_USER = "root"
CACHED_SETTINGS = 10_000


class Accounts:
    """`root` holds `root_key`, which no row has."""

    def __init__(self, host: AnyHost, root: Identity, root_key: str) -> None:
        self._host, self._root, self._root_key = host, root, root_key
        self._buckets: dict[str, Bucket] = {}
        self._identities: dict[str, Identity] = {}
        host.on_settings = self.forget

    async def find_bucket(self, name: str) -> Bucket | None:
        found = self._buckets.get(name)
        if found is None:
            found = find(self._host, Bucket, keys.named_row(keys.BUCKET, name))
            if found is not None and len(self._buckets) < CACHED_SETTINGS:
                self._buckets[name] = found
        self._host.check(0)
        return found

    async def find_identity(self, access_key: str) -> Identity | None:
        found = self._identities.get(access_key)
        if found is None:
            found = self._read_identity(access_key)
            if found is not None and len(self._identities) < CACHED_SETTINGS:
                self._identities[access_key] = found
        self._host.check(0)
        return found

    def forget(self) -> None:
        """Called when a turn changed a bucket, user, key or policy, before its answers go out."""
        self._buckets.clear()
        self._identities.clear()

    def change_root(self, root: Identity, access_key: str) -> None:
        """Have another pair of root keys count, here; who was told of the old one asks again with the next change of
        an account."""
        self._root, self._root_key = root, access_key
        self.forget()

    def root_identity(self, access_key: str) -> Identity | None:
        """Root, if this is root's key."""
        return self._root if access_key == self._root_key else None

    def _read_identity(self, access_key: str) -> Identity | None:
        if access_key == self._root_key:
            return self._root
        kind, slash, name = access_key.partition("/")
        if slash:  # no access key has one
            if kind == "user" and name == ROOT_USER:
                return self._root
            return self._user(name) if kind == "user" else self._role(name)
        row = find(self._host, AccessKey, keys.named_row(keys.ACCESS_KEY, access_key))
        if row is None:
            other = keymarks.kept_root(self._host.get(keymarks.ROW), access_key)
            return replace(self._root, secret=other) if other is not None else None
        return self._user(row.user, row.secret) if row.enabled else None

    def _user(self, name: str, secret: str = "") -> Identity | None:
        row = find(self._host, User, keys.named_row(keys.USER, name))
        if row is None or not row.enabled:
            return None
        documents = [*row.inline.values(), *self._documents(row.attached)]
        for group in row.groups:
            held = find(self._host, Group, keys.named_row(keys.GROUP, group))
            if held is not None:
                documents += [*held.inline.values(), *self._documents(held.attached)]
        bounds = self._documents([row.boundary]) if row.boundary else []
        return Identity(
            name,
            secret,
            self._grants_of(name),
            documents,
            bounds,
            row.id,
            row.path,
            row.tags,
            canonical=row.canonical,
            rate=row.rate,
        )

    def _role(self, name: str) -> Identity | None:
        row = find(self._host, Role, keys.named_row(keys.ROLE, name))
        if row is None:
            return None
        documents = [*row.inline.values(), *self._documents(row.attached)]
        bounds = self._documents([row.boundary]) if row.boundary else []
        return Identity(name, "", [], documents, bounds, row.id, row.path, row.tags, role=True, canonical=row.canonical)

    def _documents(self, arns: list[str]) -> list[str]:
        """The documents of managed policies; one that is not there is empty, which denies."""
        found = []
        for arn in arns:
            if arn in BUILT_IN:
                found.append(BUILT_IN[arn])
                continue
            row = find(self._host, Managed, keys.named_row(keys.MANAGED, arn.rpartition("/")[2]))
            found.append(row.versions[row.default][0] if row is not None else "")
        return found

    async def find_accounts(self, rows: list[bytes]) -> list[bytes | None]:
        found = [self._host.get(row) for row in rows]
        self._host.check(0)
        return found

    async def list_accounts(self, table: bytes) -> list[tuple[str, bytes]]:
        found = [(key[3:].decode(), value) async for key, value in pieces(self._host, keys.table(0, table))]
        self._host.check(0)
        return found

    async def list_buckets(self) -> list[tuple[str, Bucket]]:
        rows = pieces(self._host, keys.table(0, keys.BUCKET))
        found = [(key[3:].decode(), decode(Bucket, value)) async for key, value in rows]
        self._host.check(0)
        return found

    async def list_users(self) -> list[tuple[User, list[str], list[Grant]]]:
        held: dict[str, list[str]] = {}
        async for key, value in pieces(self._host, keys.table(0, keys.ACCESS_KEY)):
            held.setdefault(decode(AccessKey, value).user, []).append(key[3:].decode())
        users = [decode(User, value) async for _, value in pieces(self._host, keys.table(0, keys.USER))]
        listed = [(user, held.get(user.name, []), self._grants_of(user.name)) for user in users]
        self._host.check(0)
        return listed

    def _grants_of(self, user: str) -> list[Grant]:
        policy = find(self._host, Policy, keys.named_row(keys.POLICY, user))
        return policy.grants if policy is not None else []

    async def list_jobs(self) -> list[tuple[str, Job]]:
        prefix = keys.table(0, keys.JOB)
        listed = [(key[len(prefix) :].decode(), decode(Job, value)) for key, value in self._host.scan(prefix)]
        self._host.check(0)
        return listed
