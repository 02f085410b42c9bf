"""What the tests say of themselves: their costs by folder, and which tier and group each is in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def collected(*options: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_tests_that_share_a_server_stay_together_and_long_ones_come_first() -> None:
    names = collected(
        "tests/access/test_locks.py", "tests/cluster/test_traces.py", "tests/erasure/test_codec.py", "-n", "0"
    )
    assert names[0].startswith("tests/cluster/test_traces.py")
    kinds = ["two gateways" in name for name in names if "test_locks" in name]
    assert kinds in (sorted(kinds), sorted(kinds, reverse=True)), "all of one server, then all of the other"


def test_what_check_runs_is_there() -> None:
    """A folder or file of its list that was renamed would leave it without a word."""
    import tiers

    for start in tiers.CHECK + tiers.LONG + tuple(name for names in tiers.CLUSTERS for name in names):
        assert (TESTS / start.partition("::")[0]).exists(), start


def test_costs_are_printed_by_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test_it.py").write_text("def test_a(): sum(range(10_000_000))\ndef test_b(): pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "costs",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(TESTS)}
    )
    line = next(line for line in done.stdout.splitlines() if line.endswith("  folder"))
    assert "2 tests" in line, done.stdout


def test_what_is_untraced_or_long_is_not_traced_on_in_a_worker_either(tmp_path: Path) -> None:
    text = "import sys\nimport pytest\n@pytest.mark.untraced\ndef test_a(): assert sys.gettrace() is None\ndef test_b(): assert sys.gettrace() is not None\n"
    text += "def test_long():\n    while sys.gettrace() is not None: pass\ndef test_c(): assert sys.gettrace() is not None\n"
    (tmp_path / "test_it.py").write_text(text)
    for workers in ("0", "1"):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "traced",
            "-p",
            "no:cacheprovider",
            "-n",
            workers,
            "--cov",
            "--cov-report=",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ]
        # from Python 3.14 on coverage traces otherwise unless told, which nobody sees by sys.gettrace
        environment = {"PYTHONPATH": str(TESTS), "COVERAGE_CORE": "ctrace"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout
