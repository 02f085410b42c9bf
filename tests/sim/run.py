"""`python -m sim.run FIRST LAST`: runs seeds and prints those that fail."""

from __future__ import annotations

import os
import sys
import time

from sim.node import BrokenError
from sim.world import World


def main() -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":  # a seed replays only where sets of names are walked alike
        os.execve(
            sys.executable, [sys.executable, "-m", "sim.run", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    first, last = int(sys.argv[1]), int(sys.argv[2])
    started, failed, calls = time.monotonic(), 0, 0
    for seed in range(first, last):
        world = World(seed, replicas=(3, 3, 3, 5, 2)[seed % 5])
        try:
            world.run()
            world.check_end()
        except BrokenError as found:
            failed += 1
            print(f"seed {seed}: {found}", flush=True)
        calls += sum(map(len, world.history.values()))
    print(f"{last - first} seeds, {failed} failed, {calls} calls, {time.monotonic() - started:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
