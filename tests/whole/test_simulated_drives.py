"""The simulated server does about its drives what the real one does: what it becomes after a failure knows what failed,
and takes a drive in that is well again. It is asked in a process of its own, for the operating system is replaced in
it."""

from __future__ import annotations

import json

from whole.test_whole import run

CODE = """
import errno, json, shutil, sys, tempfile
from pathlib import Path
from whole import run
run.prepare()
from whole.server import ServerWorld
from whole.threads import DeadError
from whole.world import LostError

world = ServerWorld(5, Path(tempfile.mkdtemp(prefix="s4-whole-")), drives=3)
said = {}

def away():
    opened = world.server.opened
    return [drive.reason for drive in opened.drives.all if drive.shards is None] if opened is not None else ["it is down"]

try:
    world.begin()
    exec(sys.argv[1])
finally:
    shutil.rmtree(world.root)
print(json.dumps(said))
"""
FAILS_AT_A_START = """
world.nodes[0].disk.failing = {"database": errno.EIO, "sync": errno.EIO}
world.server.kill()
said["up"] = world.wait(30.0, lambda: world.server.up)
said["away"] = away()
world.nodes[0].disk.failing.clear()
said["whole"] = world.wait(60.0, lambda: world.whole() == "")
"""
FAILS_TWICE = """
for number in (1, 2):
    process, store = world.server.process, world.server.opened.drives.stores[0]
    for told in range(2):  # its index and its volume fail in the same moment
        try:
            world.loop.ask(process, lambda: store._fatal(OSError("EIO")))
        except DeadError:
            pass
    world.wait(30.0, lambda: world.server.up and world.server.process is not process)
    said[f"away after {number}"] = away()
    said[f"whole after {number}"] = world.wait(30.0, lambda: world.whole() == "")
world.settle()
said["whole"] = world.wait(60.0, lambda: world.whole() == "")
"""
DIES_OF_A_QUESTION = """
async def work(gateway):
    world.server._fatal(world.server.process, OSError("EIO"))

async def asks():
    try:
        await world.call(world.server, work)
    except LostError as error:
        said["told"] = str(error)

asked = world.admin.spawn(asks())
world.wait(5.0, asked.done)
"""


def said(code: str) -> dict[str, object]:
    done = run("-c", CODE, code)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_drive_that_failed_at_a_start_is_taken_in_by_itself() -> None:
    """Seed 199."""
    found = said(FAILS_AT_A_START)
    assert found["up"]
    assert found["away"] == ["[Errno 5] Input/output error"]
    assert found["whole"]


def test_a_drive_is_left_out_when_it_failed_twice_and_not_when_two_tell_of_it() -> None:
    """Seed 181."""
    found = said(FAILS_TWICE)
    assert found["away after 1"] == []
    assert found["whole after 1"]
    assert len(found["away after 2"]) == 1  # type: ignore[arg-type]
    assert not found["whole after 2"]
    assert found["whole"]


def test_who_is_asked_and_dies_of_it_tells_nothing() -> None:
    """Seed 423: a read met damage that ended the process which read."""
    assert said(DIES_OF_A_QUESTION) == {"told": "server died"}
