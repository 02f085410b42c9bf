"""The watch of servers' loops sees a step or a callback that takes long, by the processor, and not one that only
waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from held import WATCHING, read

PROGRAM = """
import asyncio, time, uvloop

async def innermost(): await asyncio.sleep(0)

async def holds():
    until = time.thread_time() + 0.15
    while time.thread_time() < until: pass
    await innermost()

async def waits():
    time.sleep(0.3)  # as a machine that does other things: no processor of this thread
    await asyncio.sleep(0)

async def main():
    await asyncio.gather(asyncio.create_task(holds()), waits())

uvloop.run(main())
"""


def test_what_holds_a_loop_is_noted_with_where_it_waits_next(tmp_path: Path) -> None:
    environment = {**os.environ, "HELD": str(tmp_path), "PYTHONPATH": WATCHING}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    (line,) = read(tmp_path)
    assert "holds > innermost:4" in line
    assert 150 <= int(line.split()[0]) < 290


CALLBACKS = """
import asyncio, functools, socket, time, uvloop

def hold():
    until = time.thread_time() + 0.11
    while time.thread_time() < until: pass

def by_timer(): hold()
def by_soon(_): hold()
def by_thread(): hold()
def by_socket(one, ended):
    hold()
    asyncio.get_running_loop().remove_reader(one)
    ended.set()

class Parser(asyncio.Protocol):
    def __init__(self, ended): self.ended = ended
    def data_received(self, data):
        hold()
        self.ended.set()

async def steps():
    hold()  # within the callback that takes it on: noted once, as a step
    await asyncio.sleep(0)

async def main():
    loop, ends = asyncio.get_running_loop(), [asyncio.Event() for _ in range(2)]
    loop.call_later(0.001, by_timer)
    loop.call_soon(functools.partial(by_soon, None))
    await asyncio.to_thread(loop.call_soon_threadsafe, by_thread)
    await asyncio.create_task(steps())
    for end in ends:
        ours, theirs = socket.socketpair()
        for one in (ours, theirs): one.setblocking(False)
        if end is ends[0]:
            loop.add_reader(theirs, by_socket, theirs, end)
        else:
            await loop.connect_accepted_socket(lambda: Parser(end), theirs)
        ours.send(b"x")
        await end.wait()
    await asyncio.sleep(0.01)

uvloop.run(main())
"""


def test_callbacks_are_named_that_are_no_tasks(tmp_path: Path) -> None:
    environment = {**os.environ, "HELD": str(tmp_path), "PYTHONPATH": WATCHING}
    subprocess.run([sys.executable, "-c", CALLBACKS], env=environment, check=True)
    found = {line.partition(": ")[2] for line in read(tmp_path)}
    named = {"by_timer", "by_soon", "by_thread", "by_socket", "Parser.data_received"}
    assert {line for line in found if line.startswith("callback ")} == {f"callback {name}" for name in named}
    assert [line.partition(":")[0] for line in found if not line.startswith("callback ")] == ["steps > sleep"]
