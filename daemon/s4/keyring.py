"""The master key: what secrets are kept under on disk, and what session tokens are sealed with.

One key of 32 bytes for a whole cluster, in a file of its own, never in the store: whoever copies a database has no
secrets. Every process that answers S3 has it, and none writes it but the one that makes it. A sealed text names the
key by a part of its hash, so that a wrong file is told apart from damage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES, NONCE_BYTES, NAME_BYTES = 32, 12, 4
FILE = "master.key"
PREFIX = "sealed1:"


class KeyringError(ValueError):
    """No master key, or another one than a text was sealed with; the message says what to do."""


class Keyring:
    """Seals and opens short texts with AES-256-GCM; `about` is bound to a text, and must be the same to open it."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise KeyringError(f"a master key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher, self._name = AESGCM(key), hashlib.sha256(b"s4 master key" + key).digest()[:NAME_BYTES]
        self.open = lru_cache(maxsize=10_000)(self._open)

    def seal(self, text: str, about: str) -> str:
        nonce = os.urandom(NONCE_BYTES)  # random: far fewer than 2^32 texts are sealed under one key
        sealed = self._cipher.encrypt(nonce, text.encode(), about.encode())
        return PREFIX + base64.urlsafe_b64encode(self._name + nonce + sealed).decode().rstrip("=")

    def _open(self, text: str, about: str) -> str:
        """Raises KeyringError for what this key did not seal."""
        try:
            raw = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "==")
        except (binascii.Error, ValueError):
            raw = b""
        if raw[:NAME_BYTES] != self._name:
            raise KeyringError("this was sealed with another master key: give every process the cluster's own")
        nonce, sealed = raw[NAME_BYTES : NAME_BYTES + NONCE_BYTES], raw[NAME_BYTES + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, about.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise KeyringError("a sealed text is damaged, or belongs elsewhere") from error


def is_sealed(text: str) -> bool:
    return text.startswith(PREFIX)


def read(path: Path) -> Keyring:
    """The key of a file. Raises KeyringError."""
    try:
        return Keyring(base64.b64decode(path.read_bytes().strip(), validate=True))
    except OSError as error:
        raise KeyringError(f"the master key cannot be read: {error}") from error
    except binascii.Error as error:
        raise KeyringError(f"{path} holds no master key: it must be 32 bytes in base64") from error


def new() -> bytes:
    """A new key as it is kept in a file."""
    return base64.b64encode(os.urandom(KEY_BYTES)) + b"\n"
