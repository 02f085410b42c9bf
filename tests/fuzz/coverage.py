"""Which lines of s4 a run reaches, in this thread."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


class Lines:
    """A context manager; `reached` has (file, line) afterwards."""

    def __init__(self) -> None:
        self.reached: set[tuple[str, int]] = set()

    def __enter__(self) -> Lines:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if "/s4/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.reached.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace
