"""The coordinator on a real API server, with the rights that a daemon's Role gives and no others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kube.apiserver import ApiServer
from s4.cluster import clustermap, planner
from s4.cluster.coordinator import CoordinatorError, NotPlannerError, UnknownOutcomeError
from s4.cluster.keeper import MapKeeper
from s4.cluster.kubernetes import KubernetesCoordinator, client

STORES = [f"{number:032x}" for number in range(5)]
ROLE = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "daemon", "namespace": "default"},
            "rules": [
                {"apiGroups": ["s4.dev"], "resources": ["shardmaps"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["s4.dev"], "resources": ["shardmaps/status"], "verbs": ["update"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "daemon", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "daemon"},
            "subjects": [{"kind": "User", "name": "daemon", "apiGroup": "rbac.authorization.k8s.io"}],
        },
    ],
}


async def opened(api: ApiServer, user: str, *, plans: bool) -> KubernetesCoordinator:
    return KubernetesCoordinator("default", "c", await client(str(api.kubeconfig_of(user))), planner=plans)


async def shut(*coordinators: KubernetesCoordinator) -> None:
    for one in coordinators:
        assert one._api is not None
        await one._api.close()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def both(api: ApiServer) -> AsyncIterator[tuple[MapKeeper, MapKeeper]]:
    """A new cluster's map, as the planner and as a daemon have it."""
    plans, says = await opened(api, "admin", plans=True), await opened(api, "daemon", plans=False)
    await plans.replace("map", clustermap.encode(planner.new("c", 2, 2, 4)), 0)
    yield await MapKeeper.open(plans), await MapKeeper.open(says)
    await shut(plans, says)


def test_daemons_say_what_they_hold_and_the_planner_plans(api: ApiServer) -> None:
    api.kubectl("apply", "-f", "-", text=json.dumps(ROLE))

    async def test() -> None:
        async with both(api) as (of_planner, of_daemon):
            for number, store in enumerate(STORES):
                await of_daemon.change(
                    lambda old, store=store, number=number: planner.registered(
                        old, store, f"n{number}", f"n{number}:9002", f"d{number}", 1.0
                    )
                )
            formed = await of_planner.change(lambda old: planner.added(old, STORES[:4]))
            assert await of_daemon.refresh() == formed
            value, revision = await of_daemon.read("partition/1")
            assert await of_daemon.replace("partition/1", value, revision) == revision + 1
            with pytest.raises(NotPlannerError, match="the operator plans"):
                await of_daemon.change(lambda old: planner.added(old, STORES))
            grown = await of_planner.change(lambda old: planner.added(old, STORES))
            assert {store for one in grown.partitions for store in one.wanted} == set(STORES)

    asyncio.run(test())


def test_zones_that_the_planner_set_are_kept_by_what_daemons_say(api: ApiServer) -> None:
    """A document had no place for the host beside them: each daemon's write was taken for a plan, and refused."""
    api.kubectl("apply", "-f", "-", text=json.dumps(ROLE))

    async def test() -> None:
        async with both(api) as (of_planner, of_daemon):

            async def register(number: int) -> None:
                made = (STORES[number], f"n{number}", f"n{number}:9002", f"h{number}", 1.0)
                await of_daemon.change(lambda old: planner.registered(old, *made))

            for number in range(4):
                await register(number)
                zone = {STORES[number]: f"z{number % 2}"}
                await of_planner.change(lambda old, zone=zone: planner.placed(old, zone))
            await of_planner.change(lambda old: planner.added(old, STORES[:4]))
            await of_daemon.refresh()
            value, revision = await of_daemon.read("partition/1")
            assert await of_daemon.replace("partition/1", value, revision) == revision + 1
            await register(2)  # it starts again
            found = await of_planner.refresh()
            where = [(found.stores[store].domain, found.stores[store].host) for store in STORES[:4]]
            assert where == [(f"z{number % 2}", f"h{number}") for number in range(4)]

    asyncio.run(test())


def test_a_daemon_without_rights_is_told_so(api: ApiServer) -> None:
    async def test() -> None:
        stranger = await opened(api, "nobody", plans=False)
        with pytest.raises(CoordinatorError, match=r"cannot be read: .*forbidden"):
            await stranger.read("map")
        await shut(stranger)

    asyncio.run(test())


def test_the_api_server_goes_away_and_comes_back(api: ApiServer) -> None:
    async def test() -> None:
        one = await opened(api, "admin", plans=True)
        first = await one.replace("map", clustermap.encode(planner.new("c", 2, 2, 4)), 0)
        watch = one.watch("map", first)
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        api.stop_api()
        with pytest.raises(CoordinatorError):
            await one.read("map")
        with pytest.raises(UnknownOutcomeError):
            await one.replace("map", clustermap.encode(planner.frozen(planner.new("c", 2, 2, 4), True)), first)
        await asyncio.to_thread(api.serve)
        newer = await one.replace("map", clustermap.encode(planner.frozen(planner.new("c", 2, 2, 4), True)), first)
        assert (await asyncio.wait_for(following, 60))[1] == newer
        await watch.aclose()
        await shut(one)

    asyncio.run(test())


def test_a_map_that_has_not_changed_for_long_is_not_asked_for_again_and_again(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that was started again knows no older versions: a watch from the map's own was answered so at once,
    and every daemon read and watched as fast as it could, until somebody changed the map."""
    asked: list[str] = []

    async def test() -> None:
        one = await opened(api, "admin", plans=True)
        first = await one.replace("map", clustermap.encode(planner.new("c", 2, 2, 4)), 0)
        for number in range(3):  # what else is changed meanwhile
            other = KubernetesCoordinator("default", f"other-{number}", one._api, planner=True)
            await other.replace("map", clustermap.encode(planner.new("c", 2, 2, 4)), 0)
        api.stop_api()
        await asyncio.to_thread(api.serve)
        read = one.read

        async def counted(document: str) -> tuple[bytes, int]:
            asked.append(document)
            return await read(document)

        monkeypatch.setattr(one, "read", counted)
        following = asyncio.ensure_future(anext(one.watch("map", first)))
        await asyncio.wait((following,), timeout=3)  # nothing is to come, so nothing tells that time is up
        assert len(asked) <= 3
        newer = await one.replace("map", clustermap.encode(planner.frozen(planner.new("c", 2, 2, 4), True)), first)
        assert (await asyncio.wait_for(following, 20))[1] == newer
        await shut(one)

    asyncio.run(test())
