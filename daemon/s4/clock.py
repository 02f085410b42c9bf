"""The clock that leases and patience are measured by: it never jumps, and goes on while the machine sleeps (R5, R12)."""

from __future__ import annotations

import time


def boot_clock() -> float:
    """Seconds since the machine started. `time.monotonic` stands still in suspend, for whoever waits and for nobody else."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
