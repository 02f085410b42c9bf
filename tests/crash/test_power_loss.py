"""Loss of power, by replaying the system calls of a real server: what was acknowledged is there each time.

Everything counts, LevelDB's log, tables and manifest too, which no file layer of ours sees.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from crash.history import History, recover
from crash.syscalls import CALLS, Call, Recording, parse, path_of
from inprocess import get, opened, put
from process import ServerProcess, make_client, needs_strace, wait_until
from s4.s3.errors import S3Error
from tiers import amount


class Told:
    """When each operation began and was acknowledged."""

    def __init__(self) -> None:
        self.operations: list[tuple[float, float, bytes, bytes | None]] = []

    def do(self, key: str, value: bytes | None, work: Any) -> None:
        began = time.time()
        work()
        self.operations.append((began, time.time(), key.encode(), value))

    def at(self, moment: float) -> History:
        """What was known and under way at a moment."""
        history = History()
        for began, ended, key, value in self.operations:
            if ended < moment:
                history.known[key] = value
            elif began < moment:
                history.maybe[key] = value
        return history


def work(s3: Any, told: Told) -> None:
    chosen = random.Random(3)
    same = chosen.randbytes(20_000)
    for number in range(24):
        key, body = f"k{number % 9}", chosen.randbytes(chosen.choice([200, 5_000, 30_000]))
        if number % 5 == 4:
            told.do(key, None, lambda: s3.delete_object(Bucket="crash", Key=key))  # noqa: B023 - called at once
            continue
        if number % 6 == 3:
            body = same
        told.do(key, body, lambda: s3.put_object(Bucket="crash", Key=key, Body=body))  # noqa: B023
    for _ in range(2):  # written past the page cache
        body = chosen.randbytes(700_000)
        told.do("large", body, lambda: s3.put_object(Bucket="crash", Key="large", Body=body))  # noqa: B023
    upload = s3.create_multipart_upload(Bucket="crash", Key="parts")["UploadId"]
    part = s3.upload_part(Bucket="crash", Key="parts", UploadId=upload, PartNumber=1, Body=same)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    told.do(
        "parts",
        same,
        lambda: s3.complete_multipart_upload(Bucket="crash", Key="parts", UploadId=upload, MultipartUpload=parts),
    )


def recorded(directory: Path, *options: str, drives: int = 1, then: Any = None) -> tuple[Recording, Told, float]:
    """What a server of its own did: its calls, what a client was told, and when it was ready for that. `then` is called
    with the file of the calls before the server is killed."""
    root, log = directory / "data", directory / "calls"
    root.mkdir()
    sizes = "--reserve", "64MiB", "--volume-size", "200KiB", "--preallocate", "64KiB", "--small", "8KiB"
    server = ServerProcess(root, *sizes, *options, drives=drives)
    server.wrapper = [
        "strace",
        "-f",
        "-ttt",
        "-y",
        "-xx",
        "-s",
        "4000000",
        "-o",
        str(log),
        "-e",
        f"trace={CALLS}",
        "--seccomp-bpf",
    ]
    server.start()
    told = Told()
    try:
        s3 = make_client(server.endpoint)
        s3.create_bucket(Bucket="crash")
        ready = time.time()
        work(s3, told)
        s3.close()
        if then is not None:
            then(log)
    finally:
        subprocess.run(["pkill", "-KILL", "-P", str(server.process.pid)], check=True)  # strace's child, our server
        server._wait()
    return Recording(parse(log), root), told, ready


@needs_strace
@pytest.mark.parametrize(("drives", "most"), [(1, amount("S4_CUTS", 20, 160)), (6, amount("S4_CUTS", 20, 160) // 2)])
def test_power_may_fail_at_any_system_call(tmp_path: Path, drives: int, most: int) -> None:
    recording, told, ready = recorded(tmp_path, drives=drives)
    assert any("O_DIRECT" in call.arguments for call in recording.calls)
    after = next(number for number, call in enumerate(recording.calls) if call.began > ready)
    chosen = random.Random(drives)
    for upto in [
        *recording.points(0, most // 5, chosen),
        *recording.points(after, most, chosen),
    ]:  # the first start, too
        for mode in ("kept", "lost", "torn"):
            target = tmp_path / "after"
            recording.replay(target, upto, mode, random.Random(upto))
            call = recording.calls[upto]
            try:
                asyncio.run(
                    recover(
                        [target / f"d{number}" for number in range(1, drives + 1)] if drives > 1 else [target],
                        told.at(call.began),
                    )
                )
            except BaseException as error:
                raise AssertionError(
                    f"{mode}, before call {upto} of {len(recording.calls)}, {call.name}: {error}"
                ) from error
            shutil.rmtree(target)


def log_syncs(calls: list[Call]) -> list[Call]:
    """The syncs of the metadata's log."""
    return [call for call in calls if call.name == "fdatasync" and re.search(rb"/meta/\d+\.log", path_of(call))]


@needs_strace
@pytest.mark.parametrize("durability", ["interval", "none"])
def test_power_may_fail_between_two_syncs(tmp_path: Path, durability: str) -> None:
    """With `interval` what was told before the last sync began is there, and one comes though nobody asks for anything
    any more. With `none`, as with what no sync covered, objects may be missing; but the server starts."""
    told_at = list[float]()

    def then(log: Path) -> None:
        told_at.append(time.time())
        if durability == "interval":
            wait_until(lambda: any(one.began > told_at[0] for one in log_syncs(parse(log))), "what was told is synced")

    recording, told, ready = recorded(tmp_path, "--durability", durability, then=then)
    after = next(number for number, call in enumerate(recording.calls) if call.began > ready)
    at_once = [recording.calls.index(one) + 1 for one in log_syncs(recording.calls) if one.began > ready]
    for upto in [*recording.points(after, amount("S4_CUTS", 20, 160), random.Random(1)), *at_once]:
        done = [call.began for call in log_syncs(recording.calls[:upto])]
        sure, unsure = told.at(done[-1] if done else 0.0), told.at(recording.calls[upto].began)
        for mode in ("kept", "lost", "torn"):
            target = tmp_path / "after"
            recording.replay(target, upto, mode, random.Random(upto))
            known = {key: value for key, value in sure.known.items() if unsure.known.get(key) is value}
            known = {key: value for key, value in known.items() if key not in unsure.maybe}
            asyncio.run(starts(target, known))
            shutil.rmtree(target)


async def starts(directory: Path, known: dict[bytes, bytes | None]) -> None:
    async with opened([directory]) as (_, gateway):
        for key, value in known.items():
            if value is None:
                with pytest.raises(S3Error, match="NoSuchKey"):
                    await get(gateway, "crash", key)
            else:
                assert await get(gateway, "crash", key) == value, key
        if known:  # its bucket is there
            await put(gateway, "crash", b"new", b"after" * 2000)
            assert await get(gateway, "crash", b"new") == b"after" * 2000
