"""The master key: what secrets and the keys of objects are kept under on disk, and what session tokens are sealed with.

Keys of 32 bytes for a whole cluster, one a line in a file of its own, never in the store: whoever copies a database has
no secrets. Every process that answers S3 has it, and none writes it but the one that makes it. The last line is the
current key, those before it open what they sealed. A sealed text names its key by a part of the key's hash, so that a
wrong file is told apart from damage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from s4.base.said import words

KEY_BYTES, NONCE_BYTES, NAME_BYTES = 32, 12, 4
FILE = "master.key"
PREFIX = "sealed1:"


KEPT, KEPT_BYTES = 4096, 2048  # texts that were opened, and how long they may be


class KeyringError(ValueError):
    """No master key, or another one than a text was sealed with; the message says what to do."""


class Keyring:
    """Seals and opens short texts with AES-256-GCM; `about` is bound to a text, and must be the same to open it."""

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise KeyringError(f"a master key has {KEY_BYTES} bytes")
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in keys:
            self._name = hashlib.sha256(b"s4 master key" + key).digest()[:NAME_BYTES]
            self._ciphers.pop(self._name, None)  # of a key that is given twice the last place counts
            self._ciphers[self._name] = AESGCM(key)
        self._opened = lru_cache(maxsize=KEPT)(self._open)

    def open(self, text: str, about: str) -> str:
        """Raises KeyringError for what none of these keys sealed. Only what one of them did is kept, and no long
        texts."""
        return self._opened(text, about) if len(text) <= KEPT_BYTES else self._open(text, about)

    @property
    def names(self) -> list[str]:
        """What tells the keys apart without telling them, the current one last."""
        return [name.hex() for name in self._ciphers]

    @property
    def several(self) -> bool:
        """Whether there may be texts that an older key sealed."""
        return len(self._ciphers) > 1

    def seal(self, text: str, about: str) -> str:
        nonce = os.urandom(NONCE_BYTES)  # random: far fewer than 2^32 texts are sealed under one key
        sealed = self._ciphers[self._name].encrypt(nonce, text.encode(), about.encode())
        return PREFIX + base64.urlsafe_b64encode(self._name + nonce + sealed).decode().rstrip("=")

    def is_current(self, text: str) -> bool:
        """Whether the current key sealed this."""
        return _raw(text)[:NAME_BYTES] == self._name

    def _open(self, text: str, about: str) -> str:
        """Raises KeyringError for what none of these keys sealed."""
        raw = _raw(text)
        cipher = self._ciphers.get(raw[:NAME_BYTES])
        if cipher is None:
            raise KeyringError("this was sealed with another master key: give every process the cluster's own")
        nonce, sealed = raw[NAME_BYTES : NAME_BYTES + NONCE_BYTES], raw[NAME_BYTES + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, about.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise KeyringError("a sealed text is damaged, or belongs elsewhere") from error


def _raw(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "==")
    except (binascii.Error, ValueError):
        return b""


def is_sealed(text: str) -> bool:
    return text.startswith(PREFIX)


def lines_of(path: Path, what: str) -> list[str]:
    """A key file's lines but for empty ones and remarks (#). Raises KeyringError."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise KeyringError(f"the {what} in {path} cannot be read: {words(error)}") from error
    return [line for line in lines if line and not line.startswith("#")]


def decoded(texts: Sequence[str], path: Path, what: str) -> Keyring:
    """The keys of some lines. Raises KeyringError."""
    try:
        return Keyring(*(base64.b64decode(text, validate=True) for text in texts))
    except (binascii.Error, KeyringError) as error:
        raise KeyringError(f"{path} holds no {what}: it must be {KEY_BYTES} bytes in base64") from error


def read(path: Path) -> Keyring:
    """The keys of a file. Raises KeyringError."""
    return decoded(lines_of(path, "master key"), path, "master key")


def new() -> bytes:
    """A new key as it is kept in a file."""
    return base64.b64encode(os.urandom(KEY_BYTES)) + b"\n"
