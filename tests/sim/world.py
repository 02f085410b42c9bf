"""A partition's replicas, a coordinator and clients in one thread, in made-up time, under seeded faults.

Faults, all within what S4 promises to survive: messages are lost, late, doubled and overtaken, links are cut in one
direction or both; a process is paused, crashes with any suffix of its unsynced writes lost, or its store is wiped and
replaced by a new one while another copy is good; its copy of the metadata is removed, or an older one put in its place,
while the store stays who it is; clocks differ in rate; the coordinator is slow or away, answers get lost, a
compare-and-swap lands late or twice. The same seed gives the same run.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections.abc import Callable
from typing import Any

import msgspec

from s4.cluster.messages import Commit, Config, Document, Entry, Plan, Write
from s4.replica.core import Replica
from sim.linear import FOREVER, Call, is_linearizable
from sim.node import BrokenError, Disk, Node, durable, last

KEYS = ("a", "b", "c")
PATIENCE_S = 8.0
COORDINATOR = "coordinator"
CALM_S, QUIET_S = 60.0, 15.0  # without faults at the end, and of that without clients
FAULTS = (
    "crash",
    "restart",
    "restart",
    "pause",
    "cut",
    "cut off",
    "one way",
    "cut but one",
    "heal",
    "heal",
    "loss",
    "slow",
    "slow coordinator",
    "no coordinator",
    "wipe",
    "wipe",
    "leave",
    "leave",
    "seat",
    "empty",
    "restore",
)


class World:
    """Runs one seed. `check_end` raises BrokenError where something was lost, wrong, or never came right."""

    def __init__(
        self,
        seed: int,
        *,
        replicas: int = 3,
        spares: int = 0,
        seconds: float = 60.0,
        node_class: type[Node] = Node,
        faults: tuple[str, ...] = FAULTS,
    ) -> None:
        self.random = random.Random(seed)
        self.now, self.count = 0.0, 0
        self.queue: list[tuple[float, int, Callable[[], None], Node | None]] = []
        self.seconds, self.faults = seconds, faults
        self.committed: dict[int, Entry] = {}
        self.acknowledged = 0
        self.history: dict[str, list[Call]] = {key: [] for key in KEYS}
        self.open: dict[int, tuple[str, str, str, float]] = {}
        self.done: dict[int, Callable[[Any, int], None]] = {}
        self.commands = 0
        self.cut: set[tuple[str, str]] = set()
        self.loss, self.slow, self.slow_coordinator, self.coordinator_away_until, self.calm = 0.0, 0.03, 0.1, 0.0, False
        self.emptied: set[str] = set()  # whose copies are lost though the map may count on them still
        self.lacks_nothing: set[str] = set()  # removed from the in-sync set when too few were left, and since
        self.kept_bytes = self.random.choice(
            (-1, 100, 600, 1 << 20)
        )  # so that replicas join by snapshot, by log, or by either
        self.made = replicas + spares
        self.node_class = node_class
        self.nodes = {f"s{number}": node_class(self, f"s{number}") for number in range(self.made)}
        stores, minimum = tuple(self.nodes)[:replicas], 2 if replicas >= 3 else 1
        self.document = Document(Config(1, stores[0], stores), Plan(stores, minimum, members=tuple(self.nodes)))
        self.revision = 1
        self.gone: dict[str, Node] = {}
        for node in self.nodes.values():
            node.start()

    # -- time

    def later(self, delay: float, work: Callable[[], None], node: Node | None = None) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, work, node))

    def run_until(self, end: float) -> None:
        while self.queue and self.queue[0][0] <= end:
            at, number, work, node = heapq.heappop(self.queue)
            if node is not None and node.paused_until > at:
                heapq.heappush(self.queue, (node.paused_until, number, work, node))
                continue
            self.now = max(self.now, at)
            work()
        self.now = end

    # -- the network

    def send(self, sender: Node, to: str, message: Any) -> None:
        target = self.nodes.get(to)
        if target is None or not target.up:
            return
        incarnation = target.incarnation

        def arrive() -> None:
            if target.up and target.incarnation == incarnation and (sender.store, to) not in self.cut:
                target.step(lambda: target.replica.receive(sender.store, message, target.clock()))

        for _ in range(1 + (self.random.random() < 0.03)):
            if self.random.random() >= self.loss and (sender.store, to) not in self.cut:
                slow = self.random.random() < self.slow
                self.later(self.random.uniform(0.2, 4.0) if slow else self.random.uniform(0.001, 0.02), arrive, target)

    # -- the coordinator

    def _later_there(self, node: Node, work: Callable[[], None]) -> None:
        """At the coordinator, once it is reached; some requests get lost, some come twice."""
        if (
            (node.store, COORDINATOR) in self.cut
            or self.now < self.coordinator_away_until
            or self.random.random() < (0 if self.calm else 0.1)
        ):
            return
        for _ in range(1 + (self.random.random() < 0.05)):
            slow = self.random.random() < self.slow_coordinator
            self.later(self.random.uniform(0.5, 6.0) if slow else self.random.uniform(0.005, 0.05), work)

    def _tell(self, hear: Callable[[Document, int], None], node: Node) -> None:
        if (COORDINATOR, node.store) in self.cut or self.random.random() < (0 if self.calm else 0.15):
            return
        document, revision = self.document, self.revision
        self.later(self.random.uniform(0.005, 0.1), lambda: hear(document, revision), node)

    def read(self, hear: Callable[[Document, int], None], node: Node) -> None:
        self._later_there(node, lambda: self._tell(hear, node))

    def swap(self, config: Config, revision: int, hear: Callable[[Document, int], None], node: Node) -> None:
        def decide() -> None:
            if self.revision == revision:
                if config.epoch != self.document.config.epoch + 1:
                    raise BrokenError(f"an epoch was skipped: {self.document.config} -> {config}")
                self.lacks_nothing |= set(self.document.config.in_sync) - set(config.in_sync)
                if len(config.in_sync) >= self.document.plan.minimum:
                    self.lacks_nothing.clear()
                self.emptied -= set(config.in_sync) - set(self.document.config.in_sync)
                self.document, self.revision = Document(config, self.document.plan), revision + 1
                self.check_in_sync()
            self._tell(hear, node)

        self._later_there(node, decide)

    def replan(self, old: str, new: str) -> None:
        """Store `old` is gone for good and `new` takes its place."""
        plan = self.document.plan
        replicas, members = (tuple(new if one == old else one for one in all) for all in (plan.replicas, plan.members))
        plan = msgspec.structs.replace(plan, replicas=replicas, members=members, gone=(*plan.gone, old))
        self.document = Document(self.document.config, plan)
        self.revision += 1

    # -- clients

    def client(self) -> None:
        """One command after another, each tried again under the same id until an answer or the end of patience."""
        if self.now > self.seconds + CALM_S - QUIET_S:
            return
        self.commands += 1
        command, key = self.commands, self.random.choice(KEYS)
        kind = self.random.choices(("put", "create", "delete", "get"), (3, 2, 1, 4))[0]
        if len(self.history[key]) > 200:
            return
        value, begin = f"v{command}", self.now
        self.open[command] = (kind, key, value, begin)
        attempts = 0

        def done(result: Any, attempt: int) -> None:
            """An answer to any but the last attempt is no answer (R12)."""
            if attempt == attempts and self.open.pop(command, None) is not None:
                self.history[key].append(Call(kind, value, begin, self.now, result))
                self.later(self.random.uniform(0.01, 0.4), self.client)

        def attempt() -> None:
            nonlocal attempts
            if command not in self.open:
                return
            if self.now - begin > PATIENCE_S:
                del self.open[command]
                self.history[key].append(Call(kind, value, begin, FOREVER))
                self.later(self.random.uniform(0.01, 0.2), self.client)
                return
            node = self.nodes.get(self.document.config.primary)
            if node is None or self.random.random() < 0.2:
                node = self.random.choice(list(self.nodes.values()))
            attempts += 1
            number, target, incarnation = attempts, node, node.incarnation
            delay = self.random.uniform(0.5, 5) if self.random.random() < 0.1 else self.random.uniform(0.001, 0.02)

            def arrive() -> None:
                if target.up and target.incarnation == incarnation:
                    target.step(lambda: target.command(command, number, kind, key, value))

            self.later(delay, arrive, target)
            self.later(self.random.uniform(0.3, 1.0), attempt)

        self.done[command] = done
        attempt()

    def reply(self, named: tuple[int, int], result: tuple[Any] | None) -> None:
        if result is not None and self.random.random() >= self.loss:
            slow = self.random.random() < 0.05
            self.later(
                self.random.uniform(0.5, 3) if slow else self.random.uniform(0.001, 0.02),
                lambda: self.done[named[0]](result[0], named[1]),
            )

    # -- faults

    def trouble(self) -> None:
        if self.calm:
            return
        node = self.random.choice(list(self.nodes.values()))
        names = list(self.nodes)
        match self.random.choice(self.faults):
            case "crash" if node.up:
                node.crash()
                self.later(self.random.uniform(0.05, 8), lambda: node.up or node.store in self.gone or node.start())
            case "away":  # two at once, for longer than those who hold shards wait
                for other in self.random.sample(list(self.nodes.values()), 2):
                    self.stop(other, other.replica, 30)
            case "restart" if node.up:
                node.crash()
                self.later(self.random.uniform(0.01, 0.4), lambda: node.up or node.store in self.gone or node.start())
            case "leave" if (
                node.up and self.document.plan.minimum > 1
            ):  # of two copies, one that stops is the one that may be lost
                # told to stop: it gets out of the way first, if it can
                replica = node.replica  # of this process; the one after it is not told
                for number in range(5):
                    self.later(
                        number * 0.1,
                        lambda: node.up and node.replica is replica and node.step(lambda: replica.leave(node.clock())),
                        node,
                    )
                self.later(self.random.uniform(0.6, 2), lambda: self.stop(node, replica), node)
            case "seat" if node.up:  # other holders of shards: a configuration that changes no replica
                node.step(lambda: node.replica.seat((str(self.now),), "", -1, node.clock()))
            case "hand over" if node.up:  # a damaged copy lets another lead, and stays in sync
                node.step(lambda: node.replica.hand_over(node.clock(), ()))
            case "pause":
                node.paused_until = self.now + self.random.uniform(0.5, 8)
            case "cut" | "cut off" as kind:
                for other in [*names, COORDINATOR] if kind == "cut off" else names:
                    self.cut |= {(node.store, other), (other, node.store)}
            case "one way":
                ends = (node.store, self.random.choice([*names, COORDINATOR]))
                self.cut.add(ends if self.random.random() < 0.5 else ends[::-1])
            case "heal":
                self.cut.clear()
            case "loss":
                self.loss = self.random.choice((0.0, 0.0, 0.1, 0.4))
            case "cut but one":  # from the coordinator
                for other in names:
                    if other != node.store:
                        self.cut |= {(other, COORDINATOR), (COORDINATOR, other)}
            case "slow":
                self.slow = self.random.choice((0.03, 0.03, 0.3))
            case "slow coordinator":
                self.slow_coordinator = self.random.choice((0.1, 0.1, 0.6))
            case "no coordinator":
                self.coordinator_away_until = self.now + self.random.uniform(0.5, 10)
            case "wipe" if self.may_wipe(node.store):
                self.wipe(node)
            case "empty" if self.may_wipe(node.store):
                self.lose(node, Disk(), 8)
            case "restore" if self.may_restore(node):
                self.restore(node)
                return
        self.later(self.random.expovariate(1 / 2.0), self.trouble)

    def stop(self, node: Node, replica: Replica, most_s: float = 4) -> None:
        if node.up and node.replica is replica:
            node.crash()
            self.later(self.random.uniform(0.05, most_s), lambda: node.up or node.store in self.gone or node.start())

    def lose(self, node: Node, disk: Disk, away_s: float) -> None:
        node.lose(disk)
        self.emptied.add(node.store)
        self.lacks_nothing.discard(node.store)
        self.later(self.random.uniform(0.01, away_s), lambda: node.up or node.store in self.gone or node.start())

    def may_restore(self, node: Node) -> bool:
        """Three good copies at least, and the others know what is committed: who does not would take an old copy's
        word."""
        good = set(self.document.config.in_sync) - self.emptied
        know = all(
            self.nodes[one].disk.state.commit >= self.acknowledged for one in good - {node.store} if one in self.nodes
        )
        return self.may_wipe(node.store) and node.up and len(good) >= 3 and node.backup.state.epoch > 0 and know

    def restore(self, node: Node) -> None:
        """An older copy takes the place of one, and for some seconds nobody can tell it but who led before, who comes
        late. Nothing else happens until that is over, for it is as much as can be borne: an old copy does not look
        like one."""
        self.heal()
        self.lose(node, node.backup, 0.4)
        led = self.nodes.get(self.document.config.primary, node)
        for other in set(self.nodes) - {led.store}:
            self.cut |= {(node.store, other), (other, node.store)}
        if led is not node and led.up:
            led.crash()
            self.later(self.random.uniform(0.5, 6), lambda: led.up or led.store in self.gone or led.start())
        self.later(self.random.uniform(2.5, 8), self.heal)
        self.later(20.0, self.trouble)

    def heal(self) -> None:
        self.cut.clear()
        self.coordinator_away_until, self.loss = self.now, 0.0
        for node in self.nodes.values():
            node.paused_until = self.now

    def look_after(self) -> None:
        """A person who sees an alarm, and starts that node again, or declares it gone where nobody goes on without it;
        and copies are backed up."""
        for node in list(self.nodes.values()):
            alarm = node.up and node.paused_until <= self.now and node.replica.alarm
            if alarm and node.store in self.emptied and self.document.config.in_sync == (node.store,):
                self.wipe(node)
            elif alarm:
                node.crash()
                node.start()
            elif self.random.random() < 0.2:
                node.backup = copy.deepcopy(Disk(node.disk.state, node.disk.rows, node.disk.answers))
        self.later(5.0, self.look_after)

    def may_wipe(self, store: str) -> bool:
        """Losing one store is promised to be survived while another holds all that was committed."""
        config, plan = self.document.config, self.document.plan
        whole = (set(config.in_sync) | self.lacks_nothing) - set(self.gone) - self.emptied
        return store in config.in_sync and len(whole - {store}) >= 1 and not set(plan.gone) & set(config.in_sync)

    def wipe(self, node: Node) -> None:
        if node.up:
            node.crash()
        self.gone[node.store] = node
        del self.nodes[node.store]
        new = f"s{self.made}"
        self.made += 1
        self.replan(node.store, new)
        self.nodes[new] = self.node_class(self, new)
        self.nodes[new].start()

    # -- invariants

    def check_commit(self, node: Node, write: Write) -> None:
        if isinstance(write, Commit):
            for entry in write.entries:
                known = self.committed.setdefault(entry.sequence, entry)
                if known != entry:
                    raise BrokenError(
                        f"two entries were committed at {entry.sequence}: {known} and, on {node.store}, {entry}"
                    )

    def check_serving(self) -> None:
        serving = [
            node.store
            for node in self.nodes.values()
            if node.up and node.replica.serves(node.clock()) and node.paused_until <= self.now
        ]
        if len(serving) > 1:
            raise BrokenError(f"{serving} serve at once")

    def check_copies(self, sequence: int) -> None:
        """What is acknowledged was durable on as many stores as were promised, those lost since among them."""
        self.acknowledged = max(self.acknowledged, sequence)
        everywhere = (*self.nodes.values(), *self.gone.values())
        copies = [node.store for node in everywhere if max(map(last, (node.disk, *node.lost_disks))) >= sequence]
        if len(copies) < self.document.plan.minimum:
            raise BrokenError(f"entry {sequence} was acknowledged with copies on {copies} only")

    def check_in_sync(self) -> None:
        for store in self.document.config.in_sync:
            node = self.nodes.get(store)
            if node is not None and store not in self.emptied and durable(node) < self.acknowledged:
                raise BrokenError(
                    f"{store} is in sync and lacks acknowledged entries: {durable(node)} of {self.acknowledged}"
                )

    # -- the whole

    def run(self) -> World:
        for _ in range(4):
            self.client()
        self.later(2.0, self.trouble)
        self.later(1.0, self.look_after)
        self.run_until(self.seconds)
        self.calm, self.loss, self.slow, self.slow_coordinator = True, 0.0, 0.0, 0.0
        self.cut.clear()
        self.coordinator_away_until = 0.0
        for node in self.nodes.values():
            node.paused_until = 0.0
            if not node.up:
                node.start()
        self.run_until(self.seconds + CALM_S)
        return self

    def check_end(self) -> None:
        config = self.document.config
        alarms = {node.store: node.replica.alarm for node in self.nodes.values() if node.replica.alarm}
        if alarms:
            raise BrokenError(f"alarms: {alarms}")
        planned = self.document.plan.replicas
        if set(config.in_sync) != set(planned):
            raise BrokenError(f"the replicas never came together: {config}, planned {planned}, nodes {[*self.nodes]}")
        primary = self.nodes[config.primary]
        if not primary.replica.serves(primary.clock()):
            raise BrokenError("no primary serves though all is calm")
        for node in (self.nodes[store] for store in planned):
            if node.replica.state.log or (node.rows, node.answers) != (primary.rows, primary.answers):
                raise BrokenError(f"{node.store} differs from {primary.store}, though nobody writes any more")
        for key, calls in self.history.items():
            unfinished = [
                Call(kind, value, begin, FOREVER) for kind, other, value, begin in self.open.values() if other == key
            ]
            if not is_linearizable(calls + unfinished):
                raise BrokenError(f"the history of {key} is not linearizable: {calls}")
