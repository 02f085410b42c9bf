"""What a certificate is good for between peers: a gateway's is no node's, S3's is nobody's, and those of 0.7 end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from peer.test_tcp import CLUSTER, STORE, Served, served
from s4.base.clock import boot_clock
from s4.crypto.authority import Authority
from s4.crypto.roles import GATEWAY, GRACE_S, NODE, OF_GATEWAYS, OF_NODES, S3, CertificateRule, may, uri
from s4.peer import frames
from s4.peer.api import UnavailableError
from s4.peer.client import RefusedError, RemoteNode
from s4.peer.trust import Credentials

NONE = {"subject": (), "subjectAltName": (("DNS", "*.nodes.svc"),)}


def named(*roles: str) -> dict[str, object]:
    return {"subjectAltName": (("DNS", "x"), *(("URI", uri(one)) for one in roles))}


def test_every_call_asks_for_a_role() -> None:
    assert set(frames.METHODS) == OF_NODES | OF_GATEWAYS
    assert not OF_NODES & OF_GATEWAYS
    assert all(may(NODE, name) for name in frames.METHODS)
    assert {name for name in frames.METHODS if may(GATEWAY, name)} == OF_GATEWAYS
    assert not any(may(role, name) for role in (S3, "") for name in frames.METHODS)


def test_certificates_without_a_role_are_taken_for_a_week() -> None:
    """Counted from when our own was made, which has one; where it has none, nothing changes."""
    ours = CertificateRule(1000.0 + GRACE_S)
    assert (ours.role(NONE, 1000.0), ours.role(NONE, 1000.0 + GRACE_S - 1), ours.role(NONE, 1000.0 + GRACE_S)) == (
        NODE,
        NODE,
        "",
    )
    assert CertificateRule().role(NONE, 1e12) == NODE
    for rule in (ours, CertificateRule()):
        assert (rule.role(named(NODE), 1e12), rule.role(named(GATEWAY), 1e12), rule.role(named(S3), 0.0)) == (
            NODE,
            GATEWAY,
            "",
        )


def test_our_own_certificate_says_when_that_ends(tmp_path: Path) -> None:
    until_s = Credentials(*Authority(tmp_path).issue("node-1")).client.rule.until_s
    assert abs(until_s - (time.time() - 3600 + GRACE_S)) < 120


def test_a_gateway_makes_no_node_s_calls(tmp_path: Path) -> None:
    async def test(made: Served) -> None:
        gateway = await made.connect()
        assert (await gateway.layout()).partitions
        with pytest.raises(UnavailableError, match="not good for wall_clock"):
            await gateway.wall_clock()
        assert (await gateway.layout()).partitions  # a call that was refused costs no connection
        await gateway.close()
        node = await made.connect(context=Credentials(*made.authority.issue("node-2")).client)
        assert await node.wall_clock()
        await node.close()

    served(tmp_path, test)


def test_the_certificate_of_s3_is_no_peers(tmp_path: Path) -> None:
    async def test(made: Served) -> None:
        with pytest.raises(RefusedError, match="not that of a node or gateway"):
            await made.connect(context=Credentials(*made.authority.issue("s3", S3)).client)

    served(tmp_path, test)


@pytest.mark.parametrize("role", [GATEWAY, S3])
def test_who_is_no_node_cannot_pass_for_one(tmp_path: Path, role: str) -> None:
    """By its own certificate it takes the place of a store's address: nobody speaks to it."""
    authority = Authority(tmp_path / "authority")

    async def test() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        false = await asyncio.start_server(
            answer, "127.0.0.1", 0, ssl=Credentials(*authority.issue("false", role)).server
        )
        where = false.sockets[0].getsockname()[:2]
        with pytest.raises(RefusedError, match="no node's certificate"):
            await RemoteNode.connect(
                where,
                boot_clock,
                lambda: None,
                cluster=CLUSTER,
                store=STORE,
                context=Credentials(*authority.issue("node-1")).client,
            )
        false.close()

    asyncio.run(test())
