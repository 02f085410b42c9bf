"""Shares of the data by the size of volumes, and what is said when room runs out."""

from __future__ import annotations

from collections import Counter

from kube.test_plan import settled
from kube.worlds import Model
from s4_operator import sizes
from s4_operator.plan import plan
from s4_operator.steps import AddStores, Weigh

GIB = 1 << 30


def positions(model: Model) -> Counter[str]:
    assert model.map is not None
    return Counter(store for one in model.map.partitions for store in one.wanted)


def sized(model: Model, gib: int, *stores: str) -> Model:
    model.sizes.update(dict.fromkeys(stores, gib * GIB))
    return model


def test_disks_of_a_size_share_evenly_and_nothing_is_said_of_it() -> None:
    model = settled(Model(1, nodes=8, disks=2))
    assert model.map is not None
    for number, store in enumerate(model.map.stores):
        sized(model, 1000 + number, store)
    assert (plan(model.seen()).steps, plan(model.seen()).doing) == ([], [])


def test_larger_disks_hold_more_and_a_volume_that_grew_too() -> None:
    model = settled(Model(2, nodes=12, disks=2))
    assert model.map is not None
    stores = list(model.map.in_state("serving"))
    sized(sized(model, 1000, *stores), 4000, stores[0])
    (step,) = plan(model.seen()).steps
    assert isinstance(step, Weigh)
    model.step(step)
    settled(model)
    assert model.map.stores[stores[0]].weight == 4000.0
    assert positions(model)[stores[0]] > max(positions(model)[one] for one in stores[1:])
    assert plan(model.seen()).steps == []
    sized(model, 1050, stores[1])
    assert plan(model.seen()).steps == [], "a tenth is no difference"
    sized(model, 3000, stores[1])
    assert plan(model.seen()).steps == [Weigh(((stores[1], 3000.0),))]


def test_a_disk_a_host_is_weighed_when_nodes_are_added() -> None:
    """A cluster of 0.7 whose disks differ is not moved about by an update of the operator."""
    model = settled(Model(3, nodes=4))
    assert model.map is not None
    stores = list(model.map.in_state("serving"))
    sized(sized(model, 1000, *stores), 4000, stores[0])
    assert plan(model.seen()).steps == []
    model.spec = model.spec.model_copy(update={"nodes": 5})
    for _ in range(100):
        model.kubernetes()
        if steps := [one for one in plan(model.seen()).steps if isinstance(one, AddStores)]:
            break
        model.operate()
    assert dict(steps[0].weights)[stores[0]] == 4000.0
    settled(model)


def test_low_capacity_says_which_and_what_to_add() -> None:
    model = settled(Model(4, nodes=8, disks=2))
    assert model.map is not None
    stores = list(model.map.in_state("serving"))
    sized(model, 100, *stores)
    model.used = dict.fromkeys(stores, 80 * GIB)
    assert sizes.low(model.seen()) == ""
    model.used[stores[3]] = 90 * GIB
    pod = model.map.stores[stores[3]]
    said = sizes.low(model.seen())
    assert said.startswith(f"{pod.node} on {pod.domain} is 90 % full")
    assert said.endswith("add a host with 2 disks of 100.0 GiB (nodes: 10), or delete")
