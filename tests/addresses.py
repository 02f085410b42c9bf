"""Addresses for what tests start: each server, cluster or receiver has a loopback address of its own.

Whatever runs beside it, and every outgoing connection, has another (these come from 127.0.0.1), so that a port which was free
when it was chosen is still free when it is used, and again when a server that was killed comes back.
"""

from __future__ import annotations

import itertools
import os
import socket

_numbers = itertools.count()


def own_address() -> str:
    number = next(_numbers)
    return f"127.{os.getpid() % 253 + 1}.{number // 250 % 250 + 1}.{number % 250 + 1}"


def free_ports(count: int, host: str) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((host, 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
