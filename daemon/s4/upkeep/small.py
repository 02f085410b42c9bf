"""When rows of a cluster may have content (metadata/small.py): whoever cannot read such a row must never be given one, in a
rolling upgrade or at any time after it.

Each step holds for good once it was reached, and none is taken before the one above it:
1. ABLE: a node has a `--small` that is not 0, and every process that is connected to it speaks version 2 of the peer
   protocol, which knows such rows. It says so in its census; 0.7 says nothing.
2. READY: every store of the map that is not gone said that it is ABLE at least; or one is READY, so that a store that
   is new may be given such rows by others, whatever this node was told. The node marks its store, durably: 0.7 does
   not open it any more (storage/directory.py). From then on it speaks with nobody who speaks version 1, as caller or as
   called, after a restart too. So a program of 0.7, wherever it starts, is told nothing and given no rows; it says why.
3. A gateway makes such rows, once every store of the map has told it that it is READY. What a store said is remembered
   here, as its mark is there; a store that is new to the map closes the gate until it has said so too.

Rows go to every copy of the metadata, whatever its disk has left, and nobody may run out of room for them (D5): while any
store has less free than its reserve, content goes into shards, which a full store leaves to others. That is asked so
often that what comes meanwhile stays far below the half of a reserve that is kept for rows.

Before that has begun, while one node was told 0 or is not upgraded, content goes into shards, and the log says for whom
that waits. Afterwards each process does as it is told by itself: told 0, it makes no more such rows; those that there
are stay readable, and the marks stay."""

from __future__ import annotations

import logging
from pathlib import Path

from s4.base.clock import boot_clock
from s4.cluster.placement import GONE
from s4.gateway.context import Gateway
from s4.metadata.small import ABLE, OLDEST, READY, UNABLE, VERSION
from s4.node.member import Member
from s4.peer.router import Router
from s4.storage.directory import identity_of, keeps_out, note_opened

log = logging.getLogger(__name__)

LOOK_S = 2.0
ROOM_S = 20.0  # between two looks at what the stores have left


class SmallRows:
    """Of one process: a node, or a gateway, which has no `member`. `told` is what it was told, in bytes."""

    def __init__(self, gateway: Gateway, router: Router, member: Member | None, told: int) -> None:
        self._gateway, self._router, self._member, self._told = gateway, router, member, told
        self._ready, self._full = set[str](), set[str]()
        self._asked_s = float("-inf")
        self._said = ""
        if member is not None:
            self._directory: Path = member.node.shards.directory
            self._marked = keeps_out(self._directory, OLDEST)
            member.node.small = self.state

    def state(self) -> int:
        """What this node says of itself."""
        if self._member is None or self._marked:
            return READY
        return ABLE if self._told and self._member.peers.spoken() >= VERSION else UNABLE

    async def look(self) -> None:
        stores = {store for store, one in self._router.map.stores.items() if one.state != GONE}
        if not stores or not stores <= self._ready or boot_clock() > self._asked_s + ROOM_S:
            await self._ask()
        waits = stores - self._ready or stores & self._full
        self._gateway.small_bytes = self._told if stores and not waits else 0
        said = f"waits for the stores {', '.join(sorted(one[:8] for one in waits))}" if waits else "is on"
        if self._told and said != self._said:
            self._said = said
            log.info("content of up to %d bytes in rows (--small) %s", self._told, said)

    async def _ask(self) -> None:
        self._asked_s = boot_clock()
        found = await self._router.censuses()
        told = {store: one for store, one in found.items() if one is not None}
        full = {store for store, one in told.items() if one.free_bytes <= one.reserve_bytes}
        self._full = (self._full - told.keys()) | full  # who does not answer is as it was
        said = {store: one.small if one is not None else UNABLE for store, one in found.items()}
        if self._member is not None and not self._marked and said:
            begun = READY in said.values() and self._member.peers.spoken() >= VERSION
            if begun or min(said.values()) >= ABLE:
                self._mark(self._member)
        self._ready |= {store for store, state in said.items() if state == READY}

    def _mark(self, member: Member) -> None:
        identity = identity_of(self._directory)
        if identity is not None:
            note_opened(member.node.shards.files, self._directory, identity, OLDEST)
        if not keeps_out(self._directory, OLDEST):
            log.warning("%s takes no mark that keeps older programs out: content goes into shards", self._directory)
            return
        member.only(VERSION)
        self._marked = True
