"""What a cluster knows of its own keys, so that a process with others is told from one with the right ones. Pure.

A row of partition 0 has a part of the master key's hash, and of each root key that counts a salted hash which costs
time to guess at. While the root keys are changed two pairs count, and their secrets are kept as users' are: sealed by
the master key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

import msgspec

from s4.metadata import keys
from s4.metadata.rows import decode

ROW = keys.named_row(keys.MARKS, "keys")


class Root(msgspec.Struct, array_like=True, frozen=True):
    """A pair of root keys that counts. `kept` is its secret as it is stored, empty unless another pair counts too."""

    access_key: str
    salt: bytes
    digest: bytes
    kept: str = ""


class KeyMarks(msgspec.Struct, array_like=True, frozen=True):
    """`master` names the current master key; empty where secrets are not sealed."""

    master: str
    roots: list[Root] = []


def marked(access_key: str, secret: str, kept: str = "") -> Root:
    salt = os.urandom(16)
    return Root(access_key, salt, _digest(secret, salt), kept)


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=1 << 13, r=8, p=1, dklen=32)


def read(value: bytes | None) -> KeyMarks | None:
    return decode(KeyMarks, value) if value is not None else None


def kept_root(value: bytes | None, access_key: str) -> str | None:
    """The stored secret of a pair of root keys that this process may not have itself."""
    marks = read(value)
    found = next((one.kept for one in marks.roots if one.access_key == access_key), "") if marks is not None else ""
    return found or None


def wrong(marks: KeyMarks, masters: Sequence[str], root: tuple[str, str] | None) -> str:
    """Why a process with these keys must not serve; empty where they are its cluster's. `root` None: it has none of
    its own."""
    if marks.master and marks.master not in masters:
        have = "has none" if not masters else "has another one"
        return f"the master key is not this cluster's: it seals with key {marks.master}, and this process {have}; give it the cluster's with --master-key"
    if root is None or not marks.roots:
        return ""
    for one in marks.roots:
        if one.access_key == root[0] and hmac.compare_digest(one.digest, _digest(root[1], one.salt)):
            return ""
    return "the root keys are not this cluster's: give this process the S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY of the others"
