"""The process that a Starter forks others from: everything that a server needs is loaded here, once."""

from __future__ import annotations

import gc
import socket
import sys

import uvloop  # noqa: F401 - loaded for those that are forked, as are the servers

from s4.cli import main, starter
from s4.server import cluster, standalone  # noqa: F401 - as above


def run() -> int:
    gc.collect()
    gc.freeze()  # pages that nobody writes to are shared by all
    with socket.socket(fileno=int(sys.argv[1])) as owner:
        arguments = starter.serve(owner)
    return main.main(arguments) if arguments is not None else 0


if __name__ == "__main__":
    sys.exit(run())
