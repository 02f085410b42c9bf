"""How fast a client takes what it is sent: one that trickles, or stops, is ended, whatever it asked for.

What was written was not taken. Hundreds of kilobytes of an answer stand in the connection's buffer and in the
kernel's, so what counts is what the client's own machine has acknowledged (TCP_INFO): more than its program has read
by its receive window at most. Where the kernel does not say (a Unix socket), it is what has left our buffer.

The time that counts is the time in which more stands here than the client has taken. Each `stall_s` of it has to bring
`least_rate_bytes` a second: what came before lends nothing, however much it was.

For editors: `waits` and `goes_on` stand in the way of every large answer; the timer, and the question to the kernel,
are once a window. What stands in the kernel alone when an answer has ended is the kernel's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from s4.config.limits import Limits

ACKED_AT = 120  # of tcpi_bytes_acked in Linux's struct tcp_info, 8 bytes


class Taking:
    """One connection's client. `end` ends it."""

    __slots__ = (
        "_acked",
        "_clock",
        "_end",
        "_left",
        "_limits",
        "_since",
        "_socket",
        "_timer",
        "_waited_before_s",
        "_waited_s",
        "trickled",
    )

    def __init__(
        self,
        limits: Limits,
        connection: Any,
        left: Callable[[], int],
        end: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`left` says how many bytes have left our own buffer, in all."""
        self._limits, self._socket, self._left, self._end, self._clock = limits, connection, left, end, clock
        self._since: float | None = None  # when it was waited for
        self._waited_s = self._waited_before_s = 0.0  # of this window; when it was looked at last
        self._acked = 0  # when the window began
        self._timer: asyncio.TimerHandle | None = None
        self.trickled = False

    def waits(self) -> None:
        """More stands here than the client takes at once."""
        if self._since is None:
            self._since = self._clock()
            if self._timer is None:
                self._begin()

    def goes_on(self) -> None:
        """The client has taken that."""
        if self._since is not None:
            self._waited_s += self._clock() - self._since
            self._since = None
            if self._waited_s > self._limits.stall_s:
                self._judge()

    def stop(self) -> None:
        """The connection is closed."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._waited_s = self._waited_before_s = 0.0
        self._acked = self._taken()
        self._timer = asyncio.get_running_loop().call_later(self._limits.stall_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._since is not None:
            now = self._clock()
            self._waited_s, self._since = self._waited_s + now - self._since, now
        if self._waited_s >= self._limits.stall_s:
            self._judge()
            if self._since is not None and not self.trickled:
                self._begin()
        elif self._waited_s > self._waited_before_s:
            self._waited_before_s = self._waited_s
            left_s = self._limits.stall_s - self._waited_s
            self._timer = asyncio.get_running_loop().call_later(max(left_s, 0.001), self._look)

    def _judge(self) -> None:
        taken = self._taken()
        if taken - self._acked < self._waited_s * self._limits.least_rate_bytes:
            self.trickled = True
            self._end()
        self._acked, self._waited_s, self._waited_before_s = taken, 0.0, 0.0

    def _taken(self) -> int:
        if self._socket is not None and self._socket.family != socket.AF_UNIX:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKED_AT + 8)
            if len(told) == ACKED_AT + 8:
                return int(struct.unpack_from("=Q", told, ACKED_AT)[0])
        return self._left()
