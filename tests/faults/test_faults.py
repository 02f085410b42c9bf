"""Real processes that are killed, stopped, cut off and whose disks fail to be read, one after the other, under a load
that knows what must be there. `make soak` strikes twenty times by each kind of fault; S4_STRIKES says how often.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cluster.etcd_process import need_etcd
from cluster.test_histories import Clients
from faults import network
from faults.load import Load
from faults.worlds import CALLS, FAULTS, Drives, Nodes, World
from process import wait_until
from tiers import SOAK, amount

STRIKES = amount("S4_STRIKES", 1, 20)


def strike(world: World, fault: str, strikes: int) -> str:
    """Under a load, so often; all must be whole again after each, and is read back. What was done, for people."""
    world.start()
    chosen, done, began = random.Random(fault), list[str](), time.monotonic()
    with Load(world.ways) as load, Clients(world.ways, threads=3) as clients:
        load.wait_for(CALLS)
        for _ in range(strikes):
            done.append(getattr(world, fault)(chosen, load))
            answered = clients.answered()
            load.wait_for(CALLS)
            wait_until(
                lambda answered=answered: clients.answered() > answered + 10, f"calls are answered after {done[-1]}"
            )
            clients.round += 1
            world.whole()
            load.read_back(newest=100)
            print(f"{time.monotonic() - began:.0f} s: {done[-1]}; {load.done} calls", flush=True)
    count = load.read_back()
    load.listed()
    assert not load.wrong, f"after {done}: {load.wrong[:5]}"
    clients.judge(f"after {done}")
    problems = world.judged()
    assert not problems, f"after {done}: {problems[:5]}"
    return f"{strikes} strikes by {fault}: {load.done} calls of the load and {clients.answered()} in histories, {count} keys read back; failures {dict(load.failures)}"


SHORT = {
    ("six drives", "pause"),
    ("six drives", "unreadable"),
    ("six nodes", "cut"),
}  # the others are in short tests of their own


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("world", "fault"),
    [
        pytest.param(world, fault, marks=() if (world, fault) in SHORT else pytest.mark.soak, id=f"{world}-{fault}")
        for world in ("six drives", "six nodes")
        for fault in FAULTS
    ],
)
def test_nothing_acknowledged_is_lost(tmp_path: Path, world: str, fault: str) -> None:
    if fault == "unreadable" and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if world == "six drives":
        made: World = Drives(tmp_path, fault)
    else:
        need_etcd()
        if fault == "cut" and (why := network.missing()):
            pytest.skip(why)
        made = Nodes(tmp_path, fault) if SOAK else Nodes(tmp_path, fault, 4, "2+1", 4)
    try:
        print(strike(made, fault, STRIKES))
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{error}: {error.stderr}") from error
    finally:
        made.end()
