"""What the admin port refuses: signatures made for S3, in an address, over another body; callers without TLS; those
who wait."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from raw import Answer, exchange, send, signed
from s4.cli.admin_client import AdminClient, AdminError
from s4.config.limits import Limits
from s4.crypto.authority import Authority
from s4.http.admin_access import Door
from s4.http.admin_port import AdminPort, is_local
from s4.peer.trust import Credentials
from s4.s3 import sigv4
from s4.s3.errors import S3Error

USER = "/admin/v1/users/mallory"
BODY = b'{"grants": ["SuperUser"], "create": true}'


def called(
    server: ServerProcess,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    service: str = sigv4.ADMIN,
    sent: bytes | None = None,
    access: str = ACCESS,
    secret: str = SECRET,
    digest: str = "",
    **more: str,
) -> Answer:
    """`sent` is the body that goes out, where it is not the one that was signed."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = digest or hashlib.sha256(body).hexdigest()
    headers = {"host": urlsplit(server.admin).netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp, **more}
    headers["authorization"] = sigv4.authorization(access, secret, REGION, method, target, headers, service)
    return send(server.admin, method, target, headers, body if sent is None else sent)


def users(server: ServerProcess) -> list[str]:
    return [one["name"] for one in server.ask("GET", "/users")["users"]]


def test_a_signature_for_s3_is_none_for_the_admin_port(server: ServerProcess) -> None:
    answers = {
        "of S3": called(server, "PUT", USER, BODY, service="s3"),
        "of IAM": called(server, "PUT", USER, BODY, service="iam"),
    }
    assert {what: answer.status for what, answer in answers.items()} == dict.fromkeys(answers, 403)
    assert "s4-admin" in json.loads(answers["of S3"].body)["message"]  # what an older `s4 admin` prints
    assert "mallory" not in users(server)


def test_a_client_of_s3_is_told_where_s3_is(server: ServerProcess) -> None:
    client = make_client(server.admin, ACCESS, SECRET)
    for call in (client.list_buckets, lambda: client.put_object(Bucket="b", Key="k", Body=b"x")):
        with pytest.raises(ClientError, match=r"is S4's admin port.*S3 is at the port of --listen"):
            call()
    client.close()


def test_an_address_carries_no_signature(server: ServerProcess) -> None:
    target, headers, _ = signed(server.admin, "PUT", USER, presign_s=60)
    for query in (target, target.replace("%2Fs3%2F", "%2Fs4-admin%2F")):
        answer = send(server.admin, "PUT", query, headers, BODY)
        assert (answer.status, json.loads(answer.body)["error"]) == (403, "AccessDenied")
        assert "signed in its headers" in json.loads(answer.body)["message"]
    answer = called(server, "PUT", f"{USER}?X-Amz-Expires=60", BODY)
    assert "signed in its headers" in json.loads(answer.body)["message"]
    assert "mallory" not in users(server)


def test_the_body_is_the_one_that_was_signed(server: ServerProcess) -> None:
    other = b'{"grants": ["Reader"], "create": true}'
    answer = called(server, "PUT", USER, other, sent=BODY)
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "XAmzContentSHA256Mismatch")
    for digest in (sigv4.UNSIGNED, sigv4.STREAMING, "x" * 64):
        answer = called(server, "PUT", USER, BODY, digest=digest)
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "InvalidArgument")
    assert called(server, "PUT", USER, b"x" * (1 << 20 | 1)).status == 400
    assert "mallory" not in users(server)
    assert called(server, "PUT", USER, BODY).status == 200
    assert called(server, "DELETE", USER).status == 200


def test_s3_takes_no_signature_of_the_admin_port(server: ServerProcess) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "host": urlsplit(server.endpoint).netloc,
        "x-amz-content-sha256": sigv4.EMPTY_SHA256,
        "x-amz-date": stamp,
    }
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, REGION, "GET", "/", headers, sigv4.ADMIN)
    assert send(server.endpoint, "GET", "/", headers).code == "SignatureDoesNotMatch"


def test_no_bucket_is_named_like_the_admin_ports_paths(server: ServerProcess, s3: Any) -> None:
    for name in ("admin", "metrics", "healthz", "readyz", "api"):
        with pytest.raises(ClientError, match="InvalidBucketName"):
            s3.create_bucket(Bucket=name)


def test_who_is_not_known_is_answered_before_its_body(server: ServerProcess) -> None:
    """A body is read of callers that may call, so that nobody else keeps one waiting."""
    head = f"PUT {USER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
    assert exchange(server.admin, head + b"x", limit_s=5).startswith(b"HTTP/1.1 403")


# -- TLS. That a caller is on another machine is said by `here`: tests have loopback only.


async def _served(
    directory: Path,
    work: Callable[[AdminPort, Path], Awaitable[None]],
    *,
    in_the_clear: bool = False,
    most: int = 64,
    here: Callable[[object], bool] = lambda _: False,
    port: socket.socket | None = None,
) -> None:
    authority, certificate, key = Authority(directory).issue("node-1")
    gateway = cast(Any, SimpleNamespace(clock=time.time))
    door = Door(gateway, Limits(), REGION, in_the_clear=in_the_clear, here=here)

    async def asked(request: web.Request) -> web.Response:
        try:
            await door.admit(request)
        except S3Error as error:
            return web.json_response({"error": error.code, "message": error.message}, status=error.status)
        raise AssertionError("nobody is let in without a signature")

    ended = asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    application = web.Application()
    application.router.add_get("/healthz", _ok)
    application.router.add_get("/slow", slow)
    application.router.add_route("*", "/admin/v1/{rest}", asked)
    served = AdminPort(application, port or _bound(), Credentials(authority, certificate, key).admin, most)
    await served.start()
    try:
        await work(served, authority)
    finally:
        ended.set()
        await served.close()


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def test_calls_from_other_machines_come_over_tls(tmp_path: Path) -> None:
    port = _bound()
    where = f"127.0.0.1:{port.getsockname()[1]}"

    def plain() -> str:
        with pytest.raises(AdminError) as caught:
            list(AdminClient(where, ACCESS, SECRET, REGION).call("GET", "/status"))
        return str(caught.value)

    def encrypted(authority: Path) -> str:
        with pytest.raises(AdminError) as caught:
            list(AdminClient(where, "", SECRET, REGION, str(authority)).call("GET", "/status"))
        return str(caught.value)

    async def work(_: AdminPort, authority: Path) -> None:
        assert "over TLS only" in await asyncio.to_thread(plain)
        assert "Credential is malformed" in await asyncio.to_thread(
            encrypted, authority
        )  # let through to the signature
        other = Authority(tmp_path / "other").ca
        assert "certificate verify failed" in await asyncio.to_thread(encrypted, other)
        reader, writer = await asyncio.open_connection(*where.split(":"))  # probes and metrics speak no TLS
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()

    asyncio.run(_served(tmp_path, work, port=port))


def test_an_operator_may_say_that_they_come_in_the_clear(tmp_path: Path) -> None:
    port = _bound()

    def refused() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port.getsockname()[1], timeout=20)
        connection.request("GET", "/admin/v1/status")
        said = connection.getresponse().read().decode()
        connection.close()
        return said

    async def work(_: AdminPort, __: Path) -> None:
        assert "AccessDenied" in await asyncio.to_thread(refused)

    asyncio.run(_served(tmp_path, work, port=port, in_the_clear=True))


def test_which_addresses_are_this_machines_own() -> None:
    assert is_local(("127.0.0.1", 9001))
    assert is_local(("127.9.8.7", 9001))
    assert is_local(("::1", 9001, 0, 0))
    assert is_local(("::ffff:127.0.0.1", 9001, 0, 0))
    for other in (
        ("10.0.0.1", 9001),
        ("0.0.0.0", 9001),
        ("::", 9001, 0, 0),
        ("::ffff:10.0.0.1", 9001, 0, 0),
        "",
        None,
        ("x", 1),
    ):
        assert not is_local(other)


def test_admin_connections_who_say_nothing_give_way(tmp_path: Path) -> None:
    """As many as are allowed say nothing, or begin with TLS and end there; the next one is served all the same. The
    one whose request is being worked on stays."""
    port = _bound()
    address = "127.0.0.1", port.getsockname()[1]

    async def work(_: AdminPort, authority: Path) -> None:
        busy, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        silent = [await asyncio.open_connection(*address) for _ in range(10)]
        for number, (_, one) in enumerate(silent):
            one.write((b"", b"\x16\x03\x01", b"GET /healthz HTT")[number % 3])
        context = ssl.create_default_context(cafile=authority)
        context.check_hostname = False
        for secure in (None, context):
            reader, other = await asyncio.open_connection(*address, ssl=secure)
            other.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            other.close()
        for reader, _ in silent[:6]:  # the oldest
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
        assert not busy.at_eof()
        for _, one in (*silent, (busy, writer)):
            one.close()

    asyncio.run(_served(tmp_path, work, port=port, most=4))
