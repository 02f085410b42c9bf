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

from s4.base.memory import unset
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

    def feed(self, pieces: Iterable[bytes | memoryview]) -> list[memoryview]:
        """What is full of segments by now. The last 64 KiB wait: they may be the end."""
        for piece in pieces:
            self._held += piece
        full = (len(self._held) - 1) // SEGMENT * SEGMENT
        if full <= 0:
            return []
        data = memoryview(self._held)
        self._held = bytearray(data[full:])
        return [self._seal(data[:full], last=False)]

    def finish(self) -> memoryview:
        """The last segment."""
        return self._seal(memoryview(self._held), last=True)

    def _seal(self, data: memoryview, *, last: bool) -> memoryview:
        """Whole segments, or the last one, encrypted into one buffer and hashed in one go."""
        count = max(1, len(data) // SEGMENT)
        sealed = unset(len(data) + count * TAG)
        view = memoryview(sealed)
        for number in range(count):
            plain = data[number * SEGMENT : (number + 1) * SEGMENT]
            at = number * (SEGMENT + TAG)
            self._cipher.encrypt_into(_nonce(self._number, last), plain, None, view[at : at + len(plain) + TAG])
            self._number += 1
        self._digest.update(sealed)
        self.size += len(sealed)
        return view

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

    def open(self, first: int, data: bytes | memoryview) -> bytearray:
        """The bytes of whole segments, the first of which has the number `first`. Raises InvalidTag for anything
        else."""
        view, count = memoryview(data), -(-len(data) // (SEGMENT + TAG))
        if len(view) - (count - 1) * (SEGMENT + TAG) < TAG:  # the last one is cut off before its tag
            raise InvalidTag
        plain = unset(len(view) - count * TAG)
        out = memoryview(plain)
        for number in range(count):
            sealed = view[number * (SEGMENT + TAG) : (number + 1) * (SEGMENT + TAG)]
            nonce = _nonce(first + number, first + number == self._last)
            at = number * SEGMENT
            self._cipher.decrypt_into(nonce, sealed, None, out[at : at + len(sealed) - TAG])
        return plain


__all__ = ["KEY_BYTES", "SEAL_BYTES", "SEGMENT", "TAG", "InvalidTag", "Opener", "Sealer", "stored_size"]
