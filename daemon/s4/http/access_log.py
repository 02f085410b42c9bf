"""The line that a request's id finds: who asked for what, what came of it, and why it was refused.

Requests that were refused or failed have one by default, all of them where somebody wants that (`--access-log on`, or
`s4 admin log --access all` while the server runs). What a flood of refusals costs is bounded: so many lines a second
of each kind (`LINES`), and then one that says how many are missing. Why a request was denied is worked out for a line
that is written, never for others: nothing here is on the path of a request that succeeds, but for one comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from s4.http.connection import Exchange
from s4.http.request import S3Request
from s4.s3.errors import S3Error
from s4.telemetry import logs

log = structlog.get_logger("s4.http")

LINES = 50  # a second of refused requests, and as many of failed ones


@dataclass(slots=True)
class _Budget:
    left: float = LINES
    at: float = 0.0
    lost: int = 0

    def take(self, now: float) -> bool:
        self.left = min(LINES, self.left + (now - self.at) * LINES)
        self.at = now
        if self.left < 1:
            self.lost += 1
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class AccessLog:
    """`everything`: requests that succeeded have lines too."""

    everything: bool = False
    clock: Callable[[], float] = time.monotonic
    _refused: _Budget = field(default_factory=_Budget)
    _failed: _Budget = field(default_factory=_Budget)

    def wants(self, status: int) -> bool:
        """Whether a request is to have a line, as far as its outcome decides it."""
        return self.everything or status >= 400

    def write(
        self,
        http: Exchange,
        request: S3Request | None,
        request_id: str,
        status: int,
        code: str,
        *,
        error: S3Error | None = None,
        **more: int | float,
    ) -> None:
        if not self.everything:
            budget, now = self._failed if status >= 500 else self._refused, self.clock()
            if not budget.take(now):
                return
            if budget.lost:
                log.warning("requests that were refused or failed have no line", count=budget.lost)
                budget.lost = 0
        claim = request.claim if request is not None else None
        found = {
            "request_id": request_id,
            "operation": request.operation if request is not None and request.operation else "Unknown",
            "method": http.method,
            "path": logs.address(http.raw_path) if status >= 400 else http.raw_path.partition("?")[0],
            "status": status,
            "code": code,
            "user": request.user if request is not None else "",
            "access_key": claim.access_key if claim is not None else "",
            "remote": http.remote or "",
            **more,
        }
        if error is not None and error.status >= 400:
            found["error"] = error.message
            if error.why is not None:
                found["why"] = error.why()
            if not found["access_key"]:
                found["access_key"] = error.fields.get("AWSAccessKeyId", "")
        log.info("request", **{name: value for name, value in found.items() if value != ""})
