"""The clock of promises between processes: seconds that go on while the machine sleeps (R5).

`time.monotonic` stands still in suspend, and so do asyncio's timers, while whoever gave a lease, or was told when a
request began, goes on. So leases, graces, ages of readers (D6), and how long something that was heard of others may be
used count by this clock, which is passed in where they are kept. What this process gives itself, such as the pause
before it tries again or how long it waits for somebody to come back, may count by `time.monotonic`: after a sleep it
only waits longer. The two must not be compared with each other.
"""

from __future__ import annotations

import time


def boot_clock() -> float:
    """CLOCK_BOOTTIME, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    """Milliseconds since 1970, by this machine's clock."""
    return int(time.time() * 1000)
