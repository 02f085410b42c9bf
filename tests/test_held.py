"""The watch of servers' loops sees a step that takes long, by the processor, and not one that only waits."""

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
