"""What the operator makes of the objects that it watches, by themselves: which count, and what a change has looked at
again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inprocess import until
from s4_operator.cache import Cache
from s4_operator.kube import Kube, Object
from s4_operator.main import Operator
from s4_operator.observe import observe, pod
from s4_operator.queue import Key

STRANGE = (
    "c-node",
    "c-node-",
    "c-node-x",
    "c-node-01",
    "c-node--1",
    "c-node-1-debug",
    "c-node-9999999999",
    "debug",
    "data",
    "other-node-0",
    "c-node-0\n",
    "c-node-٣",
)


def made(kind: str, name: str, namespace: str = "ns", **parts: Any) -> Object:
    labels = {"s4.dev/cluster": "c", "app.kubernetes.io/name": "s4", "app.kubernetes.io/component": "node"}
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}/{name}",
        "resourceVersion": "1",
        "generation": 1,
        "labels": labels,
    }
    return {"kind": kind, "metadata": metadata, "spec": {}, **parts}


def changed(value: Object, **metadata: Any) -> Object:
    return {
        **value,
        "metadata": {**value["metadata"], "resourceVersion": value["metadata"]["resourceVersion"] + "1", **metadata},
    }


@pytest.mark.parametrize("name", STRANGE)
def test_a_pod_or_claim_that_is_none_of_the_set_is_not_counted(name: str) -> None:
    cache = Cache()
    for one in ("c-node-0", "c-node-10", name):
        cache.see("Pod", made("Pod", one, spec={"containers": [{"image": "s4:1"}]}))
    for one in ("data-c-node-0", "data-c-node-10", f"data-{name}"):
        cache.see("PersistentVolumeClaim", made("PersistentVolumeClaim", one))
    seen = observe(
        cache,
        made("S4Cluster", "c"),
        now_s=0.0,
        default_image="s4:1",
        status=None,
        served="",
        certificates="",
        buckets=0,
    )
    assert [(one.name, one.ordinal) for one in seen.pods] == [("c-node-0", 0), ("c-node-10", 10)]
    assert [(one.name, one.ordinal) for one in seen.claims] == [("data-c-node-0", 0), ("data-c-node-10", 10)]


@pytest.mark.parametrize("term", ["matchExpressions", "matchFields"])
def test_the_host_of_a_volume_is_the_node_whatever_its_label_says(term: str) -> None:
    """A node whose label differs from its name was taken for gone: the volume of each pod that started again was given
    up at once."""
    key, said = ("kubernetes.io/hostname", "machine-1") if term == "matchExpressions" else ("metadata.name", "n1")
    where = {"nodeSelectorTerms": [{term: [{"key": key, "operator": "In", "values": [said]}]}]}
    cache, node = Cache(), made("Node", "n1", "")
    cache.see("Node", changed(node, labels={"kubernetes.io/hostname": "machine-1"}))
    cache.see("PersistentVolume", made("PersistentVolume", "v", "", spec={"nodeAffinity": {"required": where}}))
    cache.see("PersistentVolumeClaim", made("PersistentVolumeClaim", "data-c-node-0", spec={"volumeName": "v"}))

    def host() -> str:
        nothing: dict[str, Any] = {"status": None, "served": "", "certificates": "", "buckets": 0}
        (claim,) = observe(cache, made("S4Cluster", "c"), now_s=0.0, default_image="s4:1", **nothing).claims
        return claim.host

    assert host() == "n1"
    cache.see("Node", node, deleted=True)
    assert host() == said, "it is gone, and the volume is not free to follow"


def test_a_pod_says_since_when_it_is_ready_or_not() -> None:
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:01:40Z"}
    containers = {"containers": [{"image": "s4:1"}]}
    seen = [pod(made("Pod", "c-node-0", spec=containers, status={"conditions": said})) for said in ([ready], [])]
    assert [(one.ready, one.since_s) for one in seen] == [(False, 100.0), (False, 0.0)]


class Listed(Operator):
    """Lists what it would look at."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.looked: list[Key] = []

    async def _work(self, key: Key) -> float:
        self.looked.append(key)
        return 0.0


async def unasked(directory: Path) -> Listed:
    """One that has no API server to ask."""
    config = directory / "config"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return Listed(await Kube.connect(str(config)), aiohttp.ClientSession(), frozenset(), {})


async def looked_at(directory: Path, events: list[tuple[str, Object, bool]]) -> set[Key]:
    """What the last of some events has looked at. No API server is asked."""
    operator = await unasked(directory)
    operator._filled = True
    try:
        for kind, value, deleted in events:
            await until(lambda: not operator.queue._tasks)
            operator.looked.clear()
            operator.see(kind, value, deleted=deleted)
        await until(lambda: not operator.queue._tasks)
        return set(operator.looked)
    finally:
        await operator.close()


def bucket(name: str, cluster: str, namespace: str = "app", home: str = "ns") -> Object:
    return made("Bucket", name, namespace, spec={"clusterRef": {"name": cluster, "namespace": home}})


CLUSTER, OWN = ("S4Cluster", "ns", "c"), {("Bucket", "app", "a"), ("Bucket", "app", "b")}
BEFORE = [
    ("S4Cluster", made("S4Cluster", "c"), False),
    ("Bucket", bucket("a", "c"), False),
    ("Bucket", bucket("b", "c"), False),
    ("Bucket", bucket("of-another", "d"), False),
    ("Bucket", bucket("of-another-home", "c", home="elsewhere"), False),
]


@pytest.mark.parametrize(
    ("change", "looked"),
    [
        ({"generation": 2}, {CLUSTER} | OWN),
        ({"annotations": {"look": "again"}}, {CLUSTER} | OWN),
        ({}, set()),  # the operator's own writing of the status
    ],
)
def test_an_edit_of_a_cluster_has_its_buckets_looked_at(
    tmp_path: Path, change: dict[str, Any], looked: set[Key]
) -> None:
    """Whose Buckets it takes, and which buckets they may have, may be other ones now: a namespace that it no longer
    allows does not keep its keys until its next round comes."""
    event = ("S4Cluster", changed(made("S4Cluster", "c"), **change), False)
    assert asyncio.run(looked_at(tmp_path, [*BEFORE, event])) == looked


def test_a_bucket_that_goes_has_its_cluster_looked_at(tmp_path: Path) -> None:
    assert asyncio.run(looked_at(tmp_path, [*BEFORE, ("Bucket", bucket("a", "c"), True)])) == {
        ("Bucket", "app", "a"),
        CLUSTER,
    }


def using(kind: str, name: str, cluster: str = "c", **spec: Any) -> Object:
    return made(kind, name, "app", spec={"clusterRef": {"name": cluster, "namespace": "ns"}, **spec})


ANA = using("S4User", "ana", policies=[{"name": "reads"}])
GRANTS = using(
    "Bucket", "grants", grants=[{"user": "ana", "role": "Reader"}, {"user": "x", "namespace": "far", "role": "Reader"}]
)
PEOPLE = [
    *BEFORE,
    ("Bucket", GRANTS, False),
    ("S4User", ANA, False),
    ("S4User", {**using("S4User", "x"), "metadata": made("S4User", "x", "far")["metadata"]}, False),
    ("S4User", {**using("S4User", "root"), "metadata": made("S4User", "root", "ns")["metadata"]}, False),
    ("S4Policy", using("S4Policy", "reads"), False),
    ("S4Role", using("S4Role", "program"), False),
    ("S4User", using("S4User", "of-another", "d"), False),
]
HOLDERS = {("S4User", "app", "ana"), ("S4Role", "app", "program")}
OF_ANA = {("S4Policy", "app", "reads"), ("Bucket", "app", "grants")}
USING = OWN | HOLDERS | OF_ANA | {("S4User", "far", "x"), ("S4User", "ns", "root")}


def ready(value: Object) -> Object:
    return {**changed(value), "status": {"phase": "Ready", "bucketName": "x"}}


@pytest.mark.parametrize(
    ("event", "looked"),
    [
        (("S4Cluster", changed(made("S4Cluster", "c"), generation=2), False), {CLUSTER} | USING),
        (("Bucket", changed(bucket("a", "c"), generation=2), False), {("Bucket", "app", "a")} | HOLDERS),
        (("Bucket", ready(bucket("a", "c")), False), HOLDERS),
        (("Bucket", bucket("a", "c"), True), {("Bucket", "app", "a"), CLUSTER} | HOLDERS),
        (("Bucket", ready(GRANTS), False), HOLDERS | {("S4User", "far", "x")}),
        (("S4Policy", ready(using("S4Policy", "reads")), False), {("S4User", "app", "ana")}),
        (("S4User", ANA, True), {("S4User", "app", "ana"), CLUSTER} | OF_ANA),
        (("S4User", ready(ANA), False), OF_ANA),
        (("S4Role", changed(using("S4Role", "program")), False), set()),
    ],
    ids=[
        "a cluster is changed",
        "a Bucket is changed",
        "a Bucket becomes Ready",
        "a Bucket goes",
        "a Bucket that grants becomes Ready",
        "a policy becomes Ready",
        "a user goes",
        "a user becomes Ready",
        "nothing of it that counts",
    ],
)
def test_whom_a_change_concerns_is_looked_at(tmp_path: Path, event: tuple[str, Object, bool], looked: set[Key]) -> None:
    """Whose buckets are a namespace's, who has a policy, whom a Bucket grants to: none waits for its next round."""
    assert asyncio.run(looked_at(tmp_path, [*PEOPLE, event])) == looked


class Lists:
    """An API server's lists; `meanwhile` is called while one is on its way."""

    def __init__(self, cache: Cache, objects: list[Object]) -> None:
        self.cache, self.objects, self.meanwhile = cache, objects, dict[str, list[tuple[Object, bool]]]()

    async def list(self, kind: str, labels: str = "") -> list[Object]:
        found = [one for one in self.objects if one["kind"] == kind]
        for value, deleted in self.meanwhile.pop(kind, []):
            self.cache.see(kind, value, deleted=deleted)
        return found


def test_a_list_does_not_undo_what_was_seen_while_it_was_on_its_way() -> None:
    """More nodes that had been asked for were let go again, until the next list; a Bucket that was deleted was
    there."""

    async def test() -> None:
        cache, one, two = Cache(), made("S4Cluster", "one"), made("S4Cluster", "two")
        newer = changed(one, generation=2)
        lists: Any = Lists(cache, [one, two])
        lists.meanwhile["S4Cluster"] = [(newer, False), (two, True), (made("S4Cluster", "three"), False)]
        await cache.refresh(lists)
        assert [value["metadata"]["name"] for value in cache.list("S4Cluster")] == ["one", "three"]
        assert cache.get("S4Cluster", "ns", "one") == newer
        lists.objects = [newer]
        await cache.refresh(lists)
        assert list(cache.list("S4Cluster")) == [newer], "what watches missed is learnt"

    asyncio.run(test())


def test_nothing_is_looked_at_before_all_is_known(tmp_path: Path) -> None:
    """A start that had seen a cluster and not its pods, or not its hosts, took what it did not know for gone."""

    async def test() -> None:
        operator = await unasked(tmp_path)
        try:
            operator.see("S4Cluster", made("S4Cluster", "c"), deleted=False)
            operator.see("Bucket", bucket("a", "c"), deleted=False)
            operator.see("Pod", made("Pod", "c-node-0"), deleted=False)
            await until(lambda: not operator.queue._tasks)
            assert not operator.looked
            operator.kube.list = Lists(operator.cache, [made("S4Cluster", "c"), bucket("a", "c")]).list  # type: ignore[method-assign]
            await operator._refresh()
            await until(lambda: not operator.queue._tasks)
            assert set(operator.looked) == {CLUSTER, ("Bucket", "app", "a")}
        finally:
            await operator.close()

    asyncio.run(test())
