"""Whether this process has its cluster's keys. Looked at now and then: keys may be changed while it runs.

The first process that looks says in a row what the keys are, if what is sealed already can be opened with them. A
process whose keys are others serves nobody: with another master key it would seal what nobody else opens, with another
root key it would refuse who is root.
"""

from __future__ import annotations

from msgspec.structs import replace

from s4.crypto.keyring import KeyringError, is_sealed
from s4.gateway.accounts import kept_secret
from s4.gateway.context import Gateway, execute
from s4.metadata import commands, keymarks, keys
from s4.metadata.keymarks import ROW, KeyMarks, marked
from s4.metadata.rows import AccessKey, decode, encode
from s4.peer.api import UnavailableError
from s4.s3.errors import S3Error


class KeyCheck:
    """`root` is (access key, secret) where this process is to have the same as others. `wrong` says why it must not
    serve."""

    def __init__(self, gateway: Gateway, root: tuple[str, str] | None) -> None:
        self._gateway, self._root, self._seen = gateway, root, b""
        self.wrong = ""

    @property
    def _masters(self) -> list[str]:
        """Names of the keys that this process opens with, the current one last."""
        return self._gateway.keyring.names if self._gateway.keyring is not None else []

    async def look(self) -> None:
        try:
            (value,) = await self._gateway.node.find_accounts([ROW])
            if value is None:
                self.wrong = await self._unreadable()
                if not self.wrong:
                    await self._commit(None, self._marks())
            elif value != self._seen:
                marks = decode(KeyMarks, value)
                self.wrong = keymarks.wrong(marks, self._masters, self._root)
                now = marks if self.wrong else self._completed(marks)
                if now != marks:
                    await self._commit(value, now)
                    return
                self._seen = value
        except (UnavailableError, S3Error):
            return  # who cannot ask is answered nothing either; and 0.7 keeps no such row

    def alarms(self) -> list[str]:
        return [f"it serves nobody: {self.wrong}"] if self.wrong else []

    def _marks(self) -> KeyMarks:
        master = self._masters[-1] if self._masters else ""
        return KeyMarks(master, [marked(*self._root)] if self._root is not None else [])

    def _completed(self, marks: KeyMarks) -> KeyMarks:
        """With a master key that is newer, and with root keys where who looked first had none."""
        if self._masters:
            marks = replace(marks, master=self._masters[-1])
        if self._root is not None and not marks.roots:
            marks = replace(marks, roots=[marked(*self._root)])
        return marks

    async def _unreadable(self) -> str:
        """Why what is sealed already cannot be opened here. One that opens is enough: others may be damaged."""
        reason = ""
        for name, value in await self._gateway.node.list_accounts(keys.ACCESS_KEY):
            kept = decode(AccessKey, value).secret
            if not is_sealed(kept):
                continue
            try:
                if self._gateway.keyring is None:
                    raise KeyringError("secrets are sealed, and this process has no --master-key")
                self._gateway.keyring.open(kept, name)
            except KeyringError as error:
                reason = f"the master key is not that which secrets were sealed with: {error}"
            else:
                return ""
        return reason

    async def _commit(self, seen: bytes | None, marks: KeyMarks) -> bool:
        answer = await execute(self._gateway, 0, commands.ChangeAccounts([(ROW, seen)], [(ROW, encode(marks))]))
        return isinstance(answer, commands.Taken) and answer.granted

    async def tell(self) -> None:
        """Have every gateway ask again who holds which key: they do so after any change of an account (L2)."""
        (value,) = await self._gateway.node.find_accounts([ROW])
        await self._commit(value, keymarks.read(value) or self._marks())

    # -- changing the root keys of a cluster

    async def begin_change(self, access_key: str, secret: str) -> None:
        """Have a second pair of root keys count. Raises S3Error."""
        (value,) = await self._gateway.node.find_accounts([ROW])
        marks = keymarks.read(value) or self._marks()
        if self._root is None:
            raise S3Error(
                "InvalidRequest", "This process has no root keys of its own: ask one that was started with them."
            )
        if len(marks.roots) > 1:
            raise S3Error(
                "InvalidRequest",
                "A change of the root keys is under way: finish it first (`s4 admin root-keys finish`).",
            )
        kept = [marked(*pair, kept_secret(self._gateway, *pair)) for pair in (self._root, (access_key, secret))]
        if not await self._commit(value, replace(marks, roots=kept)):
            raise S3Error("OperationAborted")

    async def end_change(self, access_key: str, *, finish: bool) -> None:
        """Have one pair of root keys count alone, with which this call was signed: the new one, or the old one where
        the change is not to be finished. Raises S3Error."""
        (value,) = await self._gateway.node.find_accounts([ROW])
        marks = keymarks.read(value)
        if marks is None or len(marks.roots) < 2:
            raise S3Error("InvalidRequest", "No change of the root keys is under way.")
        kept = marks.roots[-1 if finish else 0].access_key
        if self._root is None or self._root[0] != access_key or kept != access_key:
            which, else_ = ("new", " `s4 admin root-keys cancel` keeps the old ones.") if finish else ("old", "")
            raise S3Error(
                "InvalidRequest",
                f"Sign this with the {which} root keys, to a process that was started with them.{else_}",
            )
        left = [replace(one, kept="") for one in marks.roots if one.access_key == access_key]
        if not await self._commit(value, replace(marks, roots=left)):
            raise S3Error("OperationAborted")
