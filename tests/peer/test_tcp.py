"""Peers over TCP: who may speak to whom, in which version, and what happens when the other side falls silent."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inprocess import opened, until
from s4.base.clock import boot_clock
from s4.crypto.authority import Authority
from s4.metadata import commands
from s4.peer import client, frames
from s4.peer.api import NodeApi, UnavailableError
from s4.peer.client import RefusedError, RemoteNode
from s4.peer.server import PeerServer
from s4.peer.stream import FrameStream, listen
from s4.peer.trust import Credentials
from s4.storage.records import Shard

CLUSTER, STORE = "c" * 32, "5" * 32


class Served:
    """A store served over TCP."""

    def __init__(self, authority: Authority, server: PeerServer, node: NodeApi) -> None:
        self.authority, self.server, self.node = authority, server, node
        self.lost = 0

    async def connect(self, authority: Authority | None = None, **options: Any) -> RemoteNode:
        def lost() -> None:
            self.lost += 1

        context = Credentials(*(authority or self.authority).issue("gateway")).client
        named = {"cluster": CLUSTER, "store": STORE, "context": context, **options}
        return await RemoteNode.connect(("127.0.0.1", self.server.port), boot_clock, lost, **named)


def served(tmp_path: Path, test: Callable[[Served], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        authority = Authority(tmp_path / "authority")
        async with opened(tmp_path / "data") as (store, _):
            context = Credentials(*authority.issue("node")).server
            server = PeerServer(store.node, ("127.0.0.1", 0), cluster=CLUSTER, store=STORE, context=context, **options)
            await server.start()
            try:
                await test(Served(authority, server, store.node))
            finally:
                await server.close()

    asyncio.run(whole())


def test_calls_and_bulk_at_once(tmp_path: Path) -> None:
    """Many calls of all sizes on one connection: each gets its own answer."""

    async def test(at: Served) -> None:
        remote = await at.connect()
        node: NodeApi = remote
        assert remote.version == frames.VERSIONS[1]
        bodies = {number: os.urandom(1 + number * 37_000) for number in range(40)}

        async def one(number: int, body: bytes) -> None:
            shard = Shard(number % 16, bytes([number]) * 16, 0, 0)
            await node.append(shard, memoryview(body), True)
            assert await node.read(shard, 0, len(body)) == body
            made = await node.execute(0, commands.CreateBucket(f"bucket-{number}", "root", 100, 100))
            assert isinstance(made, commands.BucketMade)
            assert await node.find_bucket(f"bucket-{number}") == made.bucket

        await asyncio.gather(*(one(*item) for item in bodies.items()))
        assert len(await node.list_buckets()) == 40
        await remote.close()

    served(tmp_path, test)


def test_only_members_of_the_cluster_get_in(tmp_path: Path) -> None:
    """No certificate, one of another authority, and a plain connection: nothing is answered."""

    async def test(at: Served) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError, UnavailableError)):
            await at.connect(Authority(tmp_path / "other"))
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname = False
        bare.load_verify_locations(at.authority.ca)
        with pytest.raises((ssl.SSLError, ConnectionError, UnavailableError)):
            await at.connect(context=bare)
        stranger = Credentials(*Authority(tmp_path / "third").issue("x")).client
        stranger.load_verify_locations(at.authority.ca)
        with pytest.raises((ssl.SSLError, ConnectionError, UnavailableError)):
            await at.connect(context=stranger)
        reader, writer = await asyncio.open_connection("127.0.0.1", at.server.port)
        writer.write(b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"\x00" * 16)
        assert await asyncio.wait_for(reader.read(), 15) in (
            b"",
            b"\x15\x03\x01\x00\x02\x02\x46",
        )  # at most a TLS alert
        writer.close()
        good = await at.connect()
        assert (await good.layout()).partitions == 16
        await good.close()

    served(tmp_path, test)


def test_a_server_on_tcp_must_ask_for_certificates(tmp_path: Path) -> None:
    async def test(at: Served) -> None:
        for context in (None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
            with pytest.raises(ValueError, match="only to those who show a certificate"):
                PeerServer(at.node, ("127.0.0.1", 0), context=context)  # type: ignore[arg-type]

    served(tmp_path, test)


def test_whom_one_means_is_checked(tmp_path: Path) -> None:
    """D2: another cluster's disk, or a wiped pod under its old name, is another store, and says so."""

    async def test(at: Served) -> None:
        with pytest.raises(RefusedError, match=f"this is store {STORE}, not {'6' * 32}"):
            await at.connect(store="6" * 32)
        with pytest.raises(RefusedError, match=f"this is cluster {CLUSTER}, not dddd"):
            await at.connect(cluster="dddd")

    served(tmp_path, test)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [((1, 1), (1, 2), 1), ((1, 2), (1, 2), 2), ((2, 3), (1, 2), 2), ((1, 3), (2, 4), 3)]
)
def test_two_releases_speak_the_newest_version_of_both(
    tmp_path: Path, ours: tuple[int, int], theirs: tuple[int, int], agreed: int
) -> None:
    async def test(at: Served) -> None:
        remote = await at.connect(versions=theirs)
        assert remote.version == agreed
        await remote.close()

    served(tmp_path, test, versions=ours)


def test_from_a_mark_on_nobody_speaks_with_an_older_program(tmp_path: Path) -> None:
    """What is connected is cut off, what comes is refused in words; who speaks more goes on."""

    async def test(at: Served) -> None:
        older, newer = await at.connect(versions=(1, 1)), await at.connect(versions=(1, 2))
        assert at.server.spoken() == 1
        at.server.only(2)
        await until(lambda: older.gone)
        assert (await newer.layout()).partitions == 16
        assert at.server.spoken() == 2
        with pytest.raises(
            RefusedError, match="the caller speaks versions 1 to 1 of the peer protocol, this S4 2 to 2"
        ):
            await at.connect(versions=(1, 1))
        await older.close()
        await newer.close()

    served(tmp_path, test)


def test_releases_too_far_apart_are_told_which_to_upgrade(tmp_path: Path) -> None:
    async def test(at: Served) -> None:
        with pytest.raises(
            RefusedError,
            match="the caller speaks versions 1 to 1 of the peer protocol, this S4 3 to 4: upgrade one release",
        ):
            await at.connect(versions=(1, 1))

    served(tmp_path, test, versions=(3, 4))


def test_fields_of_a_later_release_are_passed_over() -> None:
    raw = frames.encode([7, 1, "layout", 0, [], 5000, "new", {"x": 1}])
    header = frames.value_of(msgspec.msgpack.Decoder(frames.Header), raw)
    assert (header.id, header.name, header.patience_ms) == (7, "layout", 5000)
    assert frames.value_of(frames.hello_decoder, frames.encode([1, 2, "c", "s", "w", "new"])) == frames.Hello(
        1, 2, "c", "s", "w"
    )
    assert (
        frames.value_of(msgspec.msgpack.Decoder(frames.Header), frames.encode([7, 1, "layout", 0, []])).patience_ms == 0
    )


def test_a_caller_without_a_hello_is_cut_off(tmp_path: Path) -> None:
    async def test(at: Served) -> None:
        context = Credentials(*at.authority.issue("rude")).client
        reader, writer = await asyncio.open_connection("127.0.0.1", at.server.port, ssl=context)
        header = frames.Header(1, at.server.incarnation, "list_buckets", frames.OK, msgspec.Raw(frames.encode([])))
        writer.writelines(frames.pack(header))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    served(tmp_path, test)


def test_a_store_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine died: no answer, no end of the connection. Beacons notice, and calls in flight fail with them."""
    monkeypatch.setattr(client, "BEACON_LIMIT_S", 0.5)

    async def test(at: Served) -> None:
        remote = await at.connect()
        execute: Any = remote.execute
        at.server._answer = lambda *_: None  # type: ignore[method-assign]  # it reads, and says nothing any more
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            await execute(0, commands.CreateBucket("silent", "root", 10, 10))
        assert time.monotonic() - started < 10
        assert at.lost == 1
        with pytest.raises(UnavailableError):
            await remote.layout()
        await remote.close()

    served(tmp_path, test)


def test_a_machine_that_is_mute_is_given_up_though_tls_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost power: not even TLS hears a word. Calls waited half a minute for its farewell, and so did whoever was to
    connect anew."""
    monkeypatch.setattr(client, "BEACON_LIMIT_S", 0.5)

    async def test(at: Served) -> None:
        mute, over, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (data := await reader.read(1 << 16)) and not mute.is_set():
                writer.write(data)

        async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", at.server.port)
            ways = [asyncio.create_task(carry(*way)) for way in ((reader, back), (there, writer))]
            await over.wait()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for side in (back, writer):
                side.transport.abort()
            ended.set()

        proxy = await asyncio.start_server(between, "127.0.0.1", 0)
        context = Credentials(*at.authority.issue("gateway")).client
        gone, address = asyncio.Event(), proxy.sockets[0].getsockname()[:2]
        remote = await RemoteNode.connect(address, boot_clock, gone.set, cluster=CLUSTER, store=STORE, context=context)
        mute.set()
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            await remote.list_buckets()
        assert time.monotonic() - started < 15
        assert remote.gone
        assert gone.is_set()
        await remote.close()
        over.set()
        await ended.wait()
        proxy.close()

    served(tmp_path, test)


def test_settings_that_others_may_have_changed_are_asked_for_again(tmp_path: Path) -> None:
    """L2: a node stood by, another led and changed a bucket; then the first one leads again. Who cached what it had
    said before took that for true as soon as a beacon was answered with a lease."""

    async def test(at: Served) -> None:
        node: Any = at.node
        remote = await at.connect()
        await remote.execute(0, commands.CreateBucket("photos", "root", 100, 100))
        assert await remote.find_bucket("photos") is not None
        node.may_cache = lambda: False
        await remote._beacon()
        told, node.on_settings = node.on_settings, None  # what another changes is not told here
        await node.execute(0, commands.BeginDelete("photos", b"token"))
        node.on_settings = told
        del node.may_cache
        await remote._beacon()
        assert remote.known_bucket("photos") is None
        found = await remote.find_bucket("photos")
        assert found is not None
        assert found.deleting
        await remote.close()

    served(tmp_path, test)


def test_a_gateway_that_went_away_is_waited_for(tmp_path: Path) -> None:
    """Rule D6: it may go on reading what it began, so nothing is freed under it for `ghost_s`."""

    async def test(at: Served) -> None:
        gateway = await at.connect()
        await gateway.list_buckets()
        gone = boot_clock()
        await gateway.close()
        await until(lambda: not at.server._gateways)
        assert at.server.oldest_reader() < gone
        at.server._ghost_s = 0.0  # as after that time
        assert at.server.oldest_reader() >= gone

    served(tmp_path, test, ghost_s=3600.0)


def test_a_beacon_that_is_late_hides_no_reader_that_began_meanwhile(tmp_path: Path) -> None:
    """Rule D6: a request that began while its gateway's beacon was on its way could have its shards freed as it
    read."""
    now, late = [10.0], [0.0]

    async def test() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server = PeerServer(store.node, tmp_path / "socket", clock=lambda: now[0] + late[0])
            await server.start()
            remote = await RemoteNode.connect(tmp_path / "socket", lambda: now[0], lambda: None, clock=lambda: now[0])
            now[0], late[0] = 20.0, 5.0
            await remote._beacon()
            assert server.oldest_reader() <= 20.0, "one may have begun since it was sent"
            now[0], late[0] = 30.0, 0.0
            await remote._beacon()
            assert 20.0 <= server.oldest_reader() <= 30.0, "by now none is there that was there then"
            await remote.close()
            await server.close()

    asyncio.run(test())


def test_a_gateway_whose_beacon_waits_is_heard_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer stands behind bulk for longer than a silent gateway is waited for: the calls that brought the bulk
    were cut off with it, and what they read was freed (D6)."""
    monkeypatch.setattr(client, "BEACON_LIMIT_S", 0.5)
    monkeypatch.setattr(client, "QUIET_S", 0.01)
    monkeypatch.setattr(client, "BEACON_S", 0.01)

    async def test(at: Served) -> None:
        remote, began = await at.connect(), boot_clock()
        at.server._ghost_s = 0.5
        waiting: list[Any] = []
        answer, at.server._answer = at.server._answer, lambda *told: waiting.append(told)  # type: ignore[method-assign]
        await until(lambda: len(waiting) == 1)
        stream = next(iter(at.server._gateways)).stream
        nonsense = frames.pack(frames.Header(10_000, 7, "", frames.OK, msgspec.Raw(frames.encode(None))))
        while boot_clock() < began + 2:  # four times as long
            stream.send(nonsense)  # bulk, of which a part came
            assert at.server.oldest_reader() < began + 0.3
            await asyncio.sleep(0.05)
        at.server._answer = answer  # type: ignore[method-assign]
        assert [not remote.gone, len(waiting)] == [True, 1]
        answer(*waiting[0])
        await until(lambda: at.server.oldest_reader() > began + 1)
        await remote.close()

    served(tmp_path, test)


def test_a_gateway_that_is_back_still_reads_what_it_read(tmp_path: Path) -> None:
    """Until its first beacon came, it passed for one that begins now (D6)."""

    async def test(at: Served) -> None:
        began = boot_clock() - 1000
        context = Credentials(*at.authority.issue("gateway")).client
        address, named = ("127.0.0.1", at.server.port), {"cluster": CLUSTER, "store": STORE, "caller": "me"}
        first = await RemoteNode.connect(address, lambda: began, lambda: None, context=context, **named)
        await first.close()
        await until(lambda: not at.server._gateways)
        seen: list[float] = []
        answer = at.server._answer

        def spy(*told: Any) -> None:
            seen.append(at.server.oldest_reader())
            answer(*told)

        at.server._answer = spy  # type: ignore[method-assign]
        second = await RemoteNode.connect(address, boot_clock, lambda: None, context=context, **named)
        assert seen[0] == pytest.approx(began, abs=5), "at its hello"
        await until(lambda: at.server.oldest_reader() > began + 900)
        await second.close()

    served(tmp_path, test, ghost_s=3600.0)


def test_who_is_not_heard_any_more_holds_nothing_back(tmp_path: Path) -> None:
    """A machine that lost power leaves a connection on which nothing comes and nothing is sent: TCP never says that it
    is gone. What it read when it was last heard held back every free and every compaction, for ever."""

    async def test(at: Served) -> None:
        context, gone = Credentials(*at.authority.issue("gateway")).client, asyncio.Event()
        began = boot_clock() - 1000
        remote = await RemoteNode.connect(
            ("127.0.0.1", at.server.port), lambda: began, gone.set, cluster=CLUSTER, store=STORE, context=context
        )
        assert at.server.oldest_reader() == pytest.approx(began, abs=5)  # heard just now, it counts
        at.server._ghost_s = 0.0  # and now it has been silent for as long as that
        assert at.server.oldest_reader() > began + 500
        await asyncio.wait_for(gone.wait(), 30)
        await remote.close()

    served(tmp_path, test)


def test_settings_are_leased_to_who_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for none, and has no call under way, says seldom that it is there: beacons were most of what a cluster
    cost at rest."""
    monkeypatch.setattr(client, "BEACON_S", 0.01)
    monkeypatch.setattr(client, "QUIET_S", 1e9)

    async def test() -> None:
        peers = {name: Busy(answers=True) for name in ("asked", "calling", "quiet")}
        servers = [await listen(peer.begin, tmp_path / name) for name, peer in peers.items()]
        remotes = [await RemoteNode.connect(tmp_path / name, boot_clock, lambda: None) for name in peers]
        call = asyncio.ensure_future(remotes[1].list_buckets())  # is never answered

        def renewed() -> bool:
            remotes[0].known_bucket("any")
            return peers["asked"].beacons >= 5

        await until(renewed)
        await until(lambda: peers["calling"].beacons >= 5)
        assert peers["quiet"].beacons == 1  # as it connected
        for one in (*remotes, *servers):
            await one.close() if isinstance(one, RemoteNode) else one.close()
        call.cancel()

    asyncio.run(test())


class Busy:
    """A peer that is heard, and answers no beacon but the first before it `answers`: what stands behind bulk."""

    def __init__(self, *, answers: bool = False) -> None:
        self.beacons, self.said, self.talks, self.answers = 0, 0, True, answers
        self.tasks: list[asyncio.Future[None]] = []

    def begin(self, stream: FrameStream) -> None:
        self.tasks.append(asyncio.ensure_future(self.serve(stream)))

    async def serve(self, stream: FrameStream) -> None:
        try:
            while True:
                header, _ = await stream.read()
                if header.name == frames.HELLO:
                    self._say(stream, header.id, frames.Welcome(1, 7))
                elif header.name == frames.BEACON:  # else a call, which is never answered
                    self.beacons += 1
                    self.tasks.append(asyncio.ensure_future(self.answer(stream, header.id, self.beacons == 1)))
        except OSError:
            stream.close()

    async def answer(self, stream: FrameStream, beacon: int, first: bool) -> None:
        while not (first or self.answers):
            if self.talks:
                self._say(stream, 10_000, None)  # an answer that nobody waits for any more
                self.said += 1
            await asyncio.sleep(0.05)
        self._say(stream, beacon, True)

    @staticmethod
    def _say(stream: FrameStream, call: int, value: Any) -> None:
        stream.send(frames.pack(frames.Header(call, 7, "", frames.OK, msgspec.Raw(frames.encode(value)))))


def test_a_peer_that_is_heard_is_not_given_up_though_beacons_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many megabytes before a beacon's answer, on a busy machine: the connection was closed under the calls that
    brought them."""
    monkeypatch.setattr(client, "BEACON_S", 0.01)
    monkeypatch.setattr(client, "QUIET_S", 0.01)
    monkeypatch.setattr(client, "BEACON_LIMIT_S", 0.5)

    async def test() -> None:
        peer = Busy()
        server = await listen(peer.begin, tmp_path / "socket")
        remote = await RemoteNode.connect(tmp_path / "socket", boot_clock, lambda: None)
        await until(lambda: peer.said >= 30 or remote.gone)  # three times the limit
        assert not remote.gone
        assert peer.beacons == 2, "the next one is sent once this is answered"
        peer.answers = True
        await until(lambda: peer.beacons >= 4 or remote.gone)
        assert not remote.gone
        peer.talks = peer.answers = False
        await until(lambda: remote.gone)
        await remote.close()
        server.close()
        await server.wait_closed()

    asyncio.run(test())
