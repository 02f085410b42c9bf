"""The admin endpoint of a node or a gateway: the cluster's state from any of them, and changes of the plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict

import msgspec
from aiohttp import web

from s4 import __version__
from s4.cluster import clustermap, planner, reach
from s4.cluster.clustermap import STANDBY, ClusterMap
from s4.cluster.keeper import MapKeeper
from s4.cluster.placement import GONE
from s4.cluster.planner import PlanError
from s4.cluster.recovery import Recovery, recovery, restored
from s4.cluster.status import Said, safe_to_stop, status, uncounted
from s4.http.admin import AdminApi, AdminContext, Lines, Route, as_json, compacted
from s4.metadata.rows import summed
from s4.peer.api import CallError, Census, stats_of
from s4.peer.router import Router
from s4.upkeep.compaction import Compactor
from s4.upkeep.contents import Checked, Contents
from s4.upkeep.ownstore import OwnStore

BUCKETS_S = 2.0  # that a status waits for their number
REACH_S, REACH_LOOK_S = 10.0, 0.5  # how long stores have to find each other, for one may have just started
Plan = Callable[[ClusterMap, list[str]], ClusterMap]


class ClusterAdmin(AdminApi):
    """Handlers for `s4 node` and `s4 gateway`."""

    LACKING = "This is a gateway of a cluster, which keeps nothing: ask the admin port of a node."

    def __init__(self, context: AdminContext, router: Router, keeper: MapKeeper) -> None:
        super().__init__(context)
        self._router, self._keeper = router, keeper

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            ("GET", "/admin/v1/status", self._status),
            ("GET", "/admin/v1/cluster/safe-to-stop", self._safe_to_stop),
            ("GET", "/admin/v1/cluster/recovery", self._recovery),
            ("POST", "/admin/v1/cluster/{action}", self._change),
        ]

    async def _said(self) -> dict[str, Said | None]:
        found = await self._router.censuses()
        return {store: None if one is None else said(one) for store, one in found.items()}

    async def _numbers(self) -> dict[str, float]:
        """Without the number of buckets while nobody serves partition 0, which has them: how a cluster is that is down
        is what people ask first."""
        try:
            async with asyncio.timeout(BUCKETS_S):
                return await self._router.stats()
        except (CallError, TimeoutError):
            found = [one for one in (await self._router.censuses()).values() if one is not None]
            uptime_s, used = max((one.uptime_s for one in found), default=0.0), sum(one.used_bytes for one in found)
            return stats_of(uptime_s, 0, used, summed(one.counters for one in found))

    async def _status(self, _: web.Request) -> web.Response:
        told = await self._said()
        mine = self._context.alarms()
        found = msgspec.to_builtins(status(self._keeper.current, told, {"this gateway": mine} if mine else {}))
        return as_json(
            {
                "version": __version__,
                "ready": self._context.ready() or "ready",
                "time_s": time.time(),
                **(await self._numbers()),
                **found,
                "settings": self._context.settings,
            }
        )

    async def _safe_to_stop(self, request: web.Request) -> web.Response:
        current = await self._keeper.refresh()
        stores = [planner.find(current, name) for name in request.query.getall("store", [])]
        told = await self._said()
        reasons = safe_to_stop(current, told, stores) + uncounted(current, told)
        return as_json({"safe": not reasons, "reasons": reasons, "stores": stores})

    async def _change(self, request: web.Request) -> web.Response:
        action, raw = request.match_info["action"], await request.read()
        asked = msgspec.json.decode(raw, type=_Asked) if raw else _Asked()
        names, made = asked.stores, await self._plan(action, asked)
        await self._must_reach(made(await self._keeper.refresh(), names))
        changed = await self._keeper.change(lambda old: made(old, names))
        moves = sum(
            have != want
            for one in changed.partitions
            for have, want in zip(one.config.members, one.wanted, strict=True)
        )
        return as_json({"moves": moves, "why": _why_nothing_moves(changed, moves)})

    async def _plan(self, action: str, asked: _Asked) -> Plan:
        """What a change makes of the map. Raises PlanError."""
        if action not in (*_PLANS, *_OTHERS):
            raise PlanError(f"there is no action named {action}; known are {', '.join((*_PLANS, *_OTHERS))}")
        current = await self._keeper.refresh()
        if current.partitions and action == "recover":
            raise PlanError("nothing is lost: the map is there, and plans with stores")
        if action != "recover":
            found = await self._recovered([])
            if found.holding:
                raise PlanError(
                    f"{len(found.holding)} stores hold data of a map that was lost: `s4 admin cluster recover`"
                )
            return _PLANS[action] if action != "copies" else await self._copies(asked.copies)
        names = asked.stores
        found, deadline = await self._recovered(names), time.monotonic() + REACH_S
        while found.missing and time.monotonic() < deadline:
            await asyncio.sleep(REACH_LOOK_S)
            found = await self._recovered(names)
        if not found.map:
            raise PlanError("; ".join(found.reasons) or "no store here holds anything of a map that was lost")
        lost = clustermap.decode(found.map)
        return lambda old, _: restored(old, lost)

    async def _copies(self, copies: int) -> Plan:
        """Raises PlanError while a node is there that would take the number out of the map again."""
        said = (await self._said()).items()
        old = [store for store, one in said if one is not None and one.version.startswith(planner.BEFORE_COPIES)]
        if old:
            nodes = ", ".join(self._keeper.current.stores[store].node for store in old)
            raise PlanError(
                f"{nodes} run a version before 0.8, which knows one number of copies only: upgrade them first"
            )
        return lambda current, _: planner.copied(current, copies)

    async def _recovery(self, request: web.Request) -> web.Response:
        return as_json(msgspec.to_builtins(await self._recovered(request.query.getall("lost", []))))

    async def _recovered(self, given_up: list[str]) -> Recovery:
        """What can be made of a map that was lost, by what the stores tell that stand by."""
        current = await self._keeper.refresh()
        if current.partitions:
            return Recovery()
        told = {store: one.held if one is not None else None for store, one in (await self._router.censuses()).items()}
        return recovery(current, told, given_up)

    async def _must_reach(self, planned: ClusterMap) -> None:
        """Raises PlanError where stores that are used now, and those that are to be, do not reach each other both
        ways."""
        new = reach.newcomers(self._keeper.current, planned)
        deadline = time.monotonic() + REACH_S
        while new:
            why = reach.obstacles(self._keeper.current, await self._said(), new, self._router.unreached())
            if not why:
                return
            if time.monotonic() > deadline:
                raise PlanError(f"nothing was changed: {'; '.join(why)}")
            await asyncio.sleep(REACH_LOOK_S)


def _why_nothing_moves(changed: ClusterMap, moves: int) -> str:
    """Why a plan moves nothing, or nothing now; empty where it does."""
    if moves and changed.freeze:
        return "moves are frozen: nothing goes on before `s4 admin cluster freeze off`"
    if moves:
        return ""
    standby = len(changed.in_state(STANDBY))
    more = f"; {standby} stores stand by and hold nothing before `s4 admin cluster add`" if standby else ""
    return f"every store that serves holds its share of positions, to within one, where failure domains allow{more}"


class NodeAdmin(ClusterAdmin):
    """With what concerns one node's own store."""

    LACKING = "This is a node of a cluster: what `s4 server` does at once, each node does for its own store, by itself."

    def __init__(
        self,
        context: AdminContext,
        router: Router,
        keeper: MapKeeper,
        own: OwnStore,
        contents: Contents | None,
        compactor: Compactor,
    ) -> None:
        super().__init__(context, router, keeper)
        self._own, self._contents, self._compactor = own, contents, compactor

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            ("POST", "/admin/v1/compact", self._compact),
            ("POST", "/admin/v1/scrub", self._scrub),
            ("POST", "/admin/v1/audit", self._audit),
        ]

    async def _compact(self, request: web.Request) -> web.StreamResponse:
        return await compacted(request, self._compactor)

    async def _scrub(self, request: web.Request) -> web.StreamResponse:
        steps = Lines(request)
        await steps.start()
        place = await self._own.scrub(0, anew=True)
        if request.query.get("deep") == "1" and self._contents is not None:
            await self._contents.run(self._contents.led(), 0, anew=True)
        checked = self._contents.checked if self._contents is not None else Checked()
        return await steps.end(
            {
                **msgspec.structs.asdict(place),
                "blobs": place.shards,
                "unhealable": list(checked.wrong),
                "contents": {"blobs": checked.blobs, "bytes_read": checked.bytes_read, "ended_s": checked.ended_s},
            }
        )

    async def _audit(self, request: web.Request) -> web.Response:
        return as_json(asdict(await self._own.audit(float(request.query.get("age_s", "86400")))))


def said(one: Census) -> Said:
    return Said(
        one.led,
        one.heals,
        one.outbox,
        one.version,
        one.free_bytes,
        one.total_bytes,
        one.used_bytes,
        one.filled,
        one.alarms,
        one.reserve_bytes,
        one.unreached,
        one.heals_of,
    )


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    stores: list[str] = []
    copies: int = 0


def _add(old: ClusterMap, names: list[str]) -> ClusterMap:
    stores = [planner.find(old, name) for name in names] or old.in_state(STANDBY)
    if not stores and not old.partitions:
        raise PlanError("no store stands by; start `s4 node` on each machine first")
    return planner.added(old, stores)


def _replace(old: ClusterMap, names: list[str]) -> ClusterMap:
    """By two stores, the lost one first, or by the name of a node whose disk is a new one."""
    if len(names) == 2:
        lost, instead = names
        found = [store for store in old.stores if store.startswith(lost) or old.stores[store].node == lost]
        lost = next((store for store in found if old.stores[store].state != STANDBY), planner.find(old, lost))
        return planner.swapped(old, lost, planner.find(old, instead))
    if len(names) != 1:
        raise PlanError(
            "name the store that is lost and the one that takes its place, or a node whose disk was replaced"
        )
    here = [store for store, one in old.stores.items() if one.node == names[0] or store.startswith(names[0])]
    new = [store for store in here if old.stores[store].state == STANDBY]
    lost_ones = [store for store in here if old.stores[store].state not in (STANDBY, GONE)]
    if not lost_ones and any(old.stores[store].state == GONE for store in here):
        return old  # done before
    if len(new) != 1 or len(lost_ones) != 1:
        raise PlanError(
            f"node {names[0]} has {len(lost_ones)} stores in use and {len(new)} standing by; one of each is needed"
        )
    return planner.swapped(old, lost_ones[0], new[0])


def _found(old: ClusterMap, names: list[str]) -> list[str]:
    if not names:
        raise PlanError("name at least one store or node")
    return [planner.find(old, name) for name in names]


_OTHERS = ("copies", "recover")
_PLANS: dict[str, Plan] = {
    "add": _add,
    "drain": lambda old, names: planner.drained(old, _found(old, names)),
    "remove": lambda old, names: planner.gone(old, _found(old, names)),
    "replace": _replace,
    "rebalance": lambda old, _: planner.rebalanced(old),
    "freeze": lambda old, _: planner.frozen(old, True),
    "unfreeze": lambda old, _: planner.frozen(old, False),
}
