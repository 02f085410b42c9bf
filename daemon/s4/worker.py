"""Entry of a gateway process: `python -m s4.worker SETTINGS SOCKET`, started by the server and by nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import uvloop

from s4.serve import ServerSettings, run_worker


def _say() -> None:
    sys.stdout.write("up\n")
    sys.stdout.flush()


def main() -> None:
    uvloop.run(run_worker(msgspec.json.decode(sys.argv[1].encode(), type=ServerSettings), Path(sys.argv[2]), _say))


if __name__ == "__main__":
    main()
