"""Rename of a prefix: a job that renames key by key, keeps its place, and goes on after a restart.

It is not atomic: while it runs, some keys have the new prefix and some the old, each exactly one of them at any
moment. Keys put under the old prefix while it runs are renamed if they sort behind the job's place.

A command whose answer was lost is sent again under its id, whoever works on the job by then (R12): one that comes
late, when the new name has other bytes, has no effect. So ids are made of what is asked, and of a time that the job's
row keeps. They are made anew where it is surely not done: with the next page, after a refusal, and once no store would
decide the old ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from functools import partial

import msgspec

from s4.base.clock import wall_ms
from s4.base.jobs import Job as Background
from s4.base.jobs import Jobs
from s4.gateway.context import Gateway, NotCommittedError, execute, find_bucket
from s4.gateway.copies import rename_object
from s4.metadata import commands, keys
from s4.metadata.listing import Query, Version
from s4.metadata.repeats import KEPT_MS
from s4.metadata.rows import Job
from s4.node.accounts import ROOT_USER
from s4.peer.api import ForgottenError
from s4.s3.errors import S3Error

log = logging.getLogger(__name__)

PAGE = 256
CONCURRENCY = 16
NAMED_MS = KEPT_MS + 300_000  # ids that are older than this by anybody's clock are decided by nobody


class JobGoneError(Exception):
    """A job is not in the state any more that was gone on from."""


class Renames:
    """The rename jobs of a server. Finished ones stay listed until they are forgotten."""

    def __init__(self, gateway: Gateway, jobs: Jobs) -> None:
        self._gateway, self._jobs = gateway, jobs
        self._running: dict[str, Background] = {}
        self._refused: dict[str, Counter[bytes]] = {}  # by job: how often each key of its page was surely not renamed

    async def jobs(self) -> list[tuple[str, Job]]:
        return await self._gateway.node.list_jobs()

    async def resume(self) -> None:
        """Take up what was not finished and is not under way here."""
        for name, job in await self.jobs():
            if not job.finished and name not in self._running:
                work = Background(f"rename {name}", 0.0, None, partial(self._finish, name))
                self._running[name] = work
                self._jobs.start(work)

    async def start(self, bucket: str, source: str, destination: str) -> str:
        """Begin a job; returns its id. Raises S3Error."""
        if not source or source.startswith(destination) or destination.startswith(source):
            raise S3Error(
                "InvalidArgument", "The source prefix must not be empty, and neither prefix may begin with the other."
            )
        await find_bucket(self._gateway, bucket)
        name = f"{wall_ms():x}-{self._gateway.random(4).hex()}"
        job = Job(bucket, source, destination, wall_ms(), named_ms=wall_ms())
        await execute(self._gateway, 0, commands.PutJob(name, job))
        await self.resume()
        return name

    async def forget(self, name: str) -> None:
        """Stop a job, if it still runs, and drop it from the list. What was renamed stays renamed."""
        work = self._running.pop(name, None)
        if work is not None:
            await self._jobs.stop(work)
        await execute(self._gateway, 0, commands.DeleteJob(name))

    async def close(self) -> None:
        """Stop all jobs; `resume` takes them up again, here or elsewhere."""
        running = list(self._running.values())
        self._running.clear()
        await self._jobs.stop(*running)

    async def _finish(self, name: str) -> None:
        """Go on from where the job is until it has an end. After an error it is done over, from the row that is
        kept."""
        job = dict(await self.jobs()).get(name)
        if job is not None and not job.finished:
            try:
                await self._run(name, job)
            except JobGoneError:  # `resume` takes up what is left of it
                log.info("rename of %s to %s: forgotten, or gone on with elsewhere", job.source, job.destination)
        self._running.pop(name, None)
        self._refused.pop(name, None)

    async def _run(self, name: str, job: Job) -> None:
        error = ""
        try:
            while (following := await self._patiently(name, job)) is not None:
                job = following
        except S3Error as failure:
            if failure.status >= 500:
                raise  # no refusal of this rename, but a fault, as of a copy whose metadata is damaged: tried again
            error = f"{failure.code}: {failure.message}"
            log.error("rename of %s to %s stopped: %s", job.source, job.destination, error)
        await self._keep(name, msgspec.structs.replace(job, finished=True, error=error), job)

    async def _keep(self, name: str, following: Job, before: Job) -> None:
        """Keep a job's next state. Raises JobGoneError where the one before is not what is kept: a rename that was
        forgotten does not come back, and of two who work on one only one goes on."""
        answer = await execute(self._gateway, 0, commands.PutJob(name, following, before))
        if answer == commands.Taken(False):
            raise JobGoneError

    async def _patiently(self, name: str, job: Job) -> Job | None:
        while True:
            try:
                return await self._page(name, job)
            except S3Error as error:
                if isinstance(error.__cause__, ForgottenError):  # this clock is behind, or it took long
                    job = await self._named_anew(name, job, error.__cause__.before_ms + KEPT_MS // 2)
                    continue
                if error.status not in {503, 507}:
                    raise
                await asyncio.sleep(1.0)  # overloaded, or full for now: the page is done again from its start

    async def _page(self, name: str, job: Job) -> Job | None:
        """Rename one page of keys; the job's new state, or None when nothing is left."""
        now_ms = wall_ms()
        if now_ms - job.named_ms > NAMED_MS:
            return await self._named_anew(name, job, now_ms)
        refused = self._refused.setdefault(name, Counter())
        bucket = await find_bucket(self._gateway, job.bucket)
        query = Query(job.source.encode(), b"", job.cursor, b"", PAGE)
        page = await self._gateway.node.list_objects(bucket.id, query)
        found = [item.key for item in page.items if isinstance(item, Version)]
        if not found:
            return None
        for start in range(0, len(found), CONCURRENCY):
            await asyncio.gather(*(self._one(name, job, key, refused) for key in found[start : start + CONCURRENCY]))
        following = msgspec.structs.replace(
            job, cursor=found[-1], done=job.done + len(found), named_ms=max(now_ms, job.named_ms)
        )
        await self._keep(name, following, job)
        refused.clear()
        return following

    async def _named_anew(self, name: str, job: Job, named_ms: int) -> Job:
        following = msgspec.structs.replace(job, named_ms=named_ms)
        await self._keep(name, following, job)
        return following

    async def _one(self, name: str, job: Job, key: bytes, refused: Counter[bytes]) -> None:
        target = job.destination.encode() + key[len(job.source.encode()) :]
        if len(target) > self._gateway.limits.key_bytes:
            raise S3Error("KeyTooLongError", f"{target[:80]!r}... would be longer than a key may be")

        def named(version: str, revision: int) -> bytes:
            asked = msgspec.msgpack.encode((name, key, version, revision, refused[key]))
            return keys.command_id(job.named_ms, hashlib.blake2b(asked, digest_size=10).digest())

        try:
            await rename_object(self._gateway, job.bucket, key, target, ROOT_USER, named=named)
        except S3Error as error:
            refused[key] += isinstance(error, NotCommittedError)
            if error.code != "NoSuchKey":  # deleted meanwhile
                raise
