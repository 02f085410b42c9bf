"""The admin endpoint of a server that keeps everything by itself: its drives, and work on them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from s4 import __version__
from s4.http.admin import AdminApi, AdminContext, Lines, Route, as_json, compacted
from s4.node.base import Node
from s4.upkeep import orphans
from s4.upkeep.compaction import Compactor
from s4.upkeep.drives import drives_status, server_health, storable_bytes
from s4.upkeep.growing import Growing
from s4.upkeep.heal import Healer
from s4.upkeep.returning import Returning
from s4.upkeep.scrub import Scrubber, progress
from s4.upkeep.verify import verify


class _Drive(msgspec.Struct, forbid_unknown_fields=True):
    """One drive to retry or replace; those to add, drain or remove."""

    drive: str = ""
    drives: list[str] = []


class ServerAdmin(AdminApi):
    """Handlers for `s4 server`."""

    LACKING = "This is `s4 server`, which is no cluster: `s4 admin drives` shows what it keeps its data on."

    def __init__(
        self,
        context: AdminContext,
        node: Node,
        healer: Healer,
        scrubber: Scrubber,
        compactor: Compactor,
        returning: Returning,
        growing: Growing,
    ) -> None:
        super().__init__(context)
        self._returning, self._growing = returning, growing
        self._local, self._healer, self._scrubber, self._compactor = node, healer, scrubber, compactor

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            ("GET", "/admin/v1/status", self._status),
            ("POST", "/admin/v1/drives/{action}", self._care_for_drive),
            ("POST", "/admin/v1/compact", self._compact),
            ("POST", "/admin/v1/verify", self._verify),
            ("POST", "/admin/v1/scrub", self._scrub),
            ("POST", "/admin/v1/audit", self._audit),
        ]

    async def _status(self, _: web.Request) -> web.Response:
        node, drives, healer = self._local, self._local.drives, self._healer
        space = [store.space() for store in drives.stores]
        use = [volume for store in drives.stores for volume in store.usage().values()]
        data, parity = node.membership.geometry
        storable, storable_rows = storable_bytes(node)
        found = server_health(node, healer, self._context.alarms())
        return as_json(
            {
                "version": __version__,
                "ready": self._context.ready() or "ready",
                "health": found.level,
                "reasons": found.reasons,
                "storable_bytes": storable,
                "storable_rows_bytes": storable_rows,
                **await node.stats(),
                "disk_free_bytes": min(free for free, _ in space),
                "disk_total_bytes": min(total for _, total in space),
                "disk_reserve_bytes": drives.stores[0].settings.reserve_bytes,
                "accepts_writes": drives.has_room(),
                "volumes": len(use),
                "volume_bytes": sum(volume.used for volume in use),
                "garbage_bytes": sum(volume.dead for volume in use),
                "freeing_blobs": node.outbox_waiting,
                "damaged_reads": sum(store.damaged for store in drives.stores),
                "erasure": f"{data}+{parity}",
                "drives": drives_status(node, healer),
                "metadata_copies": len(node.membership.current.status[0].in_sync),
                "metadata_copies_wanted": node.membership.current.spec.replicas,
                "heal_waiting": healer.waiting,
                "heal_failed": healer.repair.failed,
                "healed_shards": healer.repair.made_shards,
                "scrub": dict(progress(self._scrubber.place, node.partitions)),
                "partitions": node.partitions,
                "epoch": node.host.epochs[0],
                "settings": self._context.settings,
            }
        )

    async def _care_for_drive(self, request: web.Request) -> web.Response:
        body, action = msgspec.json.decode(await request.read(), type=_Drive), request.match_info["action"]
        one = {"retry": self._returning.retry, "replace": self._returning.replace}.get(action)
        if one is not None and body.drive:
            return as_json({"drive": body.drive, "done": one(body.drive)})
        several = {"add": self._growing.add, "drain": self._growing.drain, "remove": self._growing.remove}.get(action)
        if several is None or not body.drives:
            raise ValueError("a drive is retried or replaced, and drives are added, drained or removed: name them")
        return as_json({"drives": body.drives, "done": await several(body.drives)})

    async def _compact(self, request: web.Request) -> web.StreamResponse:
        return await compacted(request, self._compactor, self._local.reap)

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        read, deep = request.query.get("read") == "1", request.query.get("deep") == "1"
        steps = Lines(request)
        await steps.start()
        last: dict[str, Any] = {}
        with self._gateway.readers.reading():
            async for report in verify(self._local, read=read, deep=deep):
                last = {"done": report.blobs, "total": report.total_blobs, **asdict(report)}
                await steps.send({name: value for name, value in last.items() if name != "problems"})
        return await steps.end(last)

    async def _scrub(self, request: web.Request) -> web.StreamResponse:
        steps = Lines(request)
        await steps.start()
        scrubber = self._scrubber
        total = self._local.counters().blobs
        run = asyncio.create_task(scrubber.run(deep=request.query.get("deep") == "1", bytes_per_s=0, anew=True))
        while not run.done():
            await steps.send({"done": scrubber.place.blobs, "total": total, "damaged": scrubber.place.damaged})
            await asyncio.wait([run], timeout=0.2)
        place = run.result()
        return await steps.end(
            {"done": place.blobs, "total": place.blobs, **dict(progress(place, self._local.partitions))}
        )

    async def _audit(self, request: web.Request) -> web.Response:
        age_s = float(request.query.get("age_s", "86400"))
        return as_json(asdict(await orphans.audit(self._local, self._local, age_s=age_s)))
