"""Faults put back, and rules of docs/protocol.md left out (rules.py), in the code that runs: what must be found.

Each is a function that changes the modules of this process, before a seed is run in it: `python -m whole.run 1 99
--broken NAME`. `LIKELY` has the kinds of faults that make a seed find it sooner, `FOUND` the seed that found each when
that was last looked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from s4.base.clock import boot_clock
from s4.base.jobs import Job, Jobs
from s4.gateway import copies
from s4.gateway.objects import Put, SourceChangedError
from s4.gateway.read import open_object
from s4.metadata import commands, decide, keys, references
from s4.metadata.commands import Refused
from s4.node import member
from s4.node import rows as node_rows
from s4.peer.api import CallError
from s4.replica import group, turn
from s4.storage import files, shards, volumes
from s4.upkeep import leader
from sim import broken as cores
from whole.rules import RULES

# -- the faults that were found by reading 0.7


def refuses_before_it_looks() -> None:
    """A repeat is refused for room though it was committed: the gateway discards what it stored for it."""
    execute = node_rows.RowNode.execute
    bring = commands.PutObject | commands.PutPart | commands.CreateUpload | commands.CreateBucket

    async def broken(self: Any, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        full = isinstance(self, member.MemberNode) and not member.has_room_for_rows(self.shards)
        if isinstance(command, bring) and full:
            return Refused("StorageFull", "full")
        return await execute(self, partition, command, command_id, again)

    node_rows.RowNode.execute = broken  # type: ignore[method-assign]


def takes_no_error_for_damage() -> None:
    """What a disk cannot read is no damaged shard."""

    def broken(self: Any, location: Any, error: Exception) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise error

    volumes.Volumes._unread = broken  # type: ignore[method-assign,assignment]


def counts_what_is_torn() -> None:
    """A record past the mark counts by its header alone."""
    volumes.Volumes._holds = lambda *_: True  # type: ignore[method-assign,assignment]


def closes_what_is_in_use() -> None:
    """A volume is closed while threads read and punch it, and unlinked without waiting for them."""

    def broken(self: Any, volume: Any) -> None:
        del self._open[volume.number]
        self.files.close(volume.fd)

    volumes.Volumes._retire = broken  # type: ignore[method-assign]
    shards.ShardStore.oldest_use = lambda _: boot_clock()  # type: ignore[method-assign]


class _Blind:
    """An entry that sees no blobs."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry

    def get(self, key: bytes) -> Any:
        return None if key[2:3] == keys.BLOB else self._entry.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


def forgets_answers_by_a_clock() -> None:
    """Answers go by the wall clock of who leads, and a repeat of what was committed is decided anew."""

    async def trim(self: Any, partition: int) -> None:
        rows = self._node.host.scan(keys.table(partition, keys.ANSWER))
        old = [key for key, _ in rows if keys.command_ms(keys.command_of(key)) < (time.time() - 900) * 1000]
        if old:
            await self._node.host.submit(partition, commands.ForgetRows(old), own=True)

    bring = references.bring
    leader.Leader._trim_one = trim  # type: ignore[method-assign]
    turn.Decider._must_be_known = lambda *_: None  # type: ignore[method-assign,assignment]
    references.bring = lambda entry, *more: bring(_Blind(entry), *more)  # type: ignore[assignment,arg-type]


def takes_short_writes() -> None:
    """A file that is replaced may have been written in part."""

    def broken(self: Any, path: Any, content: bytes, mode: int = 0o600) -> None:
        os, temporary = files.os, path.with_name(path.name + ".new")  # type: ignore[attr-defined]
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        self.sync_directory(path.parent)

    files.Files.replace = broken  # type: ignore[method-assign]


def copies_what_was_not_judged() -> None:
    """A copy opens its source again where it was replaced, and looks at nothing."""
    copy_object = copies.copy_object

    async def broken(gateway: Any, source: Any, copy: Any) -> Put:
        for _ in range(3):
            try:
                return await copy_object(gateway, source, copy)
            except SourceChangedError:
                source = await open_object(gateway, source.name, source.key, source.asked_version)
        raise SourceChangedError

    copies.copy_object = broken


def remembers_too_little() -> None:
    """Commands that were not remembered in 0.7: a late repeat of them is decided anew."""
    for kind in (
        commands.SetDocument,
        commands.PutJob,
        commands.DeleteJob,
        commands.CreateUpload,
        commands.ChangeAccounts,
        commands.ChangeObject,
    ):
        decide.COMMANDS[kind] = decide.COMMANDS[kind]._replace(twice="is not")


def ends_by_errors() -> None:
    """Background work ends by an error that nobody thought of."""
    listed = (CallError,)

    async def broken(self: Any, job: Job) -> None:
        await asyncio.sleep(job.first_s)
        while True:
            try:
                await job.run()
            except Exception as error:
                known = isinstance(error, (*listed, *job.expected))
                if job.name.startswith("rename ") or (job.name in ("old answers", "jobs of partition 0") and not known):
                    raise
                job.failures.add(job.name, error)
            else:
                job.failures.end(job.name)
                if job.every_s is None:
                    self._tasks.pop(job, None)
                    return
            await asyncio.sleep(job.pause_s())

    Jobs._work = broken  # type: ignore[method-assign]


def _core(kind: type) -> Callable[[], None]:
    """A rule of the replication core, left out as in `tests/sim/broken.py`."""

    def change() -> None:
        group.Replica = kind  # type: ignore[attr-defined]

    change.__doc__ = kind.__doc__
    return change


PART_ONE = (
    refuses_before_it_looks,
    takes_no_error_for_damage,
    counts_what_is_torn,
    closes_what_is_in_use,
    forgets_answers_by_a_clock,
    takes_short_writes,
    copies_what_was_not_judged,
    remembers_too_little,
    ends_by_errors,
)
ALL: dict[str, Callable[[], None]] = {one.__name__: one for one in (*PART_ONE, *RULES)} | {
    kind.__name__: _core(kind) for kind in cores.CORES
}

# Operations that make it likely; without them a seed has one of its profiles.
WORK: dict[str, dict[str, int]] = {
    "refuses_before_it_looks": {"put": 60, "get": 20, "create": 10, "swap": 10},
    "closes_what_is_in_use": {"put": 60, "get": 20, "delete": 20},
    "forgets_answers_by_a_clock": {"put": 60, "get": 20, "create": 10},
    "copies_what_was_not_judged": {"put": 40, "get": 20, "copy": 40},
    "remembers_too_little": {"document": 50, "tag": 25, "account": 25},
    "ends_by_errors": {"put": 20, "get": 20, "job": 20},
    "leaves_buckets_open": {"bucket": 100},
    "acknowledges_before_the_disk": {"version": 100},
    "ends_by_old_rules": {"age": 95, "leave": 5},
    "tells_nobody_of_settings": {"document": 70, "policy": 10, "put": 10, "get": 10},
    "changes_settings_under_leases": {"document": 90, "get": 10},
    "commits_under_any_settings": {"flip": 100},
    "lists_at_any_epoch": {"put": 35, "delete": 15, "listing": 50},
    "refuses_at_once": {"create": 50, "delete": 20, "get": 30},
    "goes_on_after_a_failed_sync": {"version": 100},
    "keeps_rows_under_a_snapshot": {"put": 40, "version": 10, "delete": 40, "get": 10},
    "frees_under_readers": {"put": 45, "get": 55},
    "trusts_any_clock": {"lock": 50, "age": 50},
    "counts_what_two_processes_took": {"put": 100},
    "counts_shards_where_they_were": {"put": 60, "multipart": 20, "get": 20},
    "names_references_by_what_they_hold": {"put": 70, "get": 20, "delete": 10},
    "commits_before_it_takes": {"put": 30, "get": 20, "delete": 20, "copy": 30},
    "drops_what_may_still_be_committed": {"put": 70, "multipart": 20, "get": 10},
    "takes_claims_for_content": {"put": 50, "claim": 50},
}
# How often a thread is left standing; by the seed where it is not said.
STANDING = {"closes_what_is_in_use": 0.15}

# Kinds of faults that make it likely; without them a seed has whatever it draws.
LIKELY: dict[str, tuple[str, ...]] = {
    "refuses_before_it_looks": ("full at answer",),
    "takes_no_error_for_damage": ("unreadable",),
    "closes_what_is_in_use": ("slow disk", "pause"),
    "copies_what_was_not_judged": ("slow network", "slow disk"),
    "counts_what_is_torn": ("power at write", "power"),
    "forgets_answers_by_a_clock": ("late leader",),
    "takes_short_writes": ("full", "nearly full", "crash"),
    "remembers_too_little": ("late commands",),
    "ends_by_errors": ("two away",),
    "forgets_all_commands": ("late packets", "resets"),
    "acknowledges_before_the_disk": ("all power",),
    "commits_before_the_shards": ("all power", "power", "power at write"),
    "indexes_what_is_not_there": ("all power", "power", "power at write"),
    "forgets_what_it_could_not_read": ("unreadable tail",),
    "goes_on_after_a_failed_sync": ("fail sync", "power", "all power"),
    "keeps_rows_under_a_snapshot": ("isolate", "suspend", "crash", "coordinator away"),
    "trusts_any_clock": ("wall step",),
    "lists_at_any_epoch": ("apart", "isolate"),
    "tells_nobody_of_settings": ("slow network", "pause"),
    "changes_settings_under_leases": ("settings move",),
    "leaves_buckets_open": ("slow network", "slow disk", "crash"),
    "ends_by_old_rules": ("slow network", "slow disk"),
    "commits_under_any_settings": ("slow disk", "pause", "slow network"),
    "frees_under_readers": ("slow disk", "slow network"),
    "decides_by_what_is_committed": ("slow disk", "slow network"),
    "counts_what_two_processes_took": ("power in a put",),
    "counts_shards_where_they_were": ("drain", "slow disk", "slow network"),
    "takes_any_bytes": ("rot",),
    "names_references_by_what_they_hold": ("slow network", "slow disk"),
    "commits_before_it_takes": ("slow network", "crash"),
    "drops_what_may_still_be_committed": ("early audit", "pause", "slow network"),
    "takes_claims_for_content": ("slow network",),
    "keeps_the_map_on_one_drive": ("wipe", "crash"),
    "names_stores_by_their_place": ("wipe",),
    "GoesOnWithoutTheSilent": ("isolate", "cut", "pause"),
    "GoesOnAfterARestart": ("crash at batch", "resets"),
    "refuses_at_once": ("lost alone",),
    "PassesOverALostPart": ("resets", "late packets", "isolate", "crash"),
    "LeadsWithNothing": ("no metadata", "crash"),
    "ForgetsThatItLacks": ("no metadata", "crash"),
    "RemovesWhoWasNotHeard": ("no metadata", "isolate"),
    "ClearsWhoHasMore": ("no metadata", "isolate"),
    "CountsOnWhoLacks": ("no metadata", "isolate"),
} | dict.fromkeys(
    (
        "CommitsWithTooFewCopies",
        "CommitsBeforeAllHaveIt",
        "ForgetsAnUnknownSwap",
        "CountsTheOldSetOnly",
        "ServesWithoutLease",
        "PromisesWhilePromoting",
        "PromotesAtOnce",
        "ServesBeforeAllIsCommitted",
        "LeavesOtherLogsAlone",
        "AddsBeforeItHasAll",
        "TakesAPartForAll",
        "JoinsAsItIs",
        "ForgetsWhoIsEligible",
        "TakesEntriesOfOldEpochs",
    ),
    ("isolate", "cut", "pause", "suspend", "crash", "power", "coordinator lossy", "slow network"),
)
