"""How much a disk still takes. It is asked twice a second, and whenever what was written since might have used the room
up."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from s4.storage.files import Files

log = logging.getLogger(__name__)

ASK_S = 0.5


class Room:
    def __init__(self, files: Files, directory: Path, reserve_bytes: int) -> None:
        self._files, self._directory, self._reserve_bytes = files, directory, reserve_bytes
        self._asked = self._left = 0.0
        self._space = 0, 0

    def has(self, size: int = 0) -> bool:
        """Whether the disk takes `size` bytes more without touching the reserve."""
        now = time.monotonic()
        if now - self._asked > ASK_S or self._left < size:
            free, _ = self.space()
            self._asked, self._left = now, free - self._reserve_bytes
        return self._left > size

    def took(self, size: int) -> None:
        self._left -= size

    def space(self) -> tuple[int, int]:
        """(bytes free to us, bytes in all) of the disk. One that does not say has what it had: its directory may have
        been unmounted, and what is open goes on being written, so that it is no full one."""
        try:
            self._space = self._files.free_bytes(self._directory)
        except OSError as error:
            log.error("%s does not say how much room there is: %s", self._directory, error)
        return self._space
