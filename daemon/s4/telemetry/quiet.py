"""No line of the log more than once a minute for one fact.

What fails fails again and again: a peer that is refused, a disk that is full. A log that repeats it seven times a
second hides all else, fills disks, and still does not say how often. So a line that was written is not written again
for a minute; then, where it goes on or has ended, it is written once more with how often it came. Lines of one kind
that differ in what they name (a blob, an address) are bounded together. Requests have lines of their own, with a bound
of their own (http/access_log.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

AGAIN_S = 60.0
OF_A_KIND = 30  # lines a minute from one place in the code, whatever they name
FACTS = 2000
REQUEST = "request"


@dataclass(slots=True)
class _Fact:
    logger: str
    level: int
    text: str
    since: float
    missing: int = 0


class Quiet(logging.Filter):
    """A filter for a handler. `settle` writes the counts of what has ended; it is called now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._facts: OrderedDict[tuple[str, ...], _Fact] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO or getattr(record, "counted", False):
            return True
        kind, text = _of(record)
        if kind == REQUEST:
            return True
        with self._lock:
            if not self._is_news((record.name, text), record, text, 1):
                return False
            return self._is_news((record.name, "", kind), record, f"{kind} (and others like it)", OF_A_KIND)

    def _is_news(self, name: tuple[str, ...], record: logging.LogRecord, text: str, most: int) -> bool:
        now = self._clock()
        fact = self._facts.get(name)
        if fact is None or now - fact.since >= AGAIN_S:
            count = fact.missing if fact is not None else 0
            self._facts[name] = _Fact(record.name, record.levelno, text, now, 1 - most)
            self._facts.move_to_end(name)
            while len(self._facts) > FACTS:
                self._facts.popitem(last=False)
            if count > 0:
                _add(record, count)
            return True
        fact.missing += 1
        return fact.missing <= 0

    def settle(self) -> None:
        """Say how often what is over was said."""
        now = self._clock()
        with self._lock:
            over = [name for name, fact in self._facts.items() if now - fact.since >= AGAIN_S]
            ended = [self._facts.pop(name) for name in over]
        for fact in ended:
            if fact.missing > 0:
                text = "%s [%d times more within a minute]"
                logging.getLogger(fact.logger).log(fact.level, text, fact.text, fact.missing, extra={"counted": True})


def _of(record: logging.LogRecord) -> tuple[str, str]:
    """(what stays the same, all of it) of a line."""
    if isinstance(record.msg, dict):  # structlog's
        fields = {name: value for name, value in record.msg.items() if name not in ("timestamp", "exc_info", "_record")}
        return str(record.msg.get("event", "")), " ".join(f"{name}={value}" for name, value in fields.items())
    return str(record.msg), record.getMessage()


def _add(record: logging.LogRecord, count: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**record.msg, "times_before": count}
    else:
        record.msg, record.args = "%s [%d times more in the minute before]", (record.getMessage(), count)
