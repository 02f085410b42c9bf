"""Runs commands of `s4` in forks of one process that has imported everything: a start that is refused takes
milliseconds then.

python forked.py < CASES      JSON lines: {"arguments": [...], "environment": {...}} in, {"status": N, "out": "", "err": ""} out
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile

from s4.cli import dev, main  # noqa: F401 - what commands import later
from s4.server import cluster, standalone  # noqa: F401 - what commands import later

HANGS_S = 30


def run(arguments: list[str], environment: dict[str, str]) -> dict[str, object]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                signal.alarm(HANGS_S)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                for name in [name for name in os.environ if name.startswith(("S4_", "AWS_"))]:
                    del os.environ[name]
                os.environ.update(environment)
                try:
                    status = main.main(arguments)
                except SystemExit as error:
                    status = error.code if isinstance(error.code, int) else 1
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, code = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {"status": os.waitstatus_to_exitcode(code), "out": out.read().decode(), "err": err.read().decode()}


if __name__ == "__main__":
    for line in sys.stdin:
        case = json.loads(line)
        sys.stdout.write(json.dumps(run(case["arguments"], case["environment"])) + "\n")
        sys.stdout.flush()
