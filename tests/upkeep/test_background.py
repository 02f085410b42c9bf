"""Background work goes on after an error that nobody listed, here of the kinds that ended it for good; and answers are
dropped only by clocks that agree (R12, R13)."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inprocess import finished, get, opened, put, until
from s4.base import jobs as jobs_module
from s4.base.clock import boot_clock
from s4.base.jobs import Job, Jobs
from s4.cluster.clocks import Clocks
from s4.gateway import buckets
from s4.gateway.objects import delete_object
from s4.metadata import commands, keys
from s4.metadata.rows import Answer, Blob, encode
from s4.node.member import MemberNode
from s4.peer.api import UnavailableError
from s4.peer.client import RemoteNode
from s4.peer.links import Links
from s4.peer.server import PeerServer
from s4.s3.errors import S3Error
from s4.storage.leveldb import DatabaseError
from s4.storage.records import DamagedError
from s4.upkeep.leader import Leader
from s4.upkeep.mend import Mender
from s4.upkeep.renames import Renames


def failing(real: Callable[..., Any], *errors: Exception) -> Callable[..., Any]:
    """What fails with each error once, and then works."""
    left = list(errors)

    def call(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(*arguments, **named)

    return call


def test_a_rename_of_a_prefix_goes_on_after_any_error(tmp_path: Path) -> None:
    """Ended for good it stayed half done, and `resume` took it for under way until the next start."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            jobs = Jobs()
            renames = Renames(gateway, jobs)
            await buckets.create_bucket(gateway, "b", "root")
            for number in range(20):
                await put(gateway, "b", b"old/%d" % number, b"x")
            store.node.list_objects = failing(store.node.list_objects, DatabaseError("a block"), KeyError("x"))  # type: ignore[method-assign]
            name = await renames.start("b", "old/", "new/")
            await finished(renames, name)
            assert not dict(await renames.jobs())[name].error
            for number in range(20):
                assert await get(gateway, "b", b"new/%d" % number) == b"x"
            await jobs.close()

    asyncio.run(whole())


def test_shards_that_cannot_be_freed_keep_no_others_waiting(tmp_path: Path) -> None:
    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            await buckets.create_bucket(gateway, "b", "root")
            for name in (b"one", b"two"):
                await put(gateway, "b", name, name * 50_000)
            for name in (b"one", b"two"):
                await delete_object(gateway, "b", name, "", "root")
            await store.node.close()  # it frees by itself, now and then
            drives = store.node.drives
            drives.free = failing(drives.free, OSError(errno.EIO, "x"))  # type: ignore[method-assign]
            assert store.node.outbox_waiting == 2
            with pytest.raises(OSError, match="x"):
                await store.node.reap()
            await store.node.reap()
            left = [
                row
                for partition in range(gateway.partitions)
                for row in store.host.scan(keys.table(partition, keys.OUTBOX))
            ]
            assert left == []

    asyncio.run(whole())


def test_a_call_between_turns_that_fails_ends_no_turns(tmp_path: Path) -> None:
    """It ended the writer loop, and every write waited for ever."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):

            def fail() -> None:
                raise DatabaseError("a block")

            with pytest.raises(DatabaseError):
                await asyncio.wait_for(store.host.between_turns(fail), 10)
            async with asyncio.timeout(10):
                await buckets.create_bucket(gateway, "b", "root")

    asyncio.run(whole())


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EHOSTUNREACH, "no route"), TimeoutError(errno.ETIMEDOUT, "x"), ValueError("nonsense")],
    ids=repr,
)
def test_a_connection_that_ends_by_any_error_is_known_to_have_ended(tmp_path: Path, error: Exception) -> None:
    """A host that is gone is no ConnectionError. The store was taken for up, and each call waited two minutes for
    nothing."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server = PeerServer(store.node, tmp_path / "peer.sock")
            await server.start()
            lost = asyncio.Event()
            remote = await RemoteNode.connect(tmp_path / "peer.sock", boot_clock, lost.set)
            remote._stream._ended(error)
            await asyncio.wait_for(lost.wait(), 10)
            assert remote.gone
            await remote.close()
            await server.close()

    asyncio.run(whole())


@pytest.mark.parametrize("error", [OSError(errno.EHOSTUNREACH, "no route"), ValueError("nonsense")], ids=repr)
def test_messages_of_replicas_go_on_after_any_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The link to a store ended for good, and what its replicas were to be told was put into a queue that nobody
    read."""
    posted: list[Any] = []

    class Remote:
        gone, version = False, 2

        def post(self, _name: str, _sender: str, batch: list[Any]) -> None:
            posted.extend(batch)

        drained = staticmethod(failing(lambda: asyncio.sleep(0), error))

        async def close(self) -> None:
            pass

    remote = Remote()

    async def connect(*_: Any, **__: Any) -> Remote:
        return remote

    monkeypatch.setattr(RemoteNode, "connect", connect)

    async def whole() -> None:
        links = Links("me", "cluster", {"s" * 32: ("host", 1)}, None)  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            while len(posted) < 5:
                links.send("s" * 32, 0, len(posted))  # type: ignore[arg-type]
                await asyncio.sleep(0.01)
        await links.close()

    asyncio.run(whole())


def test_a_store_that_answers_nonsense_keeps_no_other_clock_from_being_compared() -> None:
    """Without news of the others' clocks nothing expires, and no lock ends."""

    async def whole() -> None:
        class Node:
            def __init__(self, answer: Any) -> None:
                self.answer = answer

            async def wall_clock(self) -> float:
                if isinstance(self.answer, Exception):
                    raise self.answer
                return float(self.answer)

        nodes = {"bad": Node(ValueError("nonsense")), "good": Node(time.time())}

        async def node(store: str) -> Node:
            return nodes[store]

        at = SimpleNamespace(
            store="me",
            clocks=Clocks(),
            router=SimpleNamespace(node=node),
            _unheard={},
            keeper=SimpleNamespace(
                current=SimpleNamespace(stores={name: SimpleNamespace(state="serving") for name in ("me", *nodes)})
            ),
        )
        at._compare = lambda store: MemberNode._compare(at, store)
        await MemberNode.compare_clocks(at)  # type: ignore[arg-type]
        assert at.clocks.agree(boot_clock(), time.time())

    asyncio.run(whole())


class Led:
    """A node that leads one partition, with answers of these ages in seconds."""

    def __init__(self, *ages_s: float) -> None:
        now_ms = int(time.time() * 1000)
        ids = [keys.command_id(now_ms - int(age * 1000), bytes([at]) * 8) for at, age in enumerate(ages_s)]
        self.rows = {keys.answer_row(0, one): encode(Answer(keys.command_ms(one), b"")) for one in ids}
        self.agrees, self.partitions, self.host = True, 1, self

    def led(self) -> list[int]:
        return [0]

    def clocks_agree(self) -> bool:
        return self.agrees

    def scan(self, _table: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.rows.items()))

    async def submit(self, _partition: int, command: commands.ForgetAnswers, *, own: bool) -> commands.Taken:
        self.rows.clear()
        return commands.Taken(True)


def test_old_answers_are_dropped_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4.upkeep.leader.TRIM_S", 0.01)
    monkeypatch.setattr("s4.upkeep.leader.JOBS_S", 0.01)

    async def whole() -> None:
        node = Led(3600.0)
        node.scan = failing(node.scan, DatabaseError("a block"))  # type: ignore[method-assign]
        renamed: list[int] = []

        async def resume() -> None:
            renamed.append(1)
            raise [ValueError("x"), S3Error("SlowDown", ""), DatabaseError("x")][len(renamed) % 3]

        node.group = SimpleNamespace(serves=lambda _: True)  # type: ignore[attr-defined]
        jobs = Jobs()
        Leader(node, None, SimpleNamespace(resume=resume)).start(jobs)  # type: ignore[arg-type]
        await until(lambda: not node.rows and len(renamed) > 2)
        await jobs.close()

    asyncio.run(whole())


def test_a_partition_whose_repair_fails_keeps_no_other_waiting() -> None:
    """And the job knows: its error was told three times a second, and shown nowhere."""

    async def whole() -> None:
        seen: list[int] = []

        async def heal(partition: int) -> None:
            seen.append(partition)
            if partition == 1:
                raise KeyError("x")

        router = SimpleNamespace(is_up=None, read=None, discard=None)
        node: Any = SimpleNamespace(router=router, keeper=None, host=None, led=lambda: [0, 1, 2])
        mender = Mender(node, 0)
        mender._follow_plan = lambda _: None  # type: ignore[method-assign]
        mender.repair.heal_queue = heal  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            await asyncio.wait_for(mender.run(), 10)
        assert seen == [0, 1, 2]

    asyncio.run(whole())


def test_what_failed_is_no_more_told_by_who_leads_no_more() -> None:
    """Found by the simulator (seed 34): a node whose heal of a shard failed, and that led nothing from then on, said
    for ever that the shard cannot be made, long after who led next had made it."""

    async def whole() -> None:
        led = [3]
        rows = {keys.heal_row(3, b"b" * 16, 1): b"", keys.blob_row(3, b"b" * 16): encode(Blob(1, 1, 1, 1, b"", 0))}
        heals = keys.heal_row(3, b"b" * 16, 1)
        scan = lambda _, start: iter([(heals, b"")] if start < heals else [])  # noqa: E731
        host = SimpleNamespace(get=rows.get, scan=scan)
        router = SimpleNamespace(is_up=lambda _: True, read=None, discard=None)
        node: Any = SimpleNamespace(router=router, keeper=None, host=host, led=lambda: led)
        mender = Mender(node, 0)
        mender._follow_plan = lambda _: None  # type: ignore[method-assign]
        mender.repair.target.store_for = lambda *_: "s"  # type: ignore[method-assign]
        mender.repair.target.there = lambda _: frozenset("s")  # type: ignore[method-assign]
        mender.repair.make = failing(len, DamagedError("too few"))  # type: ignore[method-assign]
        await mender.run()
        assert mender.repair.failed == 1
        led.clear()
        await mender.run()
        assert mender.repair.failed == 0

    asyncio.run(whole())


def test_a_job_that_fails_again_and_again_is_told_to_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that failed twice, nor what is the fault of others; and no more once it works again."""
    monkeypatch.setattr(jobs_module, "RETRY_S", 0.001)
    monkeypatch.setattr(jobs_module, "ALARM_S", 0.0)

    async def whole() -> None:
        turns: asyncio.Queue[bool] = asyncio.Queue()

        async def run() -> None:
            if await turns.get():
                raise OSError("no such device")

        async def fail(times: int) -> None:
            for _ in range(times):
                turns.put_nowait(True)
            await until(lambda: turns.empty() and mine.failures.total == failed + times)

        async def away() -> None:
            raise UnavailableError("ServiceUnavailable", "nobody is there")

        jobs = Jobs()
        mine = Job("mine", 0.0, 0.001, run)
        jobs.start(mine, Job("theirs", 0.0, 0.001, away, (UnavailableError,)))
        failed = 0
        await fail(2)
        assert jobs.alarms() == []
        failed = 2
        await fail(1)
        assert jobs.alarms() == ["the job 'mine' fails again and again: OSError('no such device')"]
        monkeypatch.setattr(jobs_module, "ALARM_S", 60.0)
        assert jobs.alarms() == [], "it may pass"
        monkeypatch.setattr(jobs_module, "ALARM_S", 0.0)
        turns.put_nowait(False)
        await until(lambda: mine.runs)
        assert jobs.alarms() == []
        named = {one["name"]: one for one in jobs.table()}
        assert (named["mine"]["failures"], named["mine"]["failures_in_a_row"], named["mine"]["error"]) == (3, 0, "")
        assert "nobody is there" in str(named["theirs"]["error"])
        await jobs.close()

    asyncio.run(whole())


def test_who_may_start_a_task() -> None:
    """Whatever runs by itself is a job. What else starts a task says here who sees its error."""
    awaited = {
        "gateway/receive.py": "shards of a stripe: awaited before the request is answered",
        "gateway/stripes.py": "reads that race: awaited or cancelled by the request",
        "http/port.py": "the begin of a connection, which ends with it",
        "base/tasks.py": "a request of the S3 port that had to wait, which answers its errors",
        "http/admin_server.py": "a scrub that somebody asked for and follows",
        "peer/client.py": "a connection's reader and beacons, which end with it, whatever the error",
        "peer/router.py": "calls that a request awaits; tries to connect, which tell what failed",
        "peer/server.py": "calls, which answer their error",
        "storage/shards.py": "the index: an error ends the process (D7)",
        "upkeep/mend.py": "a fill, which tells what failed and is begun again",
        "replica/group.py": "the writer loop and what belongs to it: an error ends the process (D7)",
        "cluster/etcd.py": "a login, which every call that needs it awaits",
        "cluster/keeper.py": "changes of the map, whose error is told to who asked for them",
        "node/member.py": "follows the map: an error ends the process",
        "server/cluster.py": "follows the map: an error ends the process; the start and the stop, which are awaited",
        "http/iam/tokens.py": "a fetch of an issuer's keys, which is asked for again by who needs them",
        "base/jobs.py": "jobs",
        "s4_operator/queue.py": "resources, each tried again later",
    }
    root = Path(__file__).parents[2]
    found = {
        path.relative_to(root / part).as_posix().removeprefix("s4/")
        for part in ("daemon", "operator")
        for path in (root / part).rglob("*.py")
        if any(word in path.read_text() for word in ("create_task(", "ensure_future("))
    }
    assert found == set(awaited)
