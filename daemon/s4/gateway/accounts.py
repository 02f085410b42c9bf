"""Changes to users, groups, roles, policies, providers and access keys: optimistic transactions over their rows.

A change reads the rows that it needs, decides, and commits what it writes only if every row that it read is still as
it was; else it is done over. So each is one step, whoever else changes what, and nothing is left half done at a crash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from s4.crypto.keyring import KeyringError, is_sealed
from s4.gateway.context import Gateway, execute
from s4.metadata import commands, keys
from s4.metadata.rows import AccessKey, Group, Managed, Policy, Provider, Role, User, decode, encode
from s4.peer.api import UnavailableError
from s4.s3.errors import S3Error

TRIES = 20
TABLES: dict[Any, bytes] = {
    User: keys.USER,
    Group: keys.GROUP,
    Role: keys.ROLE,
    Managed: keys.MANAGED,
    Provider: keys.PROVIDER,
    AccessKey: keys.ACCESS_KEY,
    Policy: keys.POLICY,
}

R = TypeVar("R", User, Group, Role, Managed, Provider, AccessKey, Policy)
T = TypeVar("T")


class Accounts:
    """What one change sees, and what it writes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._seen: dict[bytes, bytes | None] = {}
        self._rows: dict[bytes, bytes | None] = {}
        self._tables: dict[bytes, list[tuple[str, bytes]]] = {}

    async def get(self, kind: type[R], name: str) -> R | None:
        """A row as this change left it, or as it is."""
        row = keys.named_row(TABLES[kind], name)
        if row in self._rows:
            value = self._rows[row]
        else:
            if row not in self._seen:
                self._seen[row] = (await self.gateway.node.find_accounts([row]))[0]
            value = self._seen[row]
        return decode(kind, value) if value is not None else None

    async def all(self, kind: type[R], *, seen: bool = False) -> list[tuple[str, R]]:
        """Every row of a kind, in order of names. `seen`: none of them may change until this change is committed."""
        table = TABLES[kind]
        if table not in self._tables:
            self._tables[table] = await self.gateway.node.list_accounts(table)
        if seen:
            for name, value in self._tables[table]:
                self._seen.setdefault(keys.named_row(table, name), value)
        return [(name, decode(kind, value)) for name, value in self._tables[table]]

    def put(self, name: str, row: User | Group | Role | Managed | Provider | AccessKey | Policy) -> None:
        self._rows[keys.named_row(TABLES[type(row)], name)] = encode(row)

    def delete(self, kind: type[R], name: str) -> None:
        self._rows[keys.named_row(TABLES[kind], name)] = None
        if kind is User:
            self._rows[keys.named_row(keys.POLICY, name)] = None

    async def commit(self) -> bool:
        """Whether nothing that was seen had changed. Without anything to write there is nothing to do."""
        if not self._rows:
            return True
        answer = await execute(
            self.gateway, 0, commands.ChangeAccounts(list(self._seen.items()), list(self._rows.items()))
        )
        return isinstance(answer, commands.Taken) and answer.granted


async def change(gateway: Gateway, work: Callable[[Accounts], Awaitable[T]]) -> T:
    """Do `work` until it is committed as one step. Raises S3Error."""
    for _ in range(TRIES):
        accounts = Accounts(gateway)
        try:
            result = await work(accounts)
        except UnavailableError as error:
            raise S3Error(error.code, error.message, headers={"Retry-After": "1"}) from error
        if await accounts.commit():
            return result
    raise S3Error("OperationAborted", "What this change is about keeps changing. Try again.")


def kept_secret(gateway: Gateway, access_key: str, secret: str) -> str:
    """A secret as it is stored: sealed, where this cluster has a master key."""
    return gateway.keyring.seal(secret, access_key) if gateway.keyring is not None else secret


def open_secret(gateway: Gateway, access_key: str, kept: str) -> str:
    """The secret of an access key. Raises S3Error where it was sealed with a master key that is not here."""
    if not is_sealed(kept):
        return kept
    try:
        if gateway.keyring is None:
            raise KeyringError("secrets are sealed, and this process has no --master-key")
        return gateway.keyring.open(kept, access_key)
    except KeyringError as error:
        raise S3Error("InternalError", f"The secret of this access key cannot be read: {error}.") from error
