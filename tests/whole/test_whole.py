"""The simulator of the whole: some seeds, and that a seed is one run. `python -m whole.run` runs thousands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiers import amount

TESTS = Path(__file__).parents[1]
SEEDS = "1", str(1 + amount("S4_WHOLE_SEEDS", 12, 1000))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run([sys.executable, *arguments], cwd=TESTS, env=environment, capture_output=True, text=True, check=False)


def test_some_seeds_lose_nothing_and_become_whole() -> None:
    done = run("-m", "whole.run", *SEEDS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_a_seed_is_one_run() -> None:
    """Every step of two runs, in processes of their own, is the same at the same moment."""
    code = """
import json, sys
from whole import run
run.prepare()
for _ in range(2):
    result = run.forked(11, keep_trace=True)
    print(json.dumps([result["sum"], result["steps"], result["problems"], result["trace"]]))
"""
    first, second = (json.loads(line) for line in run("-c", code).stdout.splitlines())
    differ = next((pair for pair in zip(first[3], second[3], strict=False) if pair[0] != pair[1]), None)
    assert differ is None
    assert first[:3] == second[:3]
    assert len(first[3]) > 1000
