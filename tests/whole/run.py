"""`python -m whole.run FIRST LAST`: run seeds; a failure prints its seed and what happened, is replayed and made
shorter.

    python -m whole.run 1 200 --jobs 2        # each seed in a process of its own, two at once
    python -m whole.run 17 17 --trace         # one, with what the machine noted
    python -m whole.run 17 17 --shorten       # fewer faults that still fail
    python -m whole.run 1 99 --stop --broken NAME   # how many seeds a fault that is put back takes
    python -m whole.run 7 7 --like NAME       # what found it, with the code as it is

Hash seeds are fixed, for the order of sets of strings: the module starts itself again where they are not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

WHOLE_S, FAULTS_S = 300.0, 24.0
AUDITED_S = 12.0  # two audits of what is old enough (world.CALM_AGE_S), and `Timing.spare`


def world_of(seed: int, root: Path, keep_trace: bool) -> Any:
    """Most seeds are clusters of three nodes, some of four or six; others are servers with one, three or six drives."""
    from whole.cluster import ClusterWorld
    from whole.server import ServerWorld

    match seed % 16:
        case 3 | 11:
            return ServerWorld(seed, root, drives=1, keep_trace=keep_trace)
        case 5 | 13:
            return ServerWorld(seed, root, drives=3, keep_trace=keep_trace)
        case 7:
            return ServerWorld(seed, root, drives=6, geometry=(4, 2), keep_trace=keep_trace)
        case 9:
            return ClusterWorld(seed, root, nodes=4, keep_trace=keep_trace)
        case 15:
            return ClusterWorld(seed, root, nodes=6, data=4, parity=2, partitions=4, keep_trace=keep_trace)
    return ClusterWorld(seed, root, keep_trace=keep_trace)


def run_seed(
    seed: int,
    *,
    without: set[int] = frozenset(),
    only: tuple[str, ...] = (),
    trace: bool = False,  # type: ignore[assignment]
    keep_trace: bool = False,
    weights: dict[str, int] | None = None,
    standing: float = 0.0,
) -> dict[str, Any]:
    """One seed in this process: what was found, and figures. `weights` of operations, and how often threads are left
    `standing`, are the seed's own unless told."""
    from whole.atlas import Atlas
    from whole.faults import IN_MOVES, KINDS, ON_DRIVES, faults_of
    from whole.server import ServerWorld
    from whole.threads import StuckError
    from whole.workload import Workload

    root = Path(tempfile.mkdtemp(prefix=f"s4-whole-{seed}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    world = world_of(seed, root, keep_trace)
    work, atlas = Workload(world, weights=weights), Atlas(world)
    world.loop.preempted = standing or world.loop.preempted
    spare = len(world.nodes) > world.data + world.parity
    usual = ON_DRIVES if isinstance(world, ServerWorld) else IN_MOVES if spare else KINDS
    kinds = {kind: IN_MOVES.get(kind, 1) for kind in only} or usual
    faults = faults_of(seed, len(world.nodes), FAULTS_S, kinds)
    problems: list[str] = []
    try:
        world.begin()
        preparing = world.loop.outside.spawn(work.prepare())
        world.wait(30.0, preparing.done)
        for number, fault in enumerate(faults):
            if number not in without:
                world.loop.at(fault.at_s, lambda fault=fault: atlas.strike(fault))
        work.begin()
        if not world.wait(900.0, lambda: not work.running):
            problems.append("clients wait for ever")
        world.wait(FAULTS_S * 2, lambda: not atlas.open)
        problems += ended(world, work, atlas)
    except StuckError as error:
        problems.append(f"stuck: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if trace:
        print("\n".join(world.loop.notes))
    return {
        "seed": seed,
        "problems": problems,
        "sum": world.loop.sum,
        "steps": world.loop.steps,
        "virtual_s": round(world.loop.now, 1),
        "operations": work.done,
        "failed": work.clients.failed,
        "faults": atlas.happened,
        "listed": [str(fault) for fault in faults],
        "effects": dict(world.loop.effects),
        "answers": dict(world.counts),
        "trace": world.loop.trace if keep_trace else None,
    }


def ended(world: Any, work: Any, atlas: Any) -> list[str]:
    """What is found once the faults are over: all must become whole by itself, and be what it was told to be."""
    from whole import judge
    from whole.faults import CLOCKS, SLOW, TAKES_DATA

    problems: list[str] = []
    atlas.end()
    world.settle()
    if not world.wait(WHOLE_S, lambda: world.whole() == ""):
        problems.append(f"it does not become whole: {world.whole()}")
    world.whole_at = world.loop.now
    reading = world.loop.outside.spawn(work.read_back())
    if not world.wait(600.0, reading.done):
        problems.append("reading at the end does not end")
    elif reading.exception() is not None:
        problems.append(f"reading at the end ended: {reading.exception()!r}")
    # time for the auditor, then whatever it found to do
    world.wait(AUDITED_S, lambda: False)
    world.wait(60.0, lambda: world.whole() == "")
    work.clients.happened = set(atlas.happened)
    problems += work.judge() + world.problems + judge.histories(work)
    tasks = judge.tasks()
    problems += judge.background(world, tasks) + judge.leaders(world) + judge.waiting(world, tasks)
    if world.loop.misuse:
        problems.append(f"{world.loop.misuse} calls on closed descriptors")
    torn = world.counts["DamagedError"] + world.counts["ErasureError"]
    if torn and set(atlas.happened) <= set(SLOW):
        problems.append(f"{torn} reads ended in the middle, and nothing had failed")  # D6: what they read was freed
    if not set(atlas.happened) & set(TAKES_DATA):
        problems += world.watch.found
    if world.whole() == "":
        audited = not set(CLOCKS) & set(atlas.happened)
        if audited and "rate" not in atlas.happened:  # clocks that go on apart are an alarm
            problems += judge.figures(world)
        world.wait(
            60.0, lambda: world.whole() == "" and world.still()
        )  # asking took time, in which work may have begun
        problems += [
            one for one in judge.at_rest(world, audited=audited) if audited or not one.startswith("unreachable")
        ]
    return problems


def prepare() -> None:
    """Put the simulated machine under this process, before `s4` is imported."""
    from whole import loop

    loop.install()
    import structlog

    from whole import atlas, cluster, judge, server, workload, world  # noqa: F401 - here once, and not in the process of each seed

    world.install()
    if "--log" in sys.argv:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    else:
        logging.getLogger().setLevel(60)
        logging.getLogger("s4.storage.shards").setLevel(logging.ERROR)
        logging.getLogger("s4.storage.shards").propagate = False
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def begun(seed: int, **options: Any) -> tuple[int, int, int]:
    """(seed, process, pipe) of a seed in a process of its own: what it leaves behind ends with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            result = run_seed(seed, **options)
            with os.fdopen(writer, "w") as pipe:
                json.dump(result, pipe)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    return seed, child, reader


def ended_with(seed: int, child: int, reader: int) -> dict[str, Any]:
    """What such a process found."""
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return (
        json.loads(text)
        if text
        else {
            "seed": seed,
            "problems": ["the simulator itself failed"],
            "steps": 0,
            "operations": 0,
            "faults": {},
            "effects": {},
            "sum": 0,
            "virtual_s": 0,
            "listed": [],
        }
    )


def forked(seed: int, **options: Any) -> dict[str, Any]:
    return ended_with(*begun(seed, **options))


def results(seeds: Iterable[int], jobs: int, **options: Any) -> Iterator[dict[str, Any]]:
    """What each seed found, in their order; `jobs` of them run at once."""
    running: deque[tuple[int, int, int]] = deque()
    try:
        for seed in seeds:
            running.append(begun(seed, **options))
            if len(running) >= jobs:
                yield ended_with(*running.popleft())
        while running:
            yield ended_with(*running.popleft())
    finally:  # whoever stops at one that fails
        for _, child, reader in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)


def shorten(seed: int, only: tuple[str, ...], steered: dict[str, Any]) -> list[str]:
    """The faults of a seed without any of which it fails no more, in words: they are taken away one after the other."""
    without: set[int] = set()
    listed = forked(seed, only=only, **steered)["listed"]
    for number in range(len(listed)):
        if forked(seed, only=only, without={*without, number}, **steered)["problems"]:
            without.add(number)
    return [fault for number, fault in enumerate(listed) if number not in without]


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(prog="whole.run")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    for name in ("--trace", "--shorten", "--log", "--stop", "--quiet"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on a core")
    parser.add_argument("--step", type=int, default=1, help="between seeds: 8 keeps to one kind of world")
    parser.add_argument("--find", default="", help="stop at a problem that has this text")
    parser.add_argument("--known", default="", help="texts of problems that are passed over, with commas between")
    parser.add_argument("--only", default="", help="kinds of faults, with commas between")
    parser.add_argument("--broken", default="", help="a fault to put back, or a rule to leave out (broken.py)")
    parser.add_argument("--like", default="", help="operations and faults as for one of these, with the code as it is")
    asked = parser.parse_args()
    only, steered = tuple(one for one in asked.only.split(",") if one), dict[str, Any]()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "whole.run", *sys.argv[1:]])
    prepare()
    if name := asked.broken or asked.like:
        from whole import broken

        if asked.broken:
            broken.ALL[name]()
        only = only or broken.LIKELY.get(name, ())
        steered = {"weights": broken.WORK.get(name), "standing": broken.STANDING.get(name, 0.0)}
    happened, effects = Counter[str](), Counter[str]()
    failed = operations = steps = 0
    for result in results(
        range(asked.first, asked.last + 1, asked.step), asked.jobs, trace=asked.trace, only=only, **steered
    ):
        seed = result["seed"]
        happened.update(result["faults"])
        effects.update(result["effects"])
        operations, steps = operations + result["operations"], steps + result["steps"]
        known = [one for one in asked.known.split(",") if one]
        result["problems"] = [problem for problem in result["problems"] if not any(one in problem for one in known)]
        if result["problems"]:
            failed += 1
            print(f"seed {seed}: {len(result['problems'])} problems ({result['faults']})")
            for problem in result["problems"][:6]:
                print(f"    {problem[:700]}")
            if asked.shorten:
                kept = shorten(seed, only, steered)
                print(
                    f"    fails with {len(kept)} of its {len(result['listed'])} faults alone: {'; '.join(kept) or 'none'}"
                )
            if asked.stop or (asked.find and any(asked.find in problem for problem in result["problems"])):
                print(f"after {1 + (seed - asked.first) // asked.step} seeds")
                break
        elif not asked.quiet:
            print(
                f"seed {seed}: {result['operations']} operations, {result['steps']} steps, {result['virtual_s']} s, {result['faults']}"
            )
        sys.stdout.flush()
    count = len(range(asked.first, asked.last + 1, asked.step))
    print(
        f"{failed} of {count} seeds failed; {operations} operations, {steps} steps; faults: {_shown(happened)}; what they did: {_shown(effects)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
