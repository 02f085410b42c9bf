"""What a cluster's data cannot be read without: once there is data no other is made in its place, and it goes when the
volumes do."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Iterator
from urllib.error import HTTPError

import pytest

from kube.apiserver import ApiServer
from kube.tenants import HOME, S4, Tenants
from process import ServerProcess, wait_until
from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import MapKeeper
from s4.cluster.kubernetes import KubernetesCoordinator, client
from s4_operator.certificates import is_whole
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.secrets_of import read


@pytest.fixture
def home(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    yield made
    one_api.call("DELETE", f"{S4}/namespaces/{HOME}/shardmaps")


def formed(old: ClusterMap) -> ClusterMap:
    for number in range(4):
        old = planner.registered(old, f"{number:032x}", f"c-node-{number}", "a:1", f"h{number}", 1.0)
    return planner.added(old, list(old.stores))


def form(api: ApiServer) -> None:
    """The cluster's map plans with stores: there may be data."""

    async def work() -> None:
        connection = await client(str(api.kubeconfig))
        await (await MapKeeper.open(KubernetesCoordinator(HOME, "c", connection, planner=True))).change(formed)
        await connection.close()  # type: ignore[no-untyped-call]

    asyncio.run(work())


def reconciled(home: Tenants) -> str:
    listed = home.status(HOME, "c", "S4Cluster")["conditions"]
    return str(next(one["message"] for one in listed if one["type"] == "Reconciled"))


@pytest.mark.parametrize("name", ["c-master", "c-root"])
@pytest.mark.parametrize("emptied", [False, True], ids=["deleted", "emptied"])
def test_a_key_that_data_needs_is_not_made_anew(home: Tenants, name: str, emptied: bool) -> None:
    home.look_at_cluster()
    form(home.api)
    home.bucket(HOME, "b")
    kept = home.get("Secret", HOME, name)
    path = f"/api/v1/namespaces/{HOME}/secrets/{name}"
    home.api.call("DELETE", path)
    if emptied:
        home.make("Secret", HOME, name, **{"metadata": {"name": name, "labels": kept["metadata"]["labels"]}})
    home.look_at_cluster()
    home.look((HOME, "b"))
    assert not home.get("Secret", HOME, name).get("data")
    assert f"the Secret {name} is gone or has no key, and there is data that only that key serves" in reconciled(home)
    assert home.reason(HOME, "b") == "ClusterNotReachable"
    if emptied:
        home.api.call("DELETE", path)
    head = {field: kept["metadata"][field] for field in ("name", "labels")}
    home.make("Secret", HOME, name, metadata=head, data=kept["data"])
    home.look_at_cluster()
    assert "is gone" not in reconciled(home)
    assert home.get("Secret", HOME, name)["data"] == kept["data"]


@pytest.mark.parametrize("name", ["c-master", "c-root"])
def test_a_key_that_nothing_was_kept_under_is_made_again(home: Tenants, name: str) -> None:
    home.look_at_cluster()
    before = home.get("Secret", HOME, name)["data"]
    home.api.call("DELETE", f"/api/v1/namespaces/{HOME}/secrets/{name}")
    home.look_at_cluster()
    assert set(home.get("Secret", HOME, name)["data"]) == set(before)


@pytest.mark.parametrize("damage", [{"ca.crt": "x"}, {"ca.key": None}, {"ca.key": "x"}, {"ca.crt": None}], ids=str)
def test_an_authority_that_somebody_damaged_is_made_again(home: Tenants, damage: dict[str, str | None]) -> None:
    """No round came to its end any more. Leaves that are there go on: who trusts the new one trusts the one before."""
    home.look_at_cluster()
    before = home.get("Secret", HOME, "c-authority")["data"]
    coded = {name: text and b64encode(text.encode()).decode() for name, text in damage.items()}
    home.api.change(f"/api/v1/namespaces/{HOME}/secrets/c-authority", {"data": coded})
    home.api.call("DELETE", f"/api/v1/namespaces/{HOME}/secrets/c-peers")
    home.look_at_cluster()
    after = home.get("Secret", HOME, "c-authority")["data"]
    assert set(after) == set(before)
    assert after["ca.key"] != before["ca.key"]
    assert (b64decode(before["ca.crt"]) in b64decode(after["ca.crt"])) == ("ca.key" in damage)
    assert home.get("Secret", HOME, "c-peers")["data"]["ca.pem"] == after["ca.crt"]


def test_a_certificate_that_lost_its_key_is_made_again(home: Tenants) -> None:
    home.look_at_cluster()
    home.api.change(f"/api/v1/namespaces/{HOME}/secrets/c-peers", {"data": {"tls.key": b64encode(b"x").decode()}})
    home.look_at_cluster()
    made = read(home.get("Secret", HOME, "c-peers"))
    assert is_whole(made["tls.crt"], made["tls.key"])


def test_keys_and_map_go_with_the_cluster_or_outlive_it_as_volumes_do(home: Tenants) -> None:
    """By what storage.reclaim says now, not what it said when they were made."""

    def owners() -> list[list[str]]:
        made = [home.get("Secret", HOME, name) for name in ("c-master", "c-root")] + [home.get("ShardMap", HOME, "c")]
        return [[owner["uid"] for owner in one["metadata"].get("ownerReferences", ())] for one in made]

    mine = home.get("S4Cluster", HOME, "c")["metadata"]["uid"]
    home.look_at_cluster()
    for reclaim, wanted in (("Delete", [mine]), ("Retain", []), ("Delete", [mine])):
        home.cluster(storage={"reclaim": reclaim})
        home.look_at_cluster()
        assert owners() == [wanted] * 3, reclaim


def test_a_secret_of_an_older_operator_is_told_the_maps_id_by_whoever_looks_first(home: Tenants) -> None:
    """By a Bucket's round it was told one of the S4Cluster's uid, which another S4Cluster's volumes do not know."""
    home.look_at_cluster()
    home.delete(HOME, "c", "S4Cluster")
    home.cluster()
    home.api.change(f"/api/v1/namespaces/{HOME}/secrets/c-master", {"data": {"cluster": None}})
    home.bucket(HOME, "b")
    home.look((HOME, "b"))
    said = b64decode(home.get("Secret", HOME, "c-master")["data"]["cluster"]).decode()
    assert said == home.get("ShardMap", HOME, "c")["spec"]["cluster"]


def test_a_secret_that_is_refused_is_said(home: Tenants) -> None:
    """The S4Cluster had no status at all, and its operator's log alone said why."""
    quotas, none = f"/api/v1/namespaces/{HOME}/resourcequotas", {"hard": {"secrets": "0"}}

    def is_refused() -> bool:
        try:
            home.api.call("POST", f"/api/v1/namespaces/{HOME}/secrets?dryRun=All", {"metadata": {"name": "one"}})
        except HTTPError as error:
            return error.code == 403
        return False

    home.api.call("POST", quotas, {"metadata": {"name": "none"}, "spec": none})
    try:
        home.api.change(f"{quotas}/none/status", {"status": {**none, "used": {"secrets": "0"}}})
        wait_until(is_refused, "the quota counts")
        home.look_at_cluster()
        assert "exceeded quota" in reconciled(home)
    finally:
        home.api.call("DELETE", f"{quotas}/none")
    wait_until(lambda: not is_refused(), "it counts no more")
    home.look_at_cluster()
    assert "quota" not in reconciled(home)


@pytest.mark.parametrize("reclaim", ["Delete", "Retain"])
def test_what_goes_with_a_cluster_that_is_no_more_goes(reclaim: str) -> None:
    """The next one of that name came before it had gone."""
    spec = ClusterSpec.model_validate({"storage": {"reclaim": reclaim}})
    gone = Builder("default", "c", "before", spec).secret("c-root", {})
    gone["metadata"]["uid"] = "1"
    assert Builder("default", "c", "now", spec).reclaimed(gone) is None


def test_keys_and_map_that_are_made_to_be_deleted_are_the_clusters(home: Tenants) -> None:
    home.cluster(storage={"reclaim": "Delete"})
    home.look_at_cluster()
    home.look_at_cluster()
    for one in (*(home.get("Secret", HOME, name) for name in ("c-master", "c-root")), home.get("ShardMap", HOME, "c")):
        assert [owner["name"] for owner in one["metadata"]["ownerReferences"]] == ["c"]
