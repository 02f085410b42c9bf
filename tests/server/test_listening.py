"""Addresses as people write them: of IPv4, of IPv6, and of both, as pods listen."""

from __future__ import annotations

import socket

import pytest

from s4.config.listening import listening_socket, parse_address, shown


def test_addresses_are_parsed() -> None:
    assert parse_address("127.0.0.1:9000") == ("127.0.0.1", 9000)
    assert parse_address("[fd00::1]:9000") == ("fd00::1", 9000)
    with pytest.raises(ValueError, match="write HOST:PORT"):
        parse_address("fd00")
    for bare in ("fd00::1", "fd00::1:9000", "::1"):
        with pytest.raises(ValueError, match=r"write one of IPv6 as \[ADDRESS\]:PORT"):
            parse_address(bare)


def reached(bound: socket.socket, host: str) -> bool:
    bound.listen()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        return client.connect_ex((host, bound.getsockname()[1])) == 0


@pytest.mark.parametrize(
    ("address", "four", "six"),
    [(":0", True, True), ("[::1]:0", False, True), ("127.0.0.1:0", True, False), ("[::]:0", True, True)],
)
def test_who_is_reached_where(address: str, four: bool, six: bool) -> None:
    """A port without a host is both families', whatever a pod has."""
    with listening_socket(address) as bound:
        assert (reached(bound, "127.0.0.1"), reached(bound, "::1")) == (four, six)
        assert shown(bound).rpartition(":")[0] in ("127.0.0.1", "[::1]")
