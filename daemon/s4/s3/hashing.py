"""MD5 and SHA-256 of a body, and the SHA-256 of the chunk of it that is signed, in one pass over its bytes.

MD5 is what the ETag is, the SHA-256 what equal content is known by, the chunk's what aws-chunked signs. By hashlib they are
three passes and half of what a large PUT costs; the extension `_fused` (C, x86-64 with SHA instructions) does all in one,
for half of that. Where it was not built, or the processor lacks them, hashlib does it: digests are the same.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

try:
    from s4.s3._fused import Fused
except ImportError:
    FUSED = False
else:
    FUSED = True

Data = bytes | bytearray | memoryview


class BodyHash(Protocol):
    """`sha256` means something only where the content's was asked for, `chunk_sha256` only after `chunk`."""

    def update(self, data: Data, /) -> None: ...

    def chunk(self) -> None:
        """A chunk begins."""

    def md5(self) -> bytes: ...

    def sha256(self) -> bytes: ...

    def chunk_sha256(self) -> bytes: ...


class Separate:
    """By hashlib, one pass for each."""

    def __init__(self, content: bool) -> None:
        self._md5, self._content = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self._updates = [self._md5.update, self._content.update] if content else [self._md5.update]
        self._always = len(self._updates)

    def update(self, data: Data, /) -> None:
        for update in self._updates:
            update(data)

    def chunk(self) -> None:
        self._chunk = hashlib.sha256()
        self._updates[self._always :] = [self._chunk.update]

    def md5(self) -> bytes:
        return self._md5.digest()

    def sha256(self) -> bytes:
        return self._content.digest()

    def chunk_sha256(self) -> bytes:
        return self._chunk.digest()


def new(*, content: bool) -> BodyHash:
    """Of one body; `content` says whether its SHA-256 is wanted."""
    return Fused(content) if FUSED else Separate(content)
