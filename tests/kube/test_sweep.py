"""What is left in S4 of resources that are no more, and an operator that sees some namespaces alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kube.apiserver import ApiServer
from kube.tenants import HOME, ONE, OTHER, Reconcilers, Tenants, _path
from kube.test_people import document, may, swept
from process import ServerProcess
from s4_operator.iam import ROOT_PATH, Iam
from s4_operator.sweep import sweep

KINDS = {"Bucket": "bucket", "S4User": "user", "S4Role": "role", "S4Policy": "policy"}
SPECS = {
    "S4Role": {"serviceAccounts": [{"name": "default"}]},
    "S4Policy": {"document": document(may("s3:GetObject", "b"))},
}


@pytest.fixture
def tenants(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    yield made
    for plural in ("buckets", "s4users", "s4policies", "s4roles"):
        one_api.remove_at_once(plural)
    made.operate(swept)


def made_for(tenants: Tenants, namespace: str) -> dict[str, str]:
    """What S4 calls what each resource of a namespace is given."""
    return {kind: f"{name}-{tenants.get(kind, namespace, 'x')['metadata']['uid']}" for kind, name in KINDS.items()}


def there(tenants: Tenants, names: dict[str, str]) -> set[str]:
    """The kinds of which S4 has what they were given."""
    found: set[str] = set()

    async def look(made: Reconcilers) -> None:
        iam = Iam(made.daemons)
        found.update(await made.daemons.users())
        found.update(await iam.listed("ListRoles", "RoleName", PathPrefix=ROOT_PATH))
        listed = await iam.listed("ListPolicies", "Arn", Scope="Local", PathPrefix=ROOT_PATH)
        found.update(one.rpartition("/")[2] for one in listed)

    tenants.operate(look)
    return {kind for kind, name in names.items() if name in found}


def test_that_nobody_uses_a_cluster_is_said_only_where_all_who_may_are_seen(tenants: Tenants) -> None:
    tenants.write("Bucket", OTHER, "x")

    def said(*namespaces: str) -> tuple[str, str]:
        async def work(made: Reconcilers) -> None:
            made.kube.namespaces = namespaces
            await made.cache.refresh(made.kube)
            await made.rounds["S4Cluster"](HOME, "c")

        tenants.operate(work)
        listed = tenants.status(HOME, "c", "S4Cluster")["conditions"]
        found = next(one for one in listed if one["type"] == "DeletionBlocked")
        return found["status"], found["reason"]

    assert said(HOME, ONE) == ("Unknown", "OthersNotSeen")
    assert said(HOME, ONE, OTHER) == ("True", "InUse")
    assert said(HOME, OTHER) == ("True", "InUse")
    tenants.delete(OTHER, "x")
    assert said(HOME, ONE, OTHER) == said() == ("False", "Free")


def test_what_is_of_namespaces_that_are_not_seen_stays(tenants: Tenants) -> None:
    everything = [(kind, namespace, "x") for namespace in (ONE, OTHER) for kind in KINDS]
    for kind, namespace, name in everything:
        tenants.write(kind, namespace, name, **SPECS.get(kind, {}))
    tenants.rounds(*everything)
    ours, theirs = made_for(tenants, ONE), made_for(tenants, OTHER)
    assert there(tenants, ours) == there(tenants, theirs) == set(KINDS)
    for kind, namespace, name in everything:
        if namespace == ONE:  # as nobody's finalizer sees it
            tenants.api.change(_path(kind, namespace, name), {"metadata": {"finalizers": []}})
            tenants.delete(namespace, name, kind)

    async def narrow(made: Reconcilers) -> None:
        made.kube.namespaces = (HOME, ONE)
        await sweep(made.kube, made.daemons, "tests", {HOME, ONE, OTHER})

    tenants.operate(narrow)
    assert there(tenants, theirs) == set(KINDS)
    assert there(tenants, ours) == {"Bucket"}, "whose resource may be where nobody looks"

    async def alone(made: Reconcilers) -> None:
        made.kube.namespaces = (HOME, ONE, OTHER)
        await sweep(made.kube, made.daemons, "tests", {HOME, ONE, OTHER})

    tenants.operate(alone)
    assert there(tenants, theirs) == set(KINDS)
    assert there(tenants, ours) == set()
