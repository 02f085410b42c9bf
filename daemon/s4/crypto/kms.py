"""Where the keys of SSE-KMS are: in a file, or in the transit engine of Vault. They wrap the keys of objects.

Which bucket may use which is the administrator's word (`allowed_of`), and asked wherever a key is named or chosen,
before the KMS is: a key of others and one that does not exist have one answer.

A file has a line NAME:BASE64 for each key of 32 bytes. Of lines with the same name the last is the current version of
that key and those before it open what they wrapped; the first name is the default. Vault is in `crypto/vault.py`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from s4.crypto.keyring import Keyring, KeyringError, decoded, lines_of

_BUCKETS = re.compile(r"[a-z0-9.*?-]+")
Allowed = Mapping[str, tuple[str, ...]]  # by key, the buckets that may use it: patterns with * and ?


def allowed_of(text: str) -> Allowed | None:
    """Read KEY=BUCKET,BUCKET;KEY=..., None where every bucket may use every key. Raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, text.split(";")):
        named, equals, patterns = part.partition("=")
        key, buckets = named.strip(), tuple(one.strip() for one in patterns.split(",") if one.strip())
        if not key or not equals or not buckets or key in found or not all(map(_BUCKETS.fullmatch, buckets)):
            raise ValueError(f"{part.strip()!r} does not say which buckets may use which key: write KEY=BUCKET,BUCKET")
        found[key] = buckets
    return found or None


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
