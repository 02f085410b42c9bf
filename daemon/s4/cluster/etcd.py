"""The coordinator in etcd: a document is a key below a prefix, its revision the key's mod revision.

The only module that knows aetcd, and of that only etcd's messages and stubs for gRPC: its client speaks no TLS, knows
one host, and its watcher shares one stream between all watches, which can hang when etcd restarts. So channels, logins
and watches are made here. A login gives a token that etcd forgets after minutes or at its restart; what meets that is
a call that failed, which is repeated on a new connection with a new login. A watch only wakes us: what is given is
always read, linearizably, so an event that is lost or comes twice costs nothing. A compare-and-swap whose answer is
lost is repeated as it was, on the next endpoint; it can only land once (rule R4).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from aetcd import rpc
from grpc.aio import AioRpcError

from s4.cluster.coordinator import ConflictError, CoordinatorError, RemoteCoordinator, UnknownOutcomeError

log = logging.getLogger(__name__)

CALL_S = 3
REFRESH_S = 5.0  # a watch that says nothing for so long is not trusted: the document is read
ROUNDS = 2  # over all endpoints before a call is given up

T = TypeVar("T")
_Failed = (AioRpcError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Access:
    """How etcd is reached, by files that are read at each connection. With `authority` it is TLS, with `certificate`
    and `key` this process shows a certificate of its own. `login` has a line USER:PASSWORD."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    login: str = ""

    def check(self) -> None:
        """Raises ValueError, OSError that say what to change."""
        if bool(self.certificate) != bool(self.key):
            raise ValueError("--etcd-certificate and --etcd-key go together")
        if self.certificate and not self.authority:
            raise ValueError("--etcd-certificate needs --etcd-authority, the authority of etcd's own certificate")
        self.user()
        for path in (self.authority, self.certificate, self.key):
            if path:
                Path(path).read_bytes()

    def user(self) -> tuple[str, str] | None:
        """(name, password). Raises ValueError, OSError."""
        if not self.login:
            return None
        name, colon, password = Path(self.login).read_text().strip().partition(":")
        if not (name and colon and password):
            raise ValueError(f"--etcd-login {self.login}: the file has no line USER:PASSWORD")
        return name, password

    def channel(self, endpoint: str) -> grpc.aio.Channel:
        if not self.authority:
            return grpc.aio.insecure_channel(endpoint)
        own = [Path(path).read_bytes() if path else None for path in (self.key, self.certificate)]
        trusted = grpc.ssl_channel_credentials(Path(self.authority).read_bytes(), *own)
        return grpc.aio.secure_channel(endpoint, trusted)


class _Client:
    """One endpoint: a channel and a login, both made at the first call."""

    def __init__(self, endpoint: str, access: Access) -> None:
        self._endpoint, self._access = endpoint, access
        self._channel: grpc.aio.Channel | None = None
        self._ready: asyncio.Task[tuple[grpc.aio.Channel, Any]] | None = None

    async def ready(self) -> tuple[grpc.aio.Channel, Any]:
        """(channel, metadata) of a call."""
        if self._ready is None:
            self._ready = asyncio.ensure_future(self._login())
        return await asyncio.shield(self._ready)

    async def _login(self) -> tuple[grpc.aio.Channel, Any]:
        channel = self._channel = self._access.channel(self._endpoint)
        user = self._access.user()
        if user is None:
            return channel, None
        asked = rpc.AuthenticateRequest(name=user[0], password=user[1])
        answer = await rpc.AuthStub(channel).Authenticate(asked, timeout=CALL_S)
        return channel, (("token", answer.token),)

    async def version(self) -> str:
        channel, metadata = await self.ready()
        answer = await rpc.MaintenanceStub(channel).Status(rpc.StatusRequest(), timeout=CALL_S, metadata=metadata)
        return str(answer.version)

    async def get(self, key: bytes) -> tuple[bytes, int]:
        channel, metadata = await self.ready()
        answer = await rpc.KVStub(channel).Range(rpc.RangeRequest(key=key), timeout=CALL_S, metadata=metadata)
        return _found(answer)

    async def swap(self, key: bytes, value: bytes, revision: int) -> tuple[bool, int, bytes]:
        """(whether it was done, the revision that is there now, the value that is there)."""
        channel, metadata = await self.ready()
        same = rpc.Compare(key=key, result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, mod_revision=revision)
        change = rpc.TxnRequest(
            compare=[same],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key))],
        )
        answer = await rpc.KVStub(channel).Txn(change, timeout=CALL_S, metadata=metadata)
        if answer.succeeded:
            return True, int(answer.header.revision), value
        there, now = _found(answer.responses[0].response_range)
        return False, now, there

    async def changed(self, key: bytes, since: int) -> None:
        """Return once a key has, or may have, another revision than `since`."""
        channel, metadata = await self.ready()
        call = rpc.WatchStub(channel).Watch(metadata=metadata)
        try:
            create = rpc.WatchCreateRequest(key=key, start_revision=since + 1)
            await call.write(rpc.WatchRequest(create_request=create))
            async for answer in call:
                if answer.events or answer.canceled:
                    return
        finally:
            call.cancel()

    async def close(self) -> None:
        if self._ready is not None:
            self._ready.cancel()
            await asyncio.gather(self._ready, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()


_REFUSALS = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,  # a wrong password, or none
    grpc.StatusCode.FAILED_PRECONDITION,
)


def _found(answer: Any) -> tuple[bytes, int]:
    return (bytes(answer.kvs[0].value), int(answer.kvs[0].mod_revision)) if answer.kvs else (b"", 0)


def _words(error: BaseException) -> str:
    """What is to be said of a failure, in one line."""
    if isinstance(error, AioRpcError):
        return str(error.details() or error.code().name).partition("\n")[0]
    return str(error) or type(error).__name__


class UnusableVersionError(CoordinatorError):
    """This etcd loses what it acknowledged."""


class EtcdCoordinator(RemoteCoordinator):
    """`endpoints` are HOST:PORT of members of one etcd cluster; `prefix` is this S4 cluster's."""

    RETRY_S = 0.2

    def __init__(self, endpoints: Sequence[str], prefix: str, access: Access | None = None) -> None:
        self._prefix, self._endpoints, self._access = prefix, list(endpoints), access or Access()
        self._clients = [_Client(endpoint, self._access) for endpoint in endpoints]
        self._left: list[tuple[float, _Client]] = []
        self._current = 0

    def _key(self, document: str) -> bytes:
        return f"{self._prefix}/{document}".encode()

    async def check_versions(self) -> None:
        """Raises UnusableVersionError for a member of 3.5.0 to 3.5.5, which lose consistency when killed."""
        for client in self._clients:
            try:
                version = await client.version()
            except _Failed as error:
                log.warning("an etcd endpoint does not answer: %s", _words(error))
                continue
            if re.fullmatch(r"3\.5\.[0-5]", version):
                raise UnusableVersionError(
                    f"etcd {version} can lose data when it is killed; use 3.4, or 3.5.6 and later"
                )

    async def read(self, document: str) -> tuple[bytes, int]:
        return await self._anywhere(lambda client: client.get(self._key(document)), CoordinatorError)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Raises ConflictError, UnknownOutcomeError."""
        key, tried = self._key(document), 0

        async def one(client: _Client) -> tuple[bool, int, bytes]:
            nonlocal tried
            tried += 1
            return await client.swap(key, value, revision)

        done, now, content = await self._anywhere(one, UnknownOutcomeError)
        if done or (tried > 1 and now > revision and content == value):  # an earlier try landed
            return now
        raise ConflictError(f"{document} is at revision {now}, not {revision}")

    async def _wait(self, document: str, since: int) -> None:
        client = self._clients[self._current]
        try:
            async with asyncio.timeout(REFRESH_S):
                await client.changed(self._key(document), since)
        except TimeoutError:
            return
        except _Failed as error:
            log.info("a watch ended: %s", _words(error))
            await self._leave(client)
            await asyncio.sleep(self.RETRY_S)

    async def _anywhere(self, call: Callable[[_Client], Awaitable[T]], failure: type[CoordinatorError]) -> T:
        """The call on the current endpoint, then on the others. Raises `failure` where none answers."""
        reason: Exception | None = None
        for number in range(ROUNDS * len(self._clients)):
            client = self._clients[self._current]
            try:
                async with asyncio.timeout(CALL_S):
                    return await call(client)
            except _Failed as error:
                reason = error
                await self._leave(client)
                if number % len(self._clients) == len(self._clients) - 1:
                    await asyncio.sleep(self.RETRY_S)
        raise failure(self._why(reason)) from reason

    def _why(self, reason: Exception | None) -> str:
        """What is to be said where no endpoint did what it was asked: it refused, or none was heard."""
        said = _words(reason) if reason else ""
        code = reason.code() if isinstance(reason, AioRpcError) else None
        if code == grpc.StatusCode.PERMISSION_DENIED:
            said += (
                f"; the user of --etcd-login, or of --etcd-certificate, must be allowed to read and write keys that begin with "
                f"{self._prefix}/"
            )
        if code in _REFUSALS:
            return f"etcd refuses: {said}"
        return f"no etcd endpoint answers at {', '.join(self._endpoints)}: {said}"

    async def _leave(self, client: _Client) -> None:
        """Use the next endpoint, and a new connection when this one's turn comes again.

        Closing a channel cancels the tasks that use it, whoever they are. So it is closed once all of their calls
        must have ended by their own time limits.
        """
        now = asyncio.get_running_loop().time()
        if client in self._clients:
            number = self._clients.index(client)
            self._clients[number] = _Client(self._endpoints[number], self._access)
            if self._current == number:
                self._current = (number + 1) % len(self._clients)
            self._left.append((now, client))
        while self._left and self._left[0][0] + 2 * REFRESH_S < now:
            with contextlib.suppress(*_Failed):
                await self._left.pop(0)[1].close()

    async def close(self) -> None:
        for client in [*self._clients, *(client for _, client in self._left)]:
            with contextlib.suppress(*_Failed):
                await client.close()
