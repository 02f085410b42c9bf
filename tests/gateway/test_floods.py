"""One user's flood beside another's request: counted is who was served before whom, and never a time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fuzz.endpoint import Endpoint, endpoint
from inprocess import opened, until
from process import make_client
from s4.config.limits import Limits
from s4.gateway.buckets import create_bucket
from s4.gateway.context import ANSWER_COST
from s4.gateway.objects import WINDOW, delete_objects
from s4.gateway.turns import ROUND_COST
from s4.http import request as http_request
from s4.http.admission import REQUEST_COST
from s4.http.authorize import Call
from s4.http.connection import AT_ONCE, Connection
from s4.http.operations import OPERATIONS, forms
from s4.metadata.commands import PutObject

FLOOD = 100
WRITES = 60  # of one user: less than its places
A_ROUND = ROUND_COST // REQUEST_COST  # requests of one round of the loop
AN_ANSWERS_ROUND = ROUND_COST // ANSWER_COST


def _note(monkeypatch: pytest.MonkeyPatch, name: str, begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    """Be told whose operation begins and ends."""
    real = OPERATIONS[name]

    async def noted(gateway: Any, call: Call) -> Any:
        begin(call.caller)
        try:
            return await real(gateway, call)
        finally:
            end(call.caller)

    monkeypatch.setitem(OPERATIONS, name, noted)


async def _connected(server: Any, stack: ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    await asyncio.get_running_loop().connect_accepted_socket(server._server, theirs)
    return ours


async def _flood_and_another(server: Any, stack: ExitStack, calm: tuple[str, str]) -> None:
    """As many GETs of one user at once, and behind them one of another."""
    flood = [await _connected(server, stack) for _ in range(FLOOD)]
    other = await _connected(server, stack)
    for one in flood:
        one.send(server.signed("GET", "/bbb/k"))
    other.send(server.signed("GET", "/bbb/k", keys=calm))


def test_a_flood_of_reads_from_memory_is_served_a_round_at_a_time_and_others_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered where it arrives and gives its place back at once: all that had come went on in one round of
    the loop."""
    order, rounds = list[tuple[str, int]](), 0

    async def test() -> None:
        nonlocal rounds
        async with endpoint(tmp_path, time.time, Limits(stall_s=600.0)) as server:
            calm = await server.add_user("calm")
            assert (await server.send(server.signed("GET", "/bbb/k", {"connection": "close"}, calm))).endswith(
                b"inline"
            )
            _note(monkeypatch, "GetObject", lambda user: order.append((user, rounds)), lambda _: None)
            with ExitStack() as stack:
                await _flood_and_another(server, stack, calm)
                while len(order) < FLOOD + 1:
                    await asyncio.sleep(0)
                    rounds += 1

    asyncio.run(test())
    assert [user for user, _ in order].index("calm") <= 2 * A_ROUND
    assert max(sum(at == one for _, at in order) for one in {at for _, at in order}) <= 2 * A_ROUND


def test_of_a_floods_requests_few_are_looked_at_in_a_round_and_others_come_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each signature of what a round brought was checked before anybody went on, and whoever was at work waited."""
    order, rounds, real = list[tuple[str, int]](), 0, Connection.work

    def work(connection: Connection) -> None:
        if connection._messages:
            order.append((connection.claims().bucket, rounds))
        real(connection)

    async def test() -> str:
        nonlocal rounds
        async with endpoint(tmp_path, time.time, Limits(stall_s=600.0)) as server:
            calm = await server.add_user("calm")
            for keys in (None, calm):
                await server.send(server.signed("GET", "/bbb/k", {"connection": "close"}, keys))
            monkeypatch.setattr(Connection, "work", work)
            with ExitStack() as stack:
                await _flood_and_another(server, stack, calm)
                while len(order) < FLOOD + 1:
                    await asyncio.sleep(0)
                    rounds += 1
            return str(calm[0])

    access = asyncio.run(test())
    assert max(Counter(at for _, at in order).values()) == AT_ONCE
    assert [key for key, _ in order].index(access) <= 2 * AT_ONCE


def test_many_writes_that_are_committed_together_are_answered_a_round_at_a_time_and_others_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of the writer answers all that it committed at once: whoever was last in it waited for the work of all
    before."""
    ended, rounds = list[tuple[str, int]](), 0

    async def test() -> None:
        nonlocal rounds
        async with endpoint(tmp_path, time.time, Limits(stall_s=600.0)) as server:
            calm = await server.add_user("calm")
            _note(monkeypatch, "PutObject", lambda _: None, lambda user: ended.append((user, rounds)))
            node, held, body = server.gateway.node, asyncio.Event(), bytes(8192)
            execute, waiting = node.execute, 0

            async def late(*arguments: Any) -> Any:
                """A turn that began when all had come."""
                nonlocal waiting
                if isinstance(arguments[1], PutObject):
                    waiting += 1
                    await held.wait()
                return await execute(*arguments)

            monkeypatch.setattr(node, "execute", late)
            with ExitStack() as stack:
                for number in range(WRITES + 1):
                    one, mine = await _connected(server, stack), number == WRITES
                    one.send(
                        server.signed(
                            "PUT", f"/bbb/{number}", {"content-length": str(len(body))}, calm if mine else None
                        )
                        + body
                    )
                while waiting < WRITES + 1:
                    await asyncio.sleep(0)
                held.set()
                while len(ended) < WRITES + 1:
                    await asyncio.sleep(0)
                    rounds += 1

    asyncio.run(test())
    (when,) = (number for user, number in ended if user == "calm")
    assert [user for user, number in ended if number == when].index("calm") <= 2 * AN_ANSWERS_ROUND
    assert max(sum(at == one for _, at in ended) for one in {at for _, at in ended}) <= 2 * AN_ANSWERS_ROUND + 1
    assert [user for user, _ in ended].index("calm") <= 2 * AN_ANSWERS_ROUND


def test_a_request_of_many_deletes_has_a_window_of_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> int:
        async with opened(tmp_path / "data", durability="none") as (_, gateway):
            await create_bucket(gateway, "bbb", "root")
            execute, at_once, most = gateway.node.execute, 0, 0

            async def counted(*arguments: Any) -> Any:
                nonlocal at_once, most
                at_once += 1
                most = max(most, at_once)
                try:
                    return await execute(*arguments)
                finally:
                    at_once -= 1

            monkeypatch.setattr(gateway.node, "execute", counted)
            await delete_objects(gateway, "bbb", [(b"%d" % number, "", "") for number in range(300)], "root")
            return most

    assert asyncio.run(test()) == WINDOW


def _upload(server: Endpoint, form: bool) -> bytes:
    """The beginning of an upload of which more is to come."""
    if not form:
        return server.signed("PUT", "/bbb/slow", {"content-length": "1000000"})
    signer = make_client("http://localhost", server.access, server.secret, signature_version="s3v4")
    fields = {**signer.generate_presigned_post("bbb", "slow")["fields"], "file": ""}
    signer.close()
    body = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    kind = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000"
    return f"POST /bbb HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n{body}".encode()[:-2]


def test_a_form_of_whose_file_little_has_come_holds_no_place(tmp_path: Path) -> None:
    async def test() -> None:
        async with endpoint(tmp_path, time.time, Limits()) as server:
            admission = server._server.endpoint._admission  # type: ignore[attr-defined]
            with ExitStack() as stack:
                one, loop = await _connected(server, stack), asyncio.get_running_loop()
                one.setblocking(False)
                one.send(_upload(server, form=True))
                while not admission.known:  # its reader looks one piece ahead
                    await loop.sock_sendall(one, b"x")
                    await asyncio.sleep(0)
                await until(lambda: admission.places.taken == 0)
                assert admission.known == 1, "it goes on"

    asyncio.run(test())


@pytest.mark.parametrize("form", [False, True])
def test_an_upload_whose_client_trickles_is_ended_by_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: bool
) -> None:
    """Each time that it is waited for takes a hundred seconds of the clock that counts."""
    now = 1000.0

    def clock() -> float:
        nonlocal now
        now += 100.0
        return now

    async def test() -> tuple[bytes, int]:
        async with endpoint(tmp_path, time.time, Limits(stall_s=250.0)) as server:
            for module in (http_request, forms):
                monkeypatch.setattr(module, "boot_clock", clock)
            with ExitStack() as stack:
                one, loop, sent = await _connected(server, stack), asyncio.get_running_loop(), 0
                one.setblocking(False)
                one.send(_upload(server, form))
                answer = asyncio.ensure_future(loop.sock_recv(one, 65536))
                while not answer.done() and sent < 50:
                    sent += 1
                    await loop.sock_sendall(one, b"trickling")
                    for _ in range(20):
                        await asyncio.sleep(0)
                assert answer.done(), "it goes on for as long as a byte comes now and then"
                return await answer, sent

    answer, sent = asyncio.run(test())
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"<Code>RequestTimeout</Code>" in answer
    assert 2 <= sent < 50
