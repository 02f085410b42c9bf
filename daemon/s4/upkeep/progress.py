"""Where a scrub is, and when the last one ended, in a small file, so that a restart loses neither.

Otherwise a process that is restarted more often than a scrub takes, or than it is due, would never scrub to the end.
Losing the file costs reading some of it again. A disk that takes no file ends no scrub.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from s4.storage.files import Files

log = logging.getLogger(__name__)

NAME = "scrub.json"
SAVE_S = 10.0


class AnyProgress(Protocol):
    """`ended_s` is of the last one that came to its end, in seconds since 1970."""

    running: bool
    ended_s: float


P = TypeVar("P", bound=AnyProgress)


class ProgressFile(Generic[P]):
    """The file of one kind of place; `kind()` is where nothing was done yet."""

    def __init__(self, files: Files, directory: Path, kind: type[P], name: str = NAME) -> None:
        self._files, self._path, self._kind = files, directory / name, kind
        self._saved = 0.0

    def load(self) -> P:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=self._kind)
        except FileNotFoundError:
            return self._kind()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("%s is damaged, the scrub begins anew: %s", self._path, error)
            return self._kind()

    def save(self, place: P) -> None:
        self._saved = time.monotonic()
        try:
            self._files.replace(self._path, msgspec.json.encode(place))
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error)

    def save_sometimes(self, place: P) -> None:
        """To be called often."""
        if time.monotonic() - self._saved > SAVE_S:
            self.save(place)


def is_due(place: AnyProgress, every_s: float, now_s: float) -> bool:
    """Whether a scrub was cut off, or the last one is longer ago than `every_s`, or ended in the future, by a clock
    that was wrong then; `every_s` 0 is never."""
    return every_s > 0 and (place.running or not 0 <= now_s - place.ended_s < every_s)
