"""Addresses as people write them, and the sockets that listen there."""

from __future__ import annotations

import os
import socket


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, [v6]:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r} is not an address; write one of IPv6 as [ADDRESS]:PORT, such as [::1]:9000")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address; write HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what ":PORT" means everywhere


def listening_socket(address: str, *, shared: bool = False) -> socket.socket:
    """A bound socket. Raises OSError with the address in its message."""
    host, port = parse_address(address)
    both = address.startswith(":") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    if both:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        host = "::"
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error
    return bound


def shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
