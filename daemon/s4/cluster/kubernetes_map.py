"""The map as the two halves of a Kubernetes resource: `spec` is the planner's, `status` the daemons'
(docs/kubernetes.md).

`spec` has the geometry, the state of every store that was ever planned with, and for each partition who is wanted.
`status` has where stores are, as they said themselves, and for each partition who holds it. A partition's revision
is the sum of one in each half, so a change of either half raises it, and nobody writes the other's. Stores
that only said where they are stand by. The first status of the partitions comes with their first plan.

Lists keep their order in Kubernetes and maps do not: stores are lists. Partitions name stores by their place in the
list of their own half, -1 for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from s4.cluster.clustermap import FORMAT, STANDBY, ClusterMap, Member, Partition
from s4.cluster.coordinator import CoordinatorError, NotPlannerError
from s4.cluster.messages import Config

Half = dict[str, Any]
NOBODY = Member("", "", "", 1.0, STANDBY)


def joined(spec: Half, status: Half) -> ClusterMap:
    """The map of both halves. Raises CoordinatorError for a format of a newer S4."""
    if spec["format"] != FORMAT:
        raise CoordinatorError(f"the cluster's map has format {spec['format']}; this S4 knows {FORMAT}")
    planned = {one["id"]: one for one in spec.get("stores", ())}
    said = {one["id"]: one for one in status.get("stores", ())}
    stores = {name: _member(planned.get(name, {}), said.get(name, {})) for name in {**said, **planned}}
    spec_names, status_names = list(planned), list(said)
    partitions = tuple(
        _partition(wanted, held, spec_names, status_names)
        for wanted, held in zip(spec.get("partitions", ()), status.get("partitions", ()), strict=False)
    )
    return ClusterMap(
        spec["cluster"],
        spec["data"],
        spec["parity"],
        spec["count"],
        stores,
        partitions,
        spec.get("freeze", False),
        spec.get("copies", 0),
    )


def _member(planned: Half, said: Half) -> Member:
    return Member(
        said.get("node", ""),
        said.get("address", ""),
        planned.get("domain") or said.get("domain", ""),
        planned.get("weight") or said.get("weight") or 1.0,
        planned.get("state", STANDBY),
        said.get("domain", "") if planned.get("domain") else "",
    )


def _partition(wanted: Half, held: Half, spec_names: list[str], status_names: list[str]) -> Partition:
    def named(places: Iterable[int], names: list[str]) -> tuple[str, ...]:
        return tuple(names[place] if place >= 0 else "" for place in places)

    (primary,), (joining,) = named([held["primary"]], status_names), named([held["joining"]], status_names)
    config = Config(
        held["epoch"],
        primary,
        named(held["inSync"], status_names),
        named(held["eligible"], status_names),
        named(held["members"], status_names),
        joining,
        held["position"],
    )
    return Partition(wanted["revision"] + held["revision"], config, named(wanted["wanted"], spec_names))


def split(wanted: ClusterMap, spec: Half, status: Half, *, plans: bool) -> tuple[Half, Half]:
    """The halves of `wanted`, which is a change of the map that `spec` and `status` are; {} and {} where none is. It is
    a planner's change (`plans`) or a daemon's. Raises NotPlannerError where a daemon's needs more than the status."""
    old = joined(spec, status) if spec else ClusterMap(wanted.cluster, wanted.data, wanted.parity, wanted.count, {})
    said = {one["id"]: one for one in status.get("stores", ())}
    for name, member in wanted.stores.items():
        if name not in said or (not plans and old.stores.get(name) != member):
            weight = said.get(name, {"weight": member.weight})["weight"]
            said[name] = {
                "id": name,
                "node": member.node,
                "address": member.address,
                "weight": weight,
                "domain": member.domain,
            }
    planned = {}
    for name, member in wanted.stores.items():
        domain = member.domain if plans else spec_domain(spec, name)
        other = {"domain": domain} if domain and domain != said[name]["domain"] else {}
        if member.state != STANDBY or other:
            planned[name] = {"id": name, "state": member.state, "weight": member.weight, **other}
    new_spec = {
        "format": FORMAT,
        "cluster": wanted.cluster,
        "data": wanted.data,
        "parity": wanted.parity,
        "count": wanted.count,
        "freeze": wanted.freeze,
        **({"copies": wanted.copies} if wanted.copies else {}),
        "stores": list(planned.values()),
    }
    new_status: Half = {"stores": list(said.values())}
    halves = [
        _revisions(one, old.partitions[number] if number < len(old.partitions) else None, spec, number, plans)
        for number, one in enumerate(wanted.partitions)
    ]
    spec_places = {name: place for place, name in enumerate(planned)} | {"": -1}
    status_places = {name: place for place, name in enumerate(said)} | {"": -1}
    new_spec["partitions"] = [
        {"revision": plan, "wanted": [spec_places[name] for name in one.wanted]}
        for one, (plan, _) in zip(wanted.partitions, halves, strict=True)
    ]
    new_status["partitions"] = [
        {
            "revision": held,
            "epoch": one.config.epoch,
            "primary": status_places[one.config.primary],
            "inSync": [status_places[name] for name in one.config.in_sync],
            "eligible": [status_places[name] for name in one.config.eligible],
            "members": [status_places[name] for name in one.config.members],
            "joining": status_places[one.config.joining],
            "position": one.config.position,
        }
        for one, (_, held) in zip(wanted.partitions, halves, strict=True)
    ]
    if not plans and joined(spec, new_status) != joined(new_spec, new_status):
        raise NotPlannerError("in Kubernetes the operator plans: change the S4Cluster instead")
    return new_spec, new_status


def spec_domain(spec: Half, store: str) -> str:
    """The failure domain that the planner gave a store; empty where it is the one that the store says."""
    return str(next((one.get("domain", "") for one in spec.get("stores", ()) if one["id"] == store), ""))


def _revisions(one: Partition, old: Partition | None, spec: Half, number: int, plans: bool) -> tuple[int, int]:
    """(revision in the spec, revision in the status) of a partition: the half of who changes it takes the rise."""
    if old is None:
        return one.revision, 0
    plan = int(spec["partitions"][number]["revision"])
    held = old.revision - plan
    if plans and one.config != old.config:
        raise CoordinatorError("what is held is for the daemons to say")
    return (one.revision - held, held) if plans else (plan, one.revision - plan)
