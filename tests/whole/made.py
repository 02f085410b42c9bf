"""Kinds of faults that are made for one rule, which the others reach too seldom: a seed has them where it is told to
(`broken.LIKELY`), and what has a store more than it needs has "drain" (run.py). Whether one may happen is for atlas.py.

Each is called with the atlas, the fault, its node and what it draws from; False where nothing happened.
"""

from __future__ import annotations

import random
from typing import Any

from s4.cluster import planner
from s4.peer.server import LEASE_S
from whole.coordinator import HOST
from whole.faults import Fault
from whole.world import ORPHAN_AGE_S

Atlas = Any  # atlas.Atlas, which imports this
Node = Any


def _both(name: str, others: list[str]) -> set[tuple[str, str]]:
    return {(name, one) for one in others} | {(one, name) for one in others}


def settings_move(atlas: Atlas, fault: Fault, _: Node, chosen: random.Random) -> bool:
    """A gateway is cut off from all but who leads partition 0, until no lease binds anybody else to wait for it; then
    that one hands over, as a damaged copy does, and is cut off from it as well: the gateway holds a lease on settings
    of which only the primary before knows."""
    world = atlas.world
    if not hasattr(world.nodes[0].machine, "member"):  # a server's settings do not move
        return False
    nodes = {world.store_of(one): one for one in world.nodes}
    leader = nodes.get(str(world.map().partitions[0].config.primary))
    if leader is None:
        return False
    told = chosen.choice([one for one in world.machines if one is not leader.machine])
    ends = [one.name for one in world.machines if one not in (told, leader.machine)] + [HOST]
    alone_s, led_s = LEASE_S + chosen.uniform(0.1, 0.5), max(2.5, fault.lasts_s)
    atlas.cut_pairs(_both(told.name, ends), alone_s + led_s)

    def moves() -> None:
        process = leader.machine.process
        if world.calm or process is None or not process.alive or process.paused:
            return
        group = leader.machine.member.node.host.group
        mine = [store for store, one in nodes.items() if one.machine is told]
        if world.loop.ask(process, lambda: group.replica(0).hand_over(group.clock(), mine)):
            world.loop.effects["settings led by another"] += 1
            atlas.cut_pairs(_both(told.name, [leader.name]), led_s)
            world.alone = told
            world.loop.at(led_s, lambda: setattr(world, "alone", None))

    world.loop.at(alone_s, moves)
    return True


def early_audit(atlas: Atlas, fault: Fault, _: Node, __: random.Random) -> None:
    """The auditor takes for an orphan what is younger than a request is long (C3)."""
    world = atlas.world
    world.orphan_age_s = world.least_age_s = 0.5
    atlas.until(max(5.0, fault.lasts_s), lambda: setattr(world, "orphan_age_s", ORPHAN_AGE_S))


def power_in_a_put(atlas: Atlas, fault: Fault, node: Node, chosen: random.Random) -> None:
    """A store loses power once it has answered for the first stripes of a blob, of which no sync has followed yet, and
    is back before the last one comes: another store stands still meanwhile (D2)."""
    world = atlas.world
    other = chosen.choice([one for one in world.nodes if one is not node])

    def strike() -> None:
        if not world.calm and atlas.may(fault) and other.machine.process is not None:
            other.machine.process.pause(2.0)
            world.loop.at(chosen.uniform(0.0, 0.03), lambda: atlas.stop(node, 0.02, True))

    node.disk.at_write = chosen.randint(0, 40), strike


def drain(atlas: Atlas, fault: Fault, node: Node, _: random.Random) -> bool:
    """A store is drained, and added again a while later: positions move there and back (D3)."""
    world, store = atlas.world, atlas.world.store_of(node)
    if not store or any(one.state == planner.DRAINING for one in world.map().stores.values()):
        return False
    world.admin.spawn(world.change(lambda old: planner.drained(old, [store])))
    atlas.until(fault.lasts_s, lambda: world.admin.spawn(world.change(lambda old: planner.added(old, [store]))))
    return True


MADE = {
    "settings move": settings_move,
    "early audit": early_audit,
    "power in a put": power_in_a_put,
    "drain": drain,
}
