"""The atlas has the last word when a fault is due, and makes it happen: faults stay within what the README promises.

- What takes data for good (an empty disk, a removed `meta/`, bytes that rot, ranges and rows that cannot be read)
  strikes one store, only while all is whole: it waits for such a moment, and nobody new goes away while it does. Until
  all is whole again no other store may be damaged, and after the loss of a disk none be away or full. What is damaged
  and nobody has noticed counts until scrubs have been over it.
- Everything else, power lost on all machines at once included, loses nothing that was synced, and may come at any time.
"""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from functools import partial
from typing import Any

from whole.coordinator import HOST
from whole.faults import AWAY, TAKES_DATA, Fault
from whole.made import MADE
from whole.world import World

Node = Any  # of a cluster, or a drive of a server

PATIENCE_S, LOOK_S = 3.0, 0.05  # before what wants all whole holds others back; between two looks


class _Ahead(random.Random):
    """Chooses the largest."""

    def choice(self, seq: Any) -> Any:
        return max(seq)


BEACONS_S = 2.0  # by then a primary has told every replica, and heard what that lacks


class Atlas:
    """Lets faults happen, or not. `happened` counts those that did, by kind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.damaged: Node | None = None
        self._hidden = False  # whether what was damaged last need not show
        self._since = 0.0
        self.happened: dict[str, int] = {}
        self.open = 0  # faults that last and have not ended
        self._ended = 0.0  # when the last of them did
        self._waiting: dict[Fault, float] = {}  # for all to be whole, and since when

    def may(self, fault: Fault) -> bool:
        if self.damaged is not None and not self.open and self.world.whole() == "" and self._found():
            self.damaged = None
        if fault.kind in TAKES_DATA:
            return self.damaged is None and not self.open and self.world.whole() == "" and self._all_began_since()
        held = any(since < self.world.loop.now - PATIENCE_S for since in self._waiting.values())
        return fault.kind not in AWAY or ((self.damaged is None or self._hidden) and not held)

    def _all_began_since(self) -> bool:
        """Whether no request wrote shards while somebody was away: what it has not committed yet shows as missing nowhere,
        and a disk that is damaged then takes a second shard of it."""
        return all(one.asked > self._ended for one in self.world.in_flight)

    def _found(self) -> bool:
        """Whether two scrubs have been over what is damaged: one may have begun in the middle. What is gone is found
        with the next beacon: until then all looks whole."""
        if not self._hidden:
            return self.world.loop.now > self._since + BEACONS_S
        return sum(begun > self._since for begun in self.damaged.machine.scrubs) >= 2

    def _damage(self, node: Node, *, hidden: bool) -> None:
        self.damaged, self._hidden, self._since = node, hidden, self.world.loop.now

    def strike(self, fault: Fault) -> None:
        world, node = self.world, self.world.nodes[fault.node % len(self.world.nodes)]
        if world.calm or (fault.kind in TAKES_DATA and not world.parity):
            return
        if not self.may(fault):
            if fault.kind in TAKES_DATA:
                self._waiting.setdefault(fault, world.loop.now)
                world.loop.at(LOOK_S, lambda: self.strike(fault))
            return
        self._waiting.pop(fault, None)
        world.loop.note(f"FAULT {fault}")
        strike = getattr(self, "_" + fault.kind.replace(" ", "_"), None) or partial(MADE[fault.kind], self)
        if strike(fault, node, random.Random(fault.draw)) is not False:
            self.happened[fault.kind] = self.happened.get(fault.kind, 0) + 1

    def end(self) -> None:
        """The faults are over: nothing new fails, a call that was to fail and has not been made yet included."""
        self.world.calm = True
        for node in self.world.nodes:
            node.disk.fail_once.clear()

    def until(self, seconds: float, undo: Any) -> None:
        self.open += 1

        def end() -> None:
            self.open -= 1
            self._ended = self.world.loop.now
            undo()

        self.world.loop.at(seconds, end)

    # -- processes and machines

    def stop(self, node: Node, seconds: float, power: bool) -> None:
        machine = node.machine
        machine.down = True
        machine.lose_power() if power else machine.kill()
        self.until(seconds, machine.start)

    def _crash(self, fault: Fault, node: Node, _: random.Random) -> None:
        self.stop(node, fault.lasts_s, False)

    def _power(self, fault: Fault, node: Node, _: random.Random) -> None:
        self.stop(node, fault.lasts_s, True)

    def _power_at_write(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """Power goes right after one of the next writes to volumes, which no sync has followed yet."""

        def strike() -> None:
            if not self.world.calm and self.may(fault):
                self.world.loop.effects["power lost at a write"] += 1
                self.stop(node, 1.0, True)

        node.disk.at_write = chosen.randint(0, 40), strike

    def _crash_at_batch(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """Who leads a partition is killed while its own disk takes an entry that the other copies may have by now, and is
        back at once, within everybody's grace."""
        nodes = {self.world.store_of(one): one for one in self.world.nodes}
        leader = nodes.get(chosen.choice(self.world.map().partitions).config.primary)

        def strike() -> None:
            if not self.world.calm and self.may(fault):
                self.stop(leader, chosen.uniform(0.01, 0.1), False)

        if leader is not None:
            leader.disk.at_batch = strike

    def _all_power(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        for one in self.world.nodes:
            self.stop(one, fault.lasts_s * chosen.uniform(0.5, 1.0), True)

    def _pause(self, fault: Fault, node: Node, _: random.Random) -> None:
        if (process := node.machine.process) is not None:
            process.pause(fault.lasts_s)
            self.until(fault.lasts_s, lambda: None)

    def _suspend(self, fault: Fault, node: Node, _: random.Random) -> None:
        """The machine sleeps: its monotonic clock stands still, its wall and boot clocks go on."""
        if (process := node.machine.process) is not None:
            process.pause(fault.lasts_s)
            process.suspended_s += fault.lasts_s * process.rate
            self.until(fault.lasts_s, lambda: None)

    # -- the network

    def _cut(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        other = chosen.choice([one.name for one in self.world.machines if one is not node] + [HOST])
        pairs = {(node.name, other)} | ({(other, node.name)} if chosen.random() < 0.5 else set())
        if chosen.random() < 0.3:
            pairs = {(two, one) for one, two in pairs}
        self.cut_pairs(pairs, fault.lasts_s)

    def _isolate(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        others = [one.name for one in self.world.machines if one is not node] + (
            [HOST] if chosen.random() < 0.6 else []
        )
        ways = chosen.choice(("both", "both", "in", "out"))
        pairs = {(node.name, one) for one in others if ways != "in"} | {
            (one, node.name) for one in others if ways != "out"
        }
        self.cut_pairs(pairs, fault.lasts_s)

    def _apart(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """Cut off from the other nodes; those who are only gateways still ask it, and were told things by it under
        leases."""
        others = [one.name for one in self.world.nodes if one is not node] + ([HOST] if chosen.random() < 0.6 else [])
        self.cut_pairs({(node.name, one) for one in others} | {(one, node.name) for one in others}, fault.lasts_s)

    def _cut_off(self, node: Node, seconds: float) -> None:
        others = [one.name for one in self.world.machines if one is not node.machine] + [HOST]
        self.cut_pairs({(node.name, one) for one in others} | {(one, node.name) for one in others}, seconds)

    def cut_pairs(self, pairs: set[tuple[str, str]], seconds: float) -> None:
        self.world.network.cut |= pairs
        self.until(seconds, lambda: self.world.network.cut.difference_update(pairs))

    def _lost_alone(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """Who leads a partition is cut off from the other nodes, still asked by clients, and dies before it could pass on
        what it was told; another leads before it is back."""
        nodes = {self.world.store_of(one): one for one in self.world.nodes}
        leader = nodes.get(chosen.choice(self.world.map().partitions).config.primary)
        alone_s = chosen.uniform(0.2, 2.5)

        def dies() -> None:
            if not self.world.calm and self.may(fault):
                self.stop(leader, max(fault.lasts_s, 8.0), False)

        if leader is not None:
            self._apart(replace(fault, lasts_s=alone_s + 0.1), leader, chosen)
            self.world.loop.at(alone_s, dies)

    def _slow_network(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        network = self.world.network
        network.slow, network.slow_s = chosen.choice((0.05, 0.2)), chosen.choice((0.5, 3.0))
        self.until(fault.lasts_s, self._plain_network)

    def _resets(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        self.world.network.reset = chosen.choice((0.002, 0.01, 0.03))
        self.until(fault.lasts_s, self._plain_network)

    def _late_packets(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """As resets; and what was on its way arrives all the same, when its sender has long sent it again elsewhere."""
        network = self.world.network
        network.reset, network.late_s = chosen.choice((0.01, 0.03)), chosen.choice((0.5, 3.0, 10.0))
        self.until(fault.lasts_s, self._plain_network)

    def _plain_network(self) -> None:
        network = self.world.network
        network.slow, network.slow_s, network.reset, network.late_s = 0.01, 0.3, 0.0, 0.0

    def _at_answer(self, node: Node, command: str, happens: Any) -> None:
        """Have something happen where a node is about to answer a command: it is committed then, and nobody knows."""
        process = node.machine.process
        if process is not None:
            process.at_answer = command, lambda: None if self.world.calm else happens()

    def _answer_lost(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """The connections of who is about to answer break; its callers ask again."""
        for one in self.world.nodes if chosen.random() < 0.5 else [node]:
            process = one.machine.process
            self._at_answer(one, chosen.choice(("", "", "PutObject")), partial(self.world.network.break_all, process))

    def _full_at_answer(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """The same, and when they ask again the disk is full."""
        seconds = chosen.choice((1.0, 6.0)) * chosen.uniform(0.8, 1.2)  # more than a client asks, or less

        def happens(node: Node, process: Any) -> None:
            self.world.network.break_all(process)
            self._set_full([node], True)
            self.until(seconds, partial(self._set_full, [node], False))

        for one in self.world.nodes:
            self._at_answer(
                one, chosen.choice(("", "PutObject", "PutObject")), partial(happens, one, one.machine.process)
            )

    def _late_commands(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """Connections break under commands, which arrive late all the same, when they have long been sent again."""
        late_s, end = chosen.choice((0.5, 3.0, 10.0)), self.world.loop.now + fault.lasts_s

        def happens(machine: Any, connection: Any) -> None:
            if not self.world.calm and not connection.is_closing():
                connection.break_off(late_s)
            self.world.loop.at(chosen.random(), partial(arm, machine))

        def arm(machine: Any) -> None:
            if self.world.loop.now < end and machine.process is not None:
                machine.process.at_ask = partial(happens, machine)

        for one in self.world.machines:
            arm(one)

    def _two_away(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """Nobody can be asked for longer than a router asks: two nodes are cut off from all, often while a job is
        under way."""
        two = chosen.sample(self.world.nodes, 2)
        left = chosen.choice((-1, 1, 1, 2, 3))  # states of jobs that are kept before; -1 for at once

        def happens(one: Node) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                for away in two:
                    self._cut_off(away, 20.0 + fault.lasts_s)
            elif left > 0:
                self._at_answer(one, "PutJob", partial(happens, one))

        if left < 0:
            left = 1
            happens(node)
            return
        for one in self.world.nodes:
            self._at_answer(one, "PutJob", partial(happens, one))

    # -- disks

    def _full(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        several = [node] if chosen.random() < 0.5 else self.world.nodes
        for one in several:
            one.disk.full = True

        def undo() -> None:
            for one in several:
                one.disk.full = False

        self.until(fault.lasts_s, undo)

    def _nearly_full(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """What is free hovers around the reserve: somebody else writes there, and deletes again."""
        several = [node] if chosen.random() < 0.5 else self.world.nodes
        at = 0.0
        while at < fault.lasts_s:
            full, at = at, at + chosen.uniform(0.05, 1.0)
            self.world.loop.at(full, partial(self._set_full, several, True))
            self.world.loop.at(at, partial(self._set_full, several, False))
            at += chosen.uniform(0.05, 1.0)
        self.until(at + 1.0, lambda: None)

    @staticmethod
    def _set_full(several: list[Node], full: bool) -> None:
        for one in several:
            one.disk.full = full

    def _fail_sync(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        self._failing(fault, node, "sync", chosen)

    def _fail_write(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        self._failing(fault, node, "write", chosen)

    def _failing(self, fault: Fault, node: Node, kind: str, chosen: random.Random) -> None:
        if chosen.random() < 0.7:
            node.disk.fail_once[kind] = errno.EIO, chosen.randint(0, 20)
        else:
            node.disk.failing[kind] = errno.EIO
            self.until(fault.lasts_s, lambda: node.disk.failing.pop(kind, None))

    def _slow_disk(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        node.disk.slow = chosen.choice((20.0, 200.0))

        def undo() -> None:
            node.disk.slow = 1.0

        self.until(fault.lasts_s, undo)

    def _rot(self, fault: Fault, node: Node, chosen: random.Random) -> bool:
        found = [(path, file) for path, file in node.disk.volumes() if len(file.durable) > 200]
        if found:
            self._damage(node, hidden=True)
            for _ in range(chosen.choice((1, 5, 20))):
                path, file = chosen.choice(found)
                node.disk.rot(path, file, chosen.randrange(64, len(file.durable)))
        return bool(found)

    def _unreadable(self, fault: Fault, node: Node, chosen: random.Random) -> bool:
        """Ranges that give EIO from now on, for good."""
        found = [file for _, file in node.disk.volumes() if len(file.durable) > 200]
        if found:
            self._damage(node, hidden=True)
            for file in found if chosen.random() < 0.5 else [chosen.choice(found)]:
                start = chosen.randrange(64, len(file.durable))
                file.unreadable.append((start, min(len(file.durable), start + chosen.choice((512, 4096, 1 << 20)))))
        return bool(found)

    def _unreadable_tail(self, fault: Fault, node: Node, chosen: random.Random) -> bool:
        """What was written last gives EIO, for good, and there is a start just then, which has to read it."""
        found = [
            (file, end) for _, file in node.disk.volumes() if (end := len(bytes(file.durable).rstrip(b"\0"))) > 200
        ]
        if found:
            self._damage(node, hidden=True)
            file, end = found[-1]
            file.unreadable.append((max(64, end - chosen.choice((500, 5_000, 50_000))), end))
            self.stop(node, chosen.uniform(0.2, 2.0), chosen.random() < 0.5)
        return bool(found)

    def _damaged_rows(self, fault: Fault, node: Node, chosen: random.Random) -> bool:
        """Some blocks of the metadata's database are damaged, for good."""
        kept = node.disk.databases.get(str(node.disk.root / "meta"))
        names = sorted(kept.durable) if kept is not None else []
        if kept is not None and names:
            self._damage(node, hidden=True)
            for _ in range(chosen.choice((1, 3))):
                at = chosen.randrange(len(names))
                kept.damaged.append((names[at], names[min(len(names) - 1, at + chosen.choice((1, 10)))] + b"\x00"))
        return bool(names)

    def _wipe(self, fault: Fault, node: Node, _: random.Random) -> None:
        """The disk is replaced by an empty one, and somebody says so."""
        world, lost = self.world, self.world.store_of(node)
        self._emptied(node, node.disk.wipe)
        world.admin.spawn(world.replace(node, lost))

    def _no_metadata(self, fault: Fault, node: Node, _: random.Random) -> bool:
        """Somebody removes `meta/`, and nothing else."""
        there = (node.disk.root / "meta").exists()
        if there:
            self._emptied(node, lambda: node.disk.wipe("meta"))
        return there

    def _emptied(self, node: Node, empty: Any) -> None:
        self._damage(node, hidden=False)
        node.machine.down = True
        node.machine.kill()
        empty()
        node.machine.start()

    # -- clocks and the coordinator

    def _wall_step(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """In most seeds one at a time: where several are off nobody can tell who is right, and judges grant an hour."""
        others = (one.machine.wall_s for one in self.world.nodes if one is not node)
        if self.world.seed % 64 < 16 or not any(others):
            self._step_wall(fault, node, chosen)

    def _step_wall(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        step = chosen.choice((-1, 1)) * chosen.choice((3.0, 60.0, 1000.0, 4000.0))
        self._set_wall(node, step)
        self.until(fault.lasts_s * 3, lambda: self._set_wall(node, 0.0))

    def _late_leader(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        """A partition's primary is cut off while the clocks of those that may follow it are ahead, and long enough for
        that."""
        fault = replace(fault, lasts_s=max(fault.lasts_s, 8.0))
        parts, nodes = self.world.map().partitions, {self.world.store_of(one): one for one in self.world.nodes}
        config = chosen.choice(parts).config
        if config.primary in nodes:
            for store in config.in_sync:
                if store != config.primary and store in nodes:
                    self._step_wall(fault, nodes[store], _Ahead())
            leader = nodes[config.primary]
            if chosen.random() < 0.3:
                self._isolate(fault, leader, chosen)
            else:  # when it has committed what it cannot answer any more
                self._at_answer(leader, "PutObject", partial(self._cut_off, leader, fault.lasts_s))

    def _set_wall(self, node: Node, off: float) -> None:
        node.machine.wall_s = off
        if node.machine.process is not None:
            node.machine.process.wall_s = off
        self.world.most_off = max(self.world.most_off, sum(one.machine.wall_s != 0 for one in self.world.nodes))

    def _rate(self, fault: Fault, node: Node, chosen: random.Random) -> None:
        """From its next start on, for the whole process: no clock jumps by it."""
        node.machine.rate = chosen.choice((0.95, 1.05))

    def _coordinator_away(self, fault: Fault, _: Node, __: random.Random) -> None:
        self.world.documents.away = True

        def undo() -> None:
            self.world.documents.away = False

        self.until(fault.lasts_s, undo)

    def _coordinator_lossy(self, fault: Fault, _: Node, chosen: random.Random) -> None:
        documents = self.world.documents
        documents.loss, documents.late = chosen.choice((0.05, 0.3)), chosen.choice((0.0, 0.3))

        def undo() -> None:
            documents.loss = documents.late = 0.0

        self.until(fault.lasts_s, undo)
