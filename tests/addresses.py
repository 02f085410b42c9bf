"""Addresses for what tests start: each server, cluster or receiver has a loopback address of its own.

Whatever runs beside it, and every outgoing connection, has another (these come from 127.0.0.1), so that a port which
was free when it was chosen is still free when it is used, and again when a server that was killed comes back.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

_numbers = itertools.count()


def own_address() -> str:
    number = next(_numbers)
    return f"127.{os.getpid() % 253 + 1}.{number // 250 % 250 + 1}.{number % 250 + 1}"


def port_of_all_addresses() -> int:
    """For what listens on every address: below the ports that the system gives away, so that nobody is given it
    meanwhile."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as tried:
            try:
                tried.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def free_ports(count: int, host: str) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((host, 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
