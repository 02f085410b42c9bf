"""The coordinator's contract: read, replace by compare-and-swap, watch. Every implementation passes it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aetcd import rpc

from cluster.etcd_process import EtcdCluster, need_etcd
from cluster.memory import MemoryCoordinator
from s4.cluster import clustermap, planner
from s4.cluster.coordinator import (
    ConflictError,
    Coordinator,
    CoordinatorError,
    LocalCoordinator,
    QuorumError,
    UnknownOutcomeError,
)
from s4.cluster.etcd import Access, EtcdCoordinator, UnusableVersionError
from s4.cluster.kubernetes import KubernetesCoordinator, client
from s4.storage.files import Files
from s4_operator import certificates

WAIT_S = 300.0  # for what surely comes, however busy the machine is


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    need_etcd()
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def guarded_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdCluster, Access]]:
    """An etcd that asks for a certificate and for a login, whose user may do what S4 needs and no more."""
    need_etcd()
    directory = tmp_path_factory.mktemp("guarded")
    files = directory / "ca.pem", directory / "own.pem", directory / "own.key"

    def made(host: str) -> tuple[Path, Path, Path]:
        authority = certificates.make("authority", time.time(), 86_400)
        leaf = certificates.make("etcd", time.time(), 86_400, [host, "s4:node"], authority)
        for path, text in zip(files, (authority.certificate, leaf.certificate, leaf.key), strict=True):
            path.write_text(text)
        return files

    cluster = EtcdCluster(directory, tls=made)
    (directory / "login").write_text("s4:a secret: with a colon\n")
    access = Access(*map(str, files), str(directory / "login"))
    asyncio.run(ask_for_logins(cluster.endpoints[0], access))
    yield cluster, access
    cluster.stop()


async def ask_for_logins(endpoint: str, access: Access, keys: bytes = b"s4/") -> None:
    channel = replace(access, login="").channel(endpoint)
    auth = rpc.AuthStub(channel)
    await auth.RoleAdd(rpc.AuthRoleAddRequest(name="s4"))
    allowed = rpc.Permission(permType=rpc.Permission.READWRITE, key=keys, range_end=keys[:-1] + b"0")
    await auth.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name="s4", perm=allowed))
    for name, role, password in (("root", "root", "root's"), ("s4", "s4", "a secret: with a colon")):
        await auth.UserAdd(rpc.AuthUserAddRequest(name=name, password=password))
        await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=name, role=role))
    await auth.AuthEnable(rpc.AuthEnableRequest())
    await channel.close()


def doc(text: str) -> bytes:
    """A value: a map, which is all that some coordinators take."""
    return clustermap.encode(planner.new(text, 4, 2, 8))


Made = Callable[[], AbstractAsyncContextManager[Coordinator]]


@pytest.fixture(
    params=["local", "local in three directories", "memory", "etcd", "etcd with TLS and a login", "kubernetes"]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Every implementation, empty."""
    guarded = request.getfixturevalue("guarded_etcd") if "login" in request.param else None

    @asynccontextmanager
    async def made() -> AsyncIterator[Coordinator]:
        if request.param == "memory":
            yield MemoryCoordinator()
        elif request.param == "kubernetes":
            api = await client(str(request.getfixturevalue("one_api").kubeconfig))
            yield KubernetesCoordinator("default", f"m{uuid.uuid4().hex}", api, planner=True)
            await api.close()  # type: ignore[no-untyped-call]
        elif request.param.startswith("etcd"):
            cluster, access = guarded or (request.getfixturevalue("etcd"), None)
            found = EtcdCoordinator(cluster.endpoints, f"s4/{uuid.uuid4().hex}", access)
            try:
                await found.check_versions()
                yield found
            finally:
                await found.close()
        else:
            directories = [tmp_path / str(number) for number in range(3 if "three" in request.param else 1)]
            for directory in directories:
                directory.mkdir()
            yield LocalCoordinator(Files(), directories, len(directories) // 2 + 1)

    return made


def run(make: Made, test: Callable[[Coordinator], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with make() as coordinator:
            await test(coordinator)

    asyncio.run(whole())


def test_replace_needs_the_revision_that_was_read(make: Made) -> None:
    async def test(coordinator: Coordinator) -> None:
        assert await coordinator.read("map") == (b"", 0)
        first = await coordinator.replace("map", doc("one\ntwo"), 0)
        assert await coordinator.read("map") == (doc("one\ntwo"), first)
        for stale in (0, first + 1):
            with pytest.raises(ConflictError):
                await coordinator.replace("map", doc("other"), stale)
        second = await coordinator.replace("map", doc("three"), first)
        assert second > first
        assert await coordinator.read("map") == (doc("three"), second)
        assert await coordinator.read("other") == (b"", 0)

    run(make, test)


def test_one_of_many_wins(make: Made) -> None:
    async def test(coordinator: Coordinator) -> None:
        results = await asyncio.gather(
            *(coordinator.replace("map", doc(str(number)), 0) for number in range(10)), return_exceptions=True
        )
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, ConflictError) for result in results) == 9

    run(make, test)


def test_watch_gives_what_is_newer(make: Made) -> None:
    async def test(coordinator: Coordinator) -> None:
        revision = await coordinator.replace("map", doc("one"), 0)
        watch = coordinator.watch("map", 0)
        assert await anext(watch) == (doc("one"), revision)
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        newer = await coordinator.replace("map", doc("two"), revision)
        assert await asyncio.wait_for(following, WAIT_S) == (doc("two"), newer)
        await watch.aclose()

    run(make, test)


def test_a_watch_from_nothing_waits_for_the_first_value(make: Made) -> None:
    async def test(coordinator: Coordinator) -> None:
        watch = coordinator.watch("map", 0)
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        revision = await coordinator.replace("map", doc("first"), 0)
        assert await asyncio.wait_for(following, WAIT_S) == (doc("first"), revision)
        await watch.aclose()

    run(make, test)


def test_etcd_restarts_under_a_watch_and_a_writer(tmp_path: Path) -> None:
    """One member, killed and started again: the watch goes on, and a change is repeated until its outcome is known."""
    need_etcd()
    cluster = EtcdCluster(tmp_path)

    async def replaced(coordinator: EtcdCoordinator, value: bytes, seen: int) -> int:
        """The loop of rule R4: on a busy machine any call may end before its answer comes."""
        while True:
            with contextlib.suppress(CoordinatorError, ConflictError):
                _, revision = await coordinator.read("map")
                return revision if revision > seen else await coordinator.replace("map", value, seen)

    async def test() -> None:
        coordinator = EtcdCoordinator(cluster.endpoints, "s4/restart")
        watch = coordinator.watch("map", 0)
        revision = await replaced(coordinator, b"one", 0)
        assert await asyncio.wait_for(anext(watch), WAIT_S) == (b"one", revision)
        following = asyncio.ensure_future(anext(watch))
        cluster.kill(0)
        with pytest.raises(UnknownOutcomeError):
            await coordinator.replace("map", b"two", revision)
        with pytest.raises(CoordinatorError):
            await coordinator.read("map")
        cluster.start(0)
        await asyncio.to_thread(cluster.wait)
        newer = await replaced(coordinator, b"two", revision)
        assert await asyncio.wait_for(following, WAIT_S) == (b"two", newer)
        await watch.aclose()
        await coordinator.close()

    try:
        asyncio.run(test())
    finally:
        cluster.stop()


def test_one_of_three_members_may_die(tmp_path: Path) -> None:
    """Each in turn, the one in use among them, while a counter goes up: no step is lost or made twice."""
    need_etcd()
    cluster = EtcdCluster(tmp_path, members=3)

    async def step(coordinator: EtcdCoordinator) -> None:
        while True:
            try:
                value, revision = await coordinator.read("map")
                await coordinator.replace("map", b"%d" % (int(value or b"0") + 1), revision)
            except CoordinatorError:
                continue  # repeated from what is read: the test's own steps are idempotent only by their revision
            return

    async def test() -> None:
        coordinator = EtcdCoordinator(cluster.endpoints, "s4/three")
        await coordinator.check_versions()
        for member in range(3):
            await step(coordinator)
            cluster.kill(member)
            await step(coordinator)
            cluster.start(member)
            await asyncio.to_thread(cluster.wait)
        value, _ = await coordinator.read("map")
        assert int(value) >= 6
        await coordinator.close()

    try:
        asyncio.run(test())
    finally:
        cluster.stop()


def test_who_may_not_is_told_why(guarded_etcd: tuple[EtcdCluster, Access], tmp_path: Path) -> None:
    cluster, access = guarded_etcd
    for name, text in (("wrong", "s4:another"), ("none", "root"), ("root", "root:root's")):
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no line USER:PASSWORD"):
        replace(access, login=str(tmp_path / "none")).check()

    async def told(access: Access, prefix: str = "s4/x") -> str:
        coordinator = EtcdCoordinator(cluster.endpoints, prefix, access)
        with pytest.raises(CoordinatorError) as error:
            await coordinator.read("map")
        await coordinator.close()
        return str(error.value)

    async def test() -> None:
        assert "etcd refuses: etcdserver: authentication failed" in await told(
            replace(access, login=str(tmp_path / "wrong"))
        )
        said = await told(access, "other/x")
        assert said.startswith("etcd refuses: etcdserver: permission denied; ")
        assert said.endswith(" keys that begin with other/x/")
        assert f"no etcd endpoint answers at {cluster.endpoints[0]}: " in await told(Access())
        assert "permission denied" in await told(replace(access, login="")), "its certificate names a user that is none"

    asyncio.run(test())


def test_a_login_that_etcd_forgot_is_made_again(guarded_etcd: tuple[EtcdCluster, Access]) -> None:
    """Tokens are in a member's memory: after its restart it knows none."""
    cluster, access = guarded_etcd

    async def test() -> None:
        coordinator = EtcdCoordinator(cluster.endpoints, "s4/again", access)
        revision = await coordinator.replace("map", b"one", 0)
        cluster.kill(0)
        cluster.start(0)
        await asyncio.to_thread(cluster.wait)
        while True:
            with contextlib.suppress(CoordinatorError):
                assert await coordinator.read("map") == (b"one", revision)
                break
        await coordinator.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("version", "usable"), [("3.5.0", False), ("3.5.5", False), ("3.5.6", True), ("3.4.23", True), ("3.6.1", True)]
)
def test_versions_that_lose_data_are_refused(version: str, usable: bool) -> None:
    """A stand-in for the answer only: such a version cannot be had from here, and should not be."""

    async def test() -> None:
        coordinator = EtcdCoordinator(["127.0.0.1:1"], "s4")

        async def answer() -> str:
            return version

        coordinator._clients[0].version = answer
        if usable:
            await coordinator.check_versions()
        else:
            with pytest.raises(UnusableVersionError, match=version):
                await coordinator.check_versions()
        await coordinator.close()

    asyncio.run(test())


def test_faults_of_the_one_in_memory_lose_no_step() -> None:
    """The loop of rule R4: the same change at the same revision until a newer revision is seen."""

    async def test() -> None:
        lost = 0
        for seed in range(50):
            coordinator = MemoryCoordinator(seed, 0.3)
            done = 0
            while done < 20:
                try:
                    _, revision = await coordinator.read("map")
                    if revision > done:
                        done = revision
                    else:
                        await coordinator.replace("map", b"x", revision)
                except (CoordinatorError, ConflictError):
                    lost += 1
            assert done >= 20
        assert lost > 100

    asyncio.run(test())


def test_the_local_file_is_whole_or_old_after_a_crash(tmp_path: Path) -> None:
    """The new value is written beside the old one, synced and renamed: golden bytes, and a left-over is ignored."""

    async def test() -> None:
        coordinator = LocalCoordinator(Files(), [tmp_path])
        await coordinator.replace("map", b"value", 0)
        assert (tmp_path / "map").read_bytes() == b"s4 1 revision 1 crc 59704476\nvalue"
        (tmp_path / "map.new").write_bytes(b"torn")
        assert await coordinator.read("map") == (b"value", 1)
        await coordinator.replace("map", b"newer", 1)
        assert (tmp_path / "map").read_bytes() == b"s4 1 revision 2 crc 05270524\nnewer"

    asyncio.run(test())


def test_any_majority_knows_what_a_majority_took(tmp_path: Path) -> None:
    """Rule M2: the newest of those that are there counts, and a change that too few took is no change that counts."""

    async def test() -> None:
        directories = [tmp_path / str(number) for number in range(3)]
        for directory in directories:
            directory.mkdir()
        whole = LocalCoordinator(Files(), directories, 2)
        await whole.replace("map", b"one", 0)
        directories[0].rename(tmp_path / "away")
        await whole.replace("map", b"two", 1)
        (tmp_path / "away").rename(directories[0])
        assert await LocalCoordinator(Files(), directories[:2], 2).read("map") == (b"two", 2)
        assert await LocalCoordinator(Files(), directories[:1], 1).read("map") == (b"one", 1)
        for directory in directories[1:]:
            (directory / "map").unlink()
            directory.rmdir()
        with pytest.raises(QuorumError, match="1 directories of which 2 are needed"):
            await whole.replace("map", b"three", 1)

    asyncio.run(test())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"s4 1 revision x\nvalue",
        b"s4 1 revision 9",
        b"s4 1 revision 9 crc 00000000\none",
        b"s4 2 revision 9 crc 00000000\n",
        b"garbage",
    ],
)
def test_a_damaged_file_is_outvoted(tmp_path: Path, content: bytes) -> None:
    async def test() -> None:
        directories = [tmp_path / str(number) for number in range(2)]
        for directory in directories:
            directory.mkdir()
        coordinator = LocalCoordinator(Files(), directories, 2)
        await coordinator.replace("map", b"one", 0)
        (directories[0] / "map").write_bytes(content)
        assert await coordinator.read("map") == (b"one", 1)

    asyncio.run(test())
