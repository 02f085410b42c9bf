"""A text sealed with a passphrase: what `s4 admin backup-keys` writes and `restore-keys` reads. Values in, values out.

    s4 keys 1
    {"n":65536,"nonce":"…","p":1,"r":8,"salt":"…"}
    base64 of the sealed text, in lines
    crc32c 0123abcd

AES-256-GCM under a key that scrypt (RFC 7914) makes of the passphrase; the first two lines are bound to it. The last
line is of all before it, and tells damage from a wrong passphrase. White space around lines does not count: it goes
through terminals and mail. Format 1 stays readable for good; what changes is a new number in the first line.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import textwrap

import msgspec
from crc32c import crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from s4.base.said import SaidError

FORMAT = 1
LEAST = 12  # characters of a passphrase
N, R, P = 1 << 16, 8, 1  # 64 MiB and a fifth of a second for each try
MOST_N, MOST_R, MOST_P = 1 << 20, 16, 16  # that a file may ask of us


class BackupError(SaidError):
    """A backup cannot be made or opened; the message says why."""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    n: int
    nonce: bytes
    p: int
    r: int
    salt: bytes


def check_passphrase(passphrase: str) -> str:
    """Raises BackupError for one that is too short."""
    if len(passphrase) < LEAST:
        raise BackupError(
            f"the passphrase has {len(passphrase)} characters: give at least {LEAST}, for it guards every key"
        )
    return passphrase


def seal(text: bytes, passphrase: str, n: int = N) -> str:
    """Raises BackupError."""
    header = _Header(n, os.urandom(12), P, R, os.urandom(16))
    first = f"s4 keys {FORMAT}\n{msgspec.json.encode(header, order='sorted').decode()}\n"
    sealed = _cipher(header, check_passphrase(passphrase)).encrypt(header.nonce, text, first.encode())
    whole = first + "\n".join(textwrap.wrap(base64.b64encode(sealed).decode(), 76)) + "\n"
    return f"{whole}crc32c {crc32c(whole.encode()):08x}\n"


def unseal(sealed: str, passphrase: str) -> bytes:
    """Raises BackupError for what is none, is of a newer format, is damaged, or has another passphrase."""
    lines = [line.strip() for line in sealed.strip().splitlines()]
    named = re.fullmatch(r"s4 keys (\d+)", lines[0]) if lines else None
    if named is None:
        raise BackupError("this is no backup of keys: such a file begins with a line `s4 keys`")
    if int(named[1]) != FORMAT:
        raise BackupError(
            f"this backup has format {named[1]}, and this S4 knows {FORMAT}: use the S4 that made it, or a newer one"
        )
    whole = "".join(f"{line}\n" for line in lines[:-1])
    if len(lines) < 4 or lines[-1] != f"crc32c {crc32c(whole.encode()):08x}":
        raise BackupError("this backup of keys is damaged or not whole: use another copy of it")
    try:
        header = msgspec.json.decode(lines[1], type=_Header)
        content = base64.b64decode("".join(lines[2:-1]), validate=True)
        if not (
            1 < header.n <= MOST_N and 0 < header.r <= MOST_R and 0 < header.p <= MOST_P and len(header.nonce) == 12
        ):
            raise ValueError
        cipher = _cipher(header, passphrase)
    except (ValueError, binascii.Error) as error:
        raise BackupError("this backup of keys is damaged: what it says of its passphrase cannot be") from error
    try:
        return cipher.decrypt(header.nonce, content, f"{lines[0]}\n{lines[1]}\n".encode())
    except InvalidTag:
        raise BackupError("the passphrase is not that of this backup") from None


def _cipher(header: _Header, passphrase: str) -> AESGCM:
    return AESGCM(Scrypt(salt=header.salt, length=32, n=header.n, r=header.r, p=header.p).derive(passphrase.encode()))
