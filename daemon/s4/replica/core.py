"""One replica of one partition, as values: messages, time, finished writes and configurations go in; writes,
messages, compare-and-swaps and commits come out. Source: Lin et al., "PacificA: Replication in Log-Based Distributed
Storage Systems", MSR-TR-2008-25. The rules R1 to R10 and M4 are named where they are enforced.

Invariants, which an editor must not break:
- Every committed entry is in the log, or in the rows, of every in-sync replica (R2). So any of them may become primary.
- At most one replica serves: the primary, while each in-sync secondary has promised not to promote itself (R5).
- What a replica says about its disk it says after the write was synced (replica/ledger.py).
- A configuration is decided from the very document that it replaces. Until a newer document was seen, its outcome is
  unknown: both sets count (R4), and a replica that promotes itself gives no promise and takes nothing.
- What a replica that joins says counts for its try (`attempt`), however late or twice messages come.
- A copy that the map counts on and that lacks what is committed is LOST, durably, and leads nothing until a primary
  has shown that it lacks nothing, or has filled it (M4).

A crash at any point leaves a prefix of the writes. Everything else is made anew at start: a secondary gives a full
grace before it promotes itself, a primary takes a new epoch before it serves (R10). The host (replica/group.py) owns
disk, network and clock: it calls one input at a time, takes `writes`, `messages`, `snapshots`, and sees to `swap`.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from s4.cluster import messages
from s4.cluster.messages import FIRST_EPOCH, LOST, Config, Document, Entry, Plan, State
from s4.replica.changes import behind, grown, may_join, outlived, removable, surplus, without
from s4.replica.ledger import Ledger
from s4.replica.terms import LOST_ALARM, NEVER, Kept, NotServingError, Peer, Progress, Swap, Timing, TooFewError

PROBE, REPLICATE = Progress.PROBE, Progress.REPLICATE


class Replica(Ledger):
    """`me` is a store's id; `state` is what its disk had at start, and is kept up with every write given out."""

    def __init__(self, me: str, state: State, timing: Timing, now: float) -> None:
        super().__init__(state)
        self.me, self.timing, self.now = me, timing, now
        self.document: Document | None = None
        self.revision = self.began = 0  # of the document; the epoch from which on it has led without a break
        self.snapshots: list[tuple[str, int]] = []  # (replica, attempt) that the host is to send a Snapshot
        self.swap: Swap | None = None  # the host repeats it until a newer document was seen
        self.behind = self.cramped = False  # somebody has a newer document: the host reads it; no room for more here
        self._alarm, self._heard, self._seen = "", now, now  # from a primary, or a new configuration; that alone
        self._ticked, self._patient = now, NEVER  # until then nobody is given up: we stood still ourselves
        self._peers, self._kept = dict[str, Peer](), Kept()
        self._leaving = self.leading = False  # about to stop; primary, made so by a swap of this process
        self._settled: int | None = None  # what must be committed before this primary serves (R7)
        self._exact_in = self._attempt = 0  # epoch, and try to join, in which the primary told us where our log ends
        self._next_part, self._filled = 0, now  # of the snapshot that we get in this try; when one came
        self._told_lost = self._shown = False  # a primary showed us that we lack something; that we do not (M4)
        self._attempts = 0  # that we as primary gave numbers

    # -- what the host may ask

    @property
    def alarm(self) -> str:
        """Why this replica takes no part, where a person should know; or empty."""
        if self._alarm or self.state.joining != LOST:
            return self._alarm
        silent = self._counts() and self.now - self._heard >= self.timing.grace
        return LOST_ALARM if self._told_lost or silent else ""  # one that is new is told better within moments

    @property
    def lag(self) -> int:
        """By how many entries the slowest in-sync replica is behind what this primary has."""
        acked = [self._peers[one].acked or 0 for one in self._needed() if one in self._peers]
        return max((self.last - one for one in acked), default=0) if self.leading else 0

    def serves(self, now: float) -> bool:
        """Whether reads may be answered from committed rows: every in-sync secondary's promise holds (R5, R6)."""
        if not self.leading or self._settled is not None or self._alarm or self._handing_over():
            return False
        return all(self._peers[one].promised > now - self.timing.lease for one in self._needed())

    # -- inputs

    def propose(self, rows: bytes, now: float) -> Entry:
        """The next entry, on its way to all. Raises NotServingError, TooFewError."""
        self.now = now
        if not self.serves(now):
            raise NotServingError(f"{self.me} does not serve this partition")
        if not self._enough():
            raise TooFewError("too few replicas are in sync for a write")
        entry = Entry(self.state.epoch, self.last + 1, rows)
        self._keep(entry)
        for name, peer in list(self._peers.items()):
            self._send_entries(name, peer)
        return entry

    def seat(self, members: tuple[str, ...], joining: str, position: int, now: float) -> bool:
        """Ask for a configuration with other holders of shards (D3). False where another change is under way."""
        self.now = now
        if not self.leading or self.swap is not None or self.document is None:
            return False
        config, epoch = self.document.config, self.document.config.epoch + 1
        self._propose(replace(config, epoch=epoch, members=members, joining=joining, position=position))
        return True

    def leave(self, now: float) -> bool:
        """Have others go on before this one stops, which serves no more from its swap on (R5). False: they do, or cannot."""
        self.now, self._leaving = now, True
        if self.document is None or self.me not in self.document.config.in_sync:
            return False
        config, plan = self.document.config, self.document.plan
        spared = len(config.in_sync) > plan.minimum  # nobody need wait for our disk
        if not self.leading:
            if spared and config.primary != self.me:
                self.messages.append((config.primary, messages.Leave(config.epoch)))
            return spared
        heirs = self._heirs()
        if heirs and self.swap is None and self._settled is None:
            self._propose(self._without(config, plan, {self.me} if spared else set(), heirs[0]))
        return bool(heirs)

    def hand_over(self, now: float, passed: Collection[str]) -> str:
        """Have another in sync lead, which is none of those `passed` over, and follow it; which, or "" for none now."""
        self.now = now
        if not self.leading or self.document is None or self.swap is not None or self._settled is not None:
            return ""
        heir = next((one for one in self._heirs() if one not in passed), "")
        if heir:
            self._propose(self._without(self.document.config, self.document.plan, set(), heir))
        return heir

    def _heirs(self) -> list[str]:
        """Replicas in sync that promised less than a lease ago, those first that have the most."""
        alive = [one for one in self._needed() if self._peers[one].promised > self.now - self.timing.lease]
        return sorted(alive, key=lambda one: self._peers[one].acked or 0, reverse=True)

    def see(self, document: Document, revision: int, now: float) -> None:
        """A document of the coordinator, maybe not its newest. It settles an older swap (R4)."""
        self.now = now
        if revision <= self.revision:
            return
        if document.config.epoch < self.state.epoch:  # a map from a backup (R7)
            self._alarm = f"the map is at epoch {document.config.epoch}, this replica has been at {self.state.epoch}"
            return
        config, previous, swap = document.config, self.document, self.swap
        self.document, self.revision, self.behind, self.swap = document, revision, False, None
        if previous is not None and previous.config == config:
            return  # only the plan changed
        empty = self.state.epoch == 0
        self._write(messages.KeepEpoch(config.epoch, config))
        if empty and config.epoch > FIRST_EPOCH and self._counts():
            # whoever counts has seen an epoch, or nothing was committed yet (M4)
            self._write(messages.MarkJoining(LOST))
        if swap is not None and swap.config == config and config.primary == self.me:
            self._lead(config, swap, previous)
            return
        self.leading, self._peers, self._settled = False, {}, None
        self._heard, self._seen, self._attempt, self._next_part = now, now, 0, 0
        joining = self.state.joining
        if joining is not None and self._counts() and config.epoch > joining:
            self._write(messages.MarkJoining(None))  # added by the primary, so we had everything (R8), and kept it (R9)

    def receive(self, sender: str, message: messages.AnyMessage, now: float) -> None:
        self.now = now
        config = self.document.config if self.document else None
        if config is None or message.epoch > config.epoch:
            self.behind = True
        elif message.epoch < config.epoch:
            return  # its sender will see the newer configuration by itself
        elif self.leading:
            self._from_peer(config, sender, message)
        elif sender == config.primary and not self._promoting():
            self._from_primary(config, message)

    def synced(self, number: int, now: float) -> None:
        """The first `number` writes, in the order they were given out, are durable."""
        self.now = now
        self._settle(number)
        self._advance()

    def tick(self, now: float) -> None:
        """Time passed: beacons, what was lost on the way, promotion, changes of configuration."""
        self.now = now
        stood = now - self._ticked > 2 * self.timing.beacon  # what others said meanwhile waits to be read
        if stood and now > self._patient + self.timing.grace:  # not again and again, where it is always so
            self._patient = now + 2 * self.timing.beacon
        self._ticked = now
        if self.document is None or self._alarm or self.me in self.document.plan.gone:
            return  # declared lost though it lives: it neither leads nor follows (M1)
        config, plan = self.document.config, self.document.plan
        is_old = now > self._seen + self.timing.spare  # the configuration: who led before it has long given up on us
        if self.leading:
            self._tend(config, plan)
        elif config.primary == self.me:  # we were before a restart: a new epoch first (R10)
            if self._may_lead():
                self._propose(replace(config, epoch=config.epoch + 1))
        elif self.me in config.in_sync:
            if now >= max(self._heard + self.timing.grace, self._patient) and self._may_lead():
                self._propose(self._without(config, plan, {config.primary}, self.me))
        elif self.me in config.eligible and set(config.in_sync) <= set(plan.gone) and self._may_lead():
            others = tuple(one for one in config.eligible if one != self.me)
            self._propose(replace(config, epoch=config.epoch + 1, primary=self.me, in_sync=(self.me,), eligible=others))
        elif self.me in may_join(config, plan, ()) and not self._leaving:
            if self.me not in plan.replicas and (self.cramped or not is_old):
                return  # those who are planned may be back soon
            if self._next_part and (self._synced < self._written or now - self._filled < 10 * self.timing.resend):
                pass  # it comes, or our disk is at it
            elif self._exact_in != config.epoch:
                have = self.state.commit if self.state.joining is None else None
                self.messages.append((config.primary, messages.Join(config.epoch, have)))
            else:  # said before, but that may have been lost
                self._say(config.primary, messages.Durable(config.epoch, self.last, self._attempt))
        elif is_old and self.last and not self._attempt and outlived(config, plan, self.me):
            self._clear(at_once=False)  # nobody thinks any more that we join

    def _commit(self, upto: int) -> None:
        entries = tuple(entry for entry in self.state.log if entry.sequence <= upto)
        self._write(messages.Commit(entries))
        bases = [peer.base for peer in self._peers.values() if peer.base is not None]
        self._kept.add(entries, min(bases, default=self.state.commit))

    # -- configuration

    def _propose(self, config: Config) -> None:
        """Ask for a configuration; nothing else is asked for until the outcome is known (R4)."""
        if self.swap is None:
            self.swap = Swap(config, self.revision, self.now)

    def _promoting(self) -> bool:
        """Whether our own promotion may have happened: no promise, no entry, no read until we know (R5)."""
        return self.swap is not None and not self.leading

    def _handing_over(self) -> bool:
        return self.swap is not None and self.swap.config.primary != self.me

    def _without(self, config: Config, plan: Plan, lost: set[str], primary: str) -> Config:
        lacking = {name for name, peer in self._peers.items() if peer.lacks}
        return without(config, plan, lost, primary, lacking)

    def _counts(self) -> bool:
        """Whether the map takes us for a replica that lacks nothing."""
        return self.document is not None and self.me in (*self.document.config.in_sync, *self.document.config.eligible)

    def _may_lead(self) -> bool:
        """Whether we have what the map thinks that we have (R8, M4)."""
        return self.state.joining is None

    def _needed(self) -> set[str]:
        """The replicas whose word counts: while a swap's outcome is unknown, those of both configurations (R4)."""
        needed = set(self.document.config.in_sync) if self.document else set()
        if self.swap is not None:
            needed |= set(self.swap.config.in_sync)
        return needed - {self.me}

    def _enough(self) -> bool:
        """Whether an entry on all in-sync replicas is on as many copies as a commit needs (R2)."""
        return self.document is not None and len(self.document.config.in_sync) >= self.document.plan.minimum

    def _lead(self, config: Config, swap: Swap, previous: Document | None) -> None:
        """The configuration that our swap asked for is in force: begin the epoch as its primary.

        One that led before made the swap itself: nobody else asks for a primary that leads. No other can promote itself
        before it has seen the epoch and waited a grace: so all leases begin with the swap. What one that did not lead
        asked for may be what the primary before it made when it handed over, long ago: leases begin with promises."""
        stayed = self.leading and previous is not None
        peers = {}
        for name in config.in_sync:
            if name != self.me:
                old = self._peers.get(name) if stayed else None
                peers[name] = peer = Peer(self.now, swap.sent if stayed else NEVER, old.acked if old else None)
                peer.heard = old is not None and old.heard
                if old is not None and name in previous.config.in_sync:  # type: ignore[union-attr]
                    peer.since, peer.promised = old.since, max(old.promised, swap.sent)
        self._peers = peers
        if not stayed:
            self.leading, self.began = True, config.epoch
            self._settled = self.last
        for name, peer in peers.items():
            self._send_exact(name, peer)
        self._advance()

    # -- the primary

    def _tend(self, config: Config, plan: Plan) -> None:
        for name, peer in list(self._peers.items()):
            if (due := self.now // self.timing.beacon * self.timing.beacon) > peer.beaconed:  # in one frame for all
                peer.beaconed = due
                self._say(name, messages.Beacon(config.epoch, self.now))
            quiet, acked = self.now - peer.sent, peer.acked or 0
            if quiet >= self.timing.resend and peer.progress is PROBE:
                self._send_exact(name, peer)
            elif quiet >= self.timing.resend and acked < self.last:
                peer.next = acked + 1
                self._send_entries(name, peer)
            elif quiet >= self.timing.tell and peer.told < self.state.commit:
                self._send_entries(name, peer)
        if self.swap is None:
            self._change(config, plan)

    def _change(self, config: Config, plan: Plan) -> None:
        """The change of configuration that is due, if any."""
        others = {name: self._peers[name] for name in self._needed()}
        sure = self._settled is None or self._shown
        limit = self.now - self.timing.lease if self.now >= self._patient else NEVER
        lost = removable(config, plan, others, limit, settled=sure)
        ready = [name for name, peer in self._peers.items() if name not in config.in_sync and self._caught_up(peer)]
        if lost or any(self._peers[one].lacks for one in config.eligible if one in self._peers):
            self._propose(self._without(config, plan, lost, self.me))
        elif ready:
            self._propose(grown(config, plan, ready[0]))
        elif self._settled is None and (leaving := surplus(config, plan, self.me)) is not None:
            self._propose(self._without(config, plan, {leaving[0]}, leaving[1]))

    def _caught_up(self, peer: Peer) -> bool:
        """Whether a joining replica has all that is committed, which a new primary may not know yet to be (R7)."""
        committed = max(self.state.commit, self._settled or 0)
        alive = peer.promised > self.now - self.timing.lease
        return alive and peer.durable is not None and peer.durable >= committed

    def _from_peer(self, config: Config, sender: str, message: messages.AnyMessage) -> None:
        if isinstance(message, messages.Join):
            self._joins(config, sender, message.have)
            return
        peer = self._peers.get(sender)
        if peer is None:
            if isinstance(message, messages.Durable):
                self.messages.append((sender, messages.Again(config.epoch, self.last)))
            return
        match message:
            case messages.Leave():
                peer.leaving = True
            case messages.Promise(_, sent_s):
                peer.promised = max(peer.promised, sent_s)
            case messages.Durable(_, sequence, attempt) if attempt == peer.attempt:
                peer.heard = True
                peer.acked = max(peer.acked or 0, sequence)
                peer.next = max(peer.next, peer.acked + 1)
                peer.progress = REPLICATE
                self._advance()
            case messages.Durable(_, _, attempt) if attempt < peer.attempt:  # it waits for what was lost on its way
                self.messages.append((sender, messages.Again(config.epoch, self.last, peer.attempt)))
            case messages.Again(_, last, attempt, lost) if attempt == peer.attempt and (
                lost or peer.progress is REPLICATE  # else it does not know yet what it is asked for, again and again
            ):
                peer.heard = True
                if lost:
                    peer.lacks = True
                elif last < self.state.commit and sender in config.in_sync:  # it lost what it had said to be durable
                    peer.promised = peer.since = NEVER
                elif peer.base is None:  # else it is on its way, and sent again in time
                    peer.progress = PROBE
                    self._send_exact(sender, peer)
            case messages.Fault(_, commit):
                self._alarm = behind(sender, commit, self.last)
                left = tuple(one for one in config.in_sync if one != self.me)
                self._propose(replace(config, epoch=config.epoch + 1, primary=sender, in_sync=left, eligible=()))

    def _joins(self, config: Config, sender: str, have: int | None) -> None:
        """A replica wants to be in sync: by the log where we have all that it lacks, else by a snapshot (R8)."""
        busy = [name for name, peer in self._peers.items() if self.now - peer.since < 10 * self.timing.resend]
        if self.document is None or sender not in may_join(config, self.document.plan, busy):
            return
        if sender in (*config.in_sync, *busy, *self._needed()):
            return  # it counts already: nothing of its log may be cut until the swap's outcome is known (R4)
        if have is not None and have > self.last:  # what would fill it is older than what it has (M4)
            self._alarm = behind(sender, have, self.last)
            return
        self._attempts += 1
        self._peers[sender] = peer = Peer(self.now, attempt=self._attempts)
        if sender in config.eligible:
            self._send_exact(sender, peer)
        elif have is not None and self._have_after(have):
            peer.have = have
            self._send_exact(sender, peer)
        else:
            peer.base, peer.progress, peer.sent = self.state.commit, Progress.SNAPSHOT, self.now
            self.snapshots.append((sender, peer.attempt))

    def sending(self, name: str, attempt: int, now: float, *, begins: bool = False) -> bool:
        """A snapshot is on its way to who joins, or `begins` now: it need not ask for another. False: it has asked."""
        peer = self._peers.get(name)
        if peer is None or peer.attempt != attempt:
            return False
        peer.since, peer.base = now, self.state.commit if begins else peer.base
        return True

    def _have_after(self, sequence: int) -> bool:
        """Whether every entry after a sequence is at hand: what a replica with all up to there is to be told."""
        return self._kept.begins(self.state.commit) <= sequence <= self.last

    def _send_exact(self, name: str, peer: Peer) -> None:
        """All that is not committed, or that a joining replica lacks: the other's log is to be exactly ours (R7)."""
        after = self.state.commit if peer.have is None else peer.have
        if peer.base is not None:
            return
        if not self._have_after(after) and name not in self._needed():
            del self._peers[name]  # too much was committed meanwhile: it joins anew
            return
        after = after if self._have_after(after) else self.state.commit
        peer.sent, peer.next, peer.told = self.now, self.last + 1, self.state.commit
        log = tuple(one for one in (*self._kept.entries, *self.state.log) if one.sequence > after)
        state = self.state
        self.messages.append((name, messages.Append(state.epoch, after, log, state.commit, True, peer.attempt)))

    def _send_entries(self, name: str, peer: Peer) -> None:
        """What comes next for another replica, pipelined: without waiting for what went before."""
        if peer.progress is not REPLICATE:
            return
        entries = self._kept.then(self.state.log, peer.next)
        if entries and entries[0].sequence != peer.next:
            del self._peers[name]  # what it needs is no longer kept: it joins anew
            return
        after, peer.sent, peer.told = peer.next - 1, self.now, self.state.commit
        peer.next += len(entries)
        self.messages.append((name, messages.Append(self.state.epoch, after, entries, peer.told, False, peer.attempt)))

    def _advance(self) -> None:
        """Commit what is durable on every replica that counts (R2)."""
        if not self.leading:
            return
        acked = [self._peers[one].durable for one in self._needed()]
        if self._enough():
            if None in acked:
                return
            upto = min([self._own, *(one for one in acked if one is not None)])
            if upto > self.state.commit:
                self._commit(upto)
        if self._settled is not None and self.state.commit >= self._settled:
            self._settled, self._shown = None, True  # with too few too, if all was committed: reads go on (R9)

    # -- the others

    def _from_primary(self, config: Config, message: messages.AnyMessage) -> None:
        match message:
            case messages.Beacon(epoch, sent_s):
                self._heard = self.now
                self._say(config.primary, messages.Promise(epoch, sent_s))
                if self.me in config.in_sync and self._exact_in != epoch:  # as since a start: what we have may be lost
                    self._say(config.primary, messages.Again(epoch, self.last))
            case messages.Again(_, _, attempt) if self.me not in config.in_sync and attempt != self._attempt:
                self._exact_in = 0  # the primary kept no entries for us: join anew
            case messages.Append() if message.attempt >= self._attempt and not self._next_part:
                if self.state.joining in (None, config.epoch, LOST):
                    self._append(config, message)
            case messages.SnapshotPart() if message.attempt >= self._attempt and not self._counts():
                if (self._exact_in, self._attempt) == (config.epoch, message.attempt) or self._fill(message):
                    self._say(config.primary, messages.Durable(config.epoch, self.last, self._attempt))

    def _fill(self, part: messages.SnapshotPart) -> bool:
        """Take the next part of a snapshot; whether it was the last. Until all are in we are LOST, whatever the map may
        come to say (R8, M4)."""
        if part.number == 0 and (part.attempt > self._attempt or not self._next_part):
            self._exact_in, self._attempt, self._told_lost = 0, part.attempt, False
            self._kept.clear()
            self._clear(at_once=True)
        elif (part.attempt, part.number) != (self._attempt, self._next_part) or part.number == 0:
            return False  # one that lacks a part is asked for again
        self._next_part, self._filled = part.number + 1, self.now
        self._write(messages.Fill(part.rows))
        if part.last:
            self._exact_in, self._next_part, self._own = part.epoch, 0, part.sequence
            self._write(messages.Install(part.epoch, part.sequence))
        return part.last

    def _append(self, config: Config, message: messages.Append) -> None:
        now = (config.epoch, message.attempt)
        if message.exact and now != (self._exact_in, self._attempt):
            if not self._be_exactly(config, message):
                return
            self._exact_in, self._attempt, self._shown = *now, True
            if self.state.joining == LOST:  # we have all that this primary has, so we lack nothing
                self._told_lost = False
                self._write(messages.MarkJoining(None))
        elif now != (self._exact_in, self._attempt):
            self._say(config.primary, messages.Again(config.epoch, self.last, message.attempt))
            return
        for entry in message.entries:
            if entry.sequence == self.last + 1:
                self._keep(entry)
        commit = min(message.commit, self.last)
        if commit > self.state.commit:
            self._commit(commit)
        self._say(config.primary, messages.Durable(config.epoch, self.last, self._attempt))

    def _be_exactly(self, config: Config, message: messages.Append) -> bool:
        """Make our log a beginning of the primary's. False where one of us lost what it must not lack (R7)."""
        if message.after > self.last:
            if self._counts() and self.state.joining is None:
                self._write(messages.MarkJoining(LOST))
            self._told_lost, self._shown = self._counts(), False
            self._say(config.primary, messages.Again(config.epoch, self.last, message.attempt, self._told_lost))
            return False
        end = message.after + len(message.entries)
        if end < self.state.commit:
            self._say(config.primary, messages.Fault(config.epoch, self.state.commit))
            return False
        ours = {entry.sequence: entry.epoch for entry in self.state.log}
        for entry in message.entries:
            if ours.get(entry.sequence, entry.epoch) != entry.epoch:
                self._cut(entry.sequence - 1)
                break
        if self.last > end:
            self._cut(end)
        return True
