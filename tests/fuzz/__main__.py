"""`make fuzz`: drives the targets with atheris (coverage-guided) and keeps the inputs that found new paths.

    python -m fuzz [TARGET ...] [--seconds 60]

Each target's corpus is one text file in fuzz/corpus, an input a line as a Python bytes literal; the tests run all of
it. An input that breaks a promise is printed, added to the corpus, so that the tests fail until it is mended, and ends
the run.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from fuzz.corpus import load, store

MAX_INPUT = 4096
# What parses. Not all of s4: atheris 2.3 rewrites some of Python 3.11's longer coroutines into code that crashes.
INSTRUMENTED = (
    "/s4/s3/",
    "/s4/http/",
    "/s4/peer/frames",
    "/s4/storage/records",
    "/s4/storage/volumes",
    "/s4/metadata/rows",
    "/s4/cluster/",
)


def drive(name: str, seconds: int) -> None:
    """Runs in a process of its own: atheris ends it."""
    import atheris  # of the group "fuzz"
    from atheris import import_hook

    patch = import_hook.patch_code

    def patch_some(code: Any, *options: Any) -> Any:
        return patch(code, *options) if any(part in code.co_filename for part in INSTRUMENTED) else code

    import_hook.patch_code = patch_some
    with atheris.instrument_imports(include=["s4"]):
        from fuzz.targets import TARGETS
    folder = sys.argv[-1]
    with TARGETS[name]() as run:
        # A single input slower than 5 s or a process above 1 GiB ends the run as a crash does.
        atheris.Setup(
            [
                sys.argv[0],
                folder,
                f"-max_total_time={seconds}",
                f"-max_len={MAX_INPUT}",
                "-timeout=5",
                "-rss_limit_mb=1024",
                f"-artifact_prefix={folder}.crash/",
                "-print_final_stats=1",
                "-verbosity=0",
            ],
            run,
        )
        atheris.Fuzz()


def that_reach_more(name: str, kept: list[bytes], found: list[bytes]) -> list[bytes]:
    """What was kept before, and of what was found, shortest first, each that reaches a line of s4 not reached
    before."""
    from fuzz.coverage import Lines
    from fuzz.targets import TARGETS

    more, seen = list(kept), set[tuple[str, int]]()
    with TARGETS[name]() as run:
        for data in [*kept, *sorted(set(found) - set(kept), key=lambda one: (len(one), one))]:
            with Lines() as lines:
                run(data)
            if lines.reached - seen and data not in kept:
                more.append(data)
            seen |= lines.reached
    return more


def fuzz(name: str, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, crashes = Path(scratch) / "corpus", Path(scratch) / "corpus.crash"
        folder.mkdir()
        crashes.mkdir()
        for number, data in enumerate(load(name)):
            (folder / str(number)).write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "fuzz", name, "--seconds", str(seconds), "--drive", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = [path.read_bytes() for path in folder.iterdir()]
        broken = [path.read_bytes() for path in crashes.iterdir()]
        if done.returncode or broken:
            store(name, load(name) + broken)
            said = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO"))
            sys.exit(f"{name}: {broken}\n{said[:6000]}")
        runs = next((line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line), "?")
        kept = that_reach_more(name, load(name), found)
        store(name, kept)
        print(f"{name}: {runs} inputs in {seconds} s, {len(found)} reached something new, {len(kept)} kept", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable()  # what is refused is told, thousands of times a second
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if arguments.drive:
        drive(arguments.targets[0], arguments.seconds)
    else:
        from fuzz.targets import TARGETS

        for name in arguments.targets or TARGETS:
            fuzz(name, arguments.seconds)


if __name__ == "__main__":
    main()
