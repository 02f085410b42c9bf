"""Has LevelDB forget what was deleted, where reads wade through it.

A deleted row stays in the database, with the mark that it is deleted, until a compaction meets both, and a read steps
over each such pair: where 200,000 versions of a key were deleted, every look for that key held the event loop for
300 ms. LevelDB compacts by size and by how often files are read, which may never be. So a step of a read that
took long says where it was (`met`); whether that was the processor's time, and not the disk's, is looked at on a
thread, and then that stretch alone is compacted, one at a time.

For editors: nothing here holds the loop, and the database is closed only once `close` has returned.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

STEP_S = 0.005  # some thousands of deleted rows
TRIES = 3  # what was in memory only is written by the first, as it is


class Forgetting:
    """Of one database: `look` steps over a stretch as a read does, `compact` has its deleted rows forgotten. `clock`
    is of the thread's own work."""

    def __init__(
        self,
        look: Callable[[bytes, bytes], object],
        compact: Callable[[bytes, bytes], None],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._look, self._compact, self._clock = look, compact, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.done = 0  # stretches that were compacted

    def met(self, start: bytes, stop: bytes) -> None:
        """A read took long from one key to another, with no row in between."""
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return  # it will be met again
            self._thread = threading.Thread(target=self._run, args=(start, stop), name="forgetting", daemon=True)
            self._thread.start()

    def _run(self, start: bytes, stop: bytes) -> None:
        try:
            for _ in range(TRIES):
                began = self._clock()
                self._look(start, stop)
                if self._clock() - began < STEP_S or self._closed:
                    return
                self._compact(start, stop)
                self.done += 1
        except Exception as error:  # damage is told where it is read; nothing was promised here
            log.warning("what was deleted could not be compacted: %s", error)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.join()
