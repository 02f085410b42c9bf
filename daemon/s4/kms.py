"""Where the keys of SSE-KMS are: in a file, or in the transit engine of Vault. They wrap the keys of objects.

A file has a line NAME:BASE64 for each key of 32 bytes. Of lines with the same name the last is the current version of
that key and those before it open what they wrapped; the first name is the default. Vault is in `vault.py`.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Protocol

from s4.keyring import Keyring, KeyringError, decoded, lines_of


class KmsError(Exception):
    """`code` is S3's for what the KMS said."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Kms(Protocol):
    """`about` is bound to what is wrapped, and must be the same to unwrap it. All raise KmsError."""

    default: str

    @property
    def several(self) -> bool:
        """Whether there may be more than one version of a key."""
        ...

    async def wrap(self, name: str, key: bytes, about: str) -> str: ...

    async def unwrap(self, name: str, wrapped: str, about: str) -> bytes: ...

    async def is_current(self, name: str, wrapped: str) -> bool:
        """Whether the newest version of the key wrapped this."""
        ...


class FileKms:
    """Raises KeyringError for a file that holds no keys."""

    def __init__(self, path: Path, default: str = "") -> None:
        texts: dict[str, list[str]] = {}
        for line in lines_of(path, "KMS key"):
            name, _, text = line.partition(":")
            texts.setdefault(name, []).append(text)
        self._rings = {name: decoded(found, path, "KMS key") for name, found in texts.items()}
        self.default = default or next(iter(self._rings), "")
        if self.default not in self._rings:
            raise KeyringError(f"{path} holds no key {self.default!r}: write a line NAME:BASE64")

    @property
    def several(self) -> bool:
        return any(ring.several for ring in self._rings.values())

    def _ring(self, name: str) -> Keyring:
        ring = self._rings.get(name)
        if ring is None:
            raise KmsError("KMS.NotFoundException", f"Key {name!r} does not exist")
        return ring

    async def wrap(self, name: str, key: bytes, about: str) -> str:
        return self._ring(name).seal(base64.b64encode(key).decode(), about)

    async def unwrap(self, name: str, wrapped: str, about: str) -> bytes:
        try:
            return base64.b64decode(self._ring(name).open(wrapped, about))
        except KeyringError as error:
            raise KmsError("AccessDenied", f"Key {name!r} does not open this object: {error}") from error

    async def is_current(self, name: str, wrapped: str) -> bool:
        return self._ring(name).is_current(wrapped)
