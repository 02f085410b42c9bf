"""How encrypted bytes are laid out: AES-256-GCM over segments of 64 KiB, so that any range can be read by itself.

Every extent has a key of its own, made of its object's key and the extent's random seal by HKDF. A segment's nonce is
its number and whether it is the last one: under one key no nonce comes twice, and a segment that is moved, taken from
elsewhere or cut off at the end does not open. Each segment is followed by its tag; an empty extent is one empty
segment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s4.metadata.rows import Extent

SEGMENT, TAG = 64 * 1024, 16
KEY_BYTES, SEAL_BYTES = 32, 16


def stored_size(extent: Extent) -> int:
    """Bytes that an extent takes in its blob or row."""
    return extent.size + TAG * max(1, -(-extent.size // SEGMENT)) if extent.seal else extent.size


def _cipher(key: bytes, seal: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=seal, info=b"s4 extent").derive(key))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))


class Sealer:
    """Encrypts one extent as its bytes come. `size` and `sha256` are of what is stored."""

    def __init__(self, key: bytes, seal: bytes) -> None:
        self._cipher, self.seal = _cipher(key, seal), seal
        self._held, self._number = bytearray(), 0
        self._digest, self.size = hashlib.sha256(), 0

    def feed(self, pieces: Iterable[bytes | memoryview]) -> list[bytes]:
        """What is full of segments by now. The last 64 KiB wait: they may be the end."""
        out = []
        for piece in pieces:
            self._held += piece
            while len(self._held) > SEGMENT:
                out.append(self._seal(bytes(memoryview(self._held)[:SEGMENT]), last=False))
                del self._held[:SEGMENT]
        return out

    def finish(self) -> bytes:
        """The last segment."""
        return self._seal(bytes(self._held), last=True)

    def _seal(self, data: bytes, *, last: bool) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, last), data, None)
        self._number += 1
        self._digest.update(sealed)
        self.size += len(sealed)
        return sealed

    def sha256(self) -> bytes:
        return self._digest.digest()


class Opener:
    """Decrypts segments of one extent."""

    def __init__(self, key: bytes, extent: Extent) -> None:
        self._cipher, self._extent = _cipher(key, extent.seal), extent
        self._last = max(0, -(-extent.size // SEGMENT) - 1)

    def span(self, offset: int, length: int) -> tuple[int, int]:
        """(offset, length) of the whole segments that hold a range, as stored. The range must not be empty."""
        first, after = offset // SEGMENT, -(-(offset + length) // SEGMENT)
        start = first * (SEGMENT + TAG)
        return start, min(after * (SEGMENT + TAG), stored_size(self._extent)) - start

    def open(self, first: int, data: bytes | memoryview) -> bytes:
        """The bytes of whole segments, the first of which has the number `first`. Raises InvalidTag for anything
        else."""
        view, out = memoryview(data), []
        for at in range(0, len(view), SEGMENT + TAG):
            number = first + at // (SEGMENT + TAG)
            out.append(self._cipher.decrypt(_nonce(number, number == self._last), view[at : at + SEGMENT + TAG], None))
        return b"".join(out)


__all__ = ["KEY_BYTES", "SEAL_BYTES", "SEGMENT", "TAG", "InvalidTag", "Opener", "Sealer", "stored_size"]
