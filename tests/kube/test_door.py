"""The operator at an admin port: TLS of the cluster's authority, and what was spoken before 0.8 only where that may be
there."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from s4_operator.certificates import Pair, make
from s4_operator.daemons import DaemonError, Daemons, Door

NAME = "*.c-nodes.default.svc"


def authority(name: str) -> Pair:
    return make(name, time.time(), 3600.0)


async def asked(tmp_path: Path, signer: Pair | None, trusted: Pair, *, old: bool) -> list[tuple[str, str]]:
    """(scheme, service that it was signed for) of the calls that a port took, which shows a certificate of `signer`."""
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.scheme, request.headers["Authorization"].partition("/aws4_request")[0].rpartition("/")[2]))
        return web.json_response({"users": []})

    context = None
    if signer is not None:
        leaf = make("c", time.time(), 3600.0, [NAME], signer)
        (tmp_path / "tls.crt").write_text(leaf.certificate)
        (tmp_path / "tls.key").write_text(leaf.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    app = web.Application()
    app.router.add_get("/admin/v1/users", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    door = Door(ssl.create_default_context(cadata=trusted.certificate), "node.c-nodes.default.svc", old)
    try:
        async with aiohttp.ClientSession() as session:
            await Daemons(
                session, [f"127.0.0.1:{port}"], "http://nowhere", "us-east-1", "access", "secret", None, door
            ).users()
    except DaemonError:
        seen.append(("refused", ""))
    finally:
        await runner.cleanup()
    return seen


@pytest.mark.parametrize("old", [False, True])
def test_a_daemon_is_spoken_to_over_tls(tmp_path: Path, old: bool) -> None:
    own = authority("own")
    assert asyncio.run(asked(tmp_path, own, own, old=old)) == [("https", "s4-admin")]


def test_one_of_before_is_spoken_to_as_before_while_it_may_be_there(tmp_path: Path) -> None:
    assert asyncio.run(asked(tmp_path, None, authority("own"), old=True)) == [("http", "s3")]
    assert asyncio.run(asked(tmp_path, None, authority("own"), old=False)) == [("refused", "")]


@pytest.mark.parametrize("old", [False, True])
def test_one_with_a_certificate_of_another_authority_hears_nothing(tmp_path: Path, old: bool) -> None:
    assert asyncio.run(asked(tmp_path, authority("another"), authority("own"), old=old)) == [("refused", "")]
