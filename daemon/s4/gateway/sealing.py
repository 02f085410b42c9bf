"""Keys of objects: each encrypted object has one of its own, made here, and kept wrapped in its row.

What wraps it is the master key (SSE-S3), a key of the KMS (SSE-KMS) or the key that the client brings (SSE-C) and that
is forgotten with the request. A wrapped key is bound to its bucket and its mode, not to its object's name: a rename
moves rows, and has no customer's key. Copies between encrypted objects share the bytes and wrap the key anew.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from s4.access import documents
from s4.access.patterns import matches
from s4.crypto.keyring import Keyring, KeyringError
from s4.crypto.kms import Kms, KmsError
from s4.crypto.segments import KEY_BYTES
from s4.gateway.context import Gateway
from s4.metadata.rows import Bucket, Sealing
from s4.s3.encryption import SSE_C, SSE_KMS, SSE_S3, Wanted
from s4.s3.errors import S3Error


@dataclass(frozen=True, slots=True)
class Seal:
    """How new bytes are encrypted: their object's key, and the row's note of it."""

    key: bytes
    sealing: Sealing

    @property
    def md5_etag(self) -> bool:
        """Whether an ETag may tell the MD5 of the content, as S3's does for this mode only."""
        return self.sealing.mode == SSE_S3


def wanted_in(bucket: Bucket, asked: Wanted | None) -> Wanted | None:
    """What a write gets: what it asks for, or what its bucket says. Raises S3Error where that cannot be read."""
    if asked is not None:
        return asked
    default = documents.encryption_of(bucket)
    return Wanted(default.mode, default.key, bucket_key=default.bucket_key) if default is not None else None


def kms_key(gateway: Gateway, bucket_name: str, named: str) -> str:
    """The KMS's key that a bucket may use: the one that is named, or the KMS's own choice. Raises S3Error."""
    key, allowed = named or kms_of(gateway).default, gateway.kms_allowed
    if allowed is not None and not any(matches(pattern, bucket_name) for pattern in allowed.get(key, ())):
        raise S3Error("AccessDenied", f"The key {key!r} is not one that this bucket may use (--kms-allow).")
    return key


async def new_seal(
    gateway: Gateway, bucket_name: str, bucket: Bucket, wanted: Wanted | None, key: bytes = b""
) -> Seal | None:
    """A seal under a new key, or under `key`, that of the bytes which a copy shares. Raises S3Error."""
    if wanted is None:
        return None
    key = key or gateway.random(KEY_BYTES)
    name = kms_key(gateway, bucket_name, wanted.key) if wanted.mode == SSE_KMS else ""
    empty = Sealing(wanted.mode, "", name, wanted.context, wanted.bucket_key)
    return Seal(key, await wrapped(gateway, bucket.id, empty, key, wanted.customer))


async def wrapped(gateway: Gateway, bucket: int, sealing: Sealing, key: bytes, customer: bytes = b"") -> Sealing:
    """`sealing` with the key wrapped anew. Raises S3Error."""
    text, about = base64.b64encode(key).decode(), _about(bucket, sealing)
    if sealing.mode == SSE_C:
        done = Keyring(customer).seal(text, about)
    elif sealing.mode == SSE_S3:
        done = keyring_of(gateway).seal(text, about)
    else:
        try:
            done = await kms_of(gateway).wrap(sealing.key, key, about)
        except KmsError as error:
            raise _said(error) from error
    return Sealing(sealing.mode, done, sealing.key, sealing.context, sealing.bucket_key)


async def unwrap(gateway: Gateway, bucket: int, sealing: Sealing | None, customer: bytes) -> bytes:
    """The key of an object or upload, empty where it is not encrypted. Raises S3Error."""
    if sealing is None or sealing.mode != SSE_C:
        if customer:
            raise S3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")
        if sealing is None:
            return b""
    elif not customer:
        raise S3Error(
            "InvalidRequest",
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
        )
    about = _about(bucket, sealing)
    if sealing.mode == SSE_KMS:
        try:
            return await kms_of(gateway).unwrap(sealing.key, sealing.wrapped, about)
        except KmsError as error:
            raise _said(error) from error
    try:
        ring = Keyring(customer) if sealing.mode == SSE_C else keyring_of(gateway)
        return base64.b64decode(ring.open(sealing.wrapped, about))
    except KeyringError as error:
        if sealing.mode == SSE_C:
            raise S3Error("AccessDenied") from error
        raise S3Error("InternalError", f"The key of this object cannot be read: {error}.") from error


def _about(bucket: int, sealing: Sealing) -> str:
    return f"{bucket}:{sealing.mode}:{sealing.context}"


def _said(error: KmsError) -> S3Error:
    return S3Error(
        error.code, error.message, headers={"Retry-After": "1"} if error.code == "ServiceUnavailable" else None
    )


def keyring_of(gateway: Gateway) -> Keyring:
    """Raises S3Error where this process has no master key."""
    if gateway.keyring is None:
        raise S3Error("NotImplemented", "This S4 cannot encrypt: start every process with --master-key.")
    return gateway.keyring


def kms_of(gateway: Gateway) -> Kms:
    """Raises S3Error where this process has no KMS."""
    if gateway.kms is None:
        raise S3Error("NotImplemented", "This S4 has no KMS: start every process with --kms.")
    return gateway.kms
