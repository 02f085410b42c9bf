"""Server-side encryption as requests and answers write it. Pure. Source: API: PutObject, PutBucketEncryption; S3 user
guide, "Using server-side encryption with customer-provided keys"."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping

import msgspec

from s4.metadata.rows import Sealing
from s4.s3.errors import S3Error
from s4.s3.xml import Element, tag

SSE_S3, SSE_KMS, SSE_C = "AES256", "aws:kms", "SSE-C"
MODE = "x-amz-server-side-encryption"
KMS_KEY, CONTEXT, BUCKET_KEY = f"{MODE}-aws-kms-key-id", f"{MODE}-context", f"{MODE}-bucket-key-enabled"
CUSTOMER, SOURCE = f"{MODE}-customer-", "x-amz-copy-source-server-side-encryption-customer-"
_CUSTOMERS = frozenset(prefix + name for prefix in (CUSTOMER, SOURCE) for name in ("algorithm", "key", "key-md5"))
ASKED = frozenset((MODE, KMS_KEY, CONTEXT, BUCKET_KEY, *(name for name in _CUSTOMERS if name.startswith(CUSTOMER))))
KNOWN = ASKED | _CUSTOMERS
CONTEXT_BYTES = 2048


class Wanted(msgspec.Struct, frozen=True):
    """How something is to be encrypted. `key` names a key of the KMS, empty for its own choice; `customer` is a key."""

    mode: str
    key: str = ""
    context: str = ""
    bucket_key: bool = False
    customer: bytes = b""


class Default(msgspec.Struct, frozen=True):
    """A bucket's default."""

    mode: str
    key: str = ""
    bucket_key: bool = False


def from_headers(headers: Mapping[str, str]) -> Wanted | None:
    """What a write asks for, None where it leaves that to its bucket. Raises S3Error."""
    if ASKED.isdisjoint(headers):
        return None
    mode, customer = headers.get(MODE, ""), customer_key(headers)
    if customer:
        if mode:
            raise S3Error(
                "InvalidArgument",
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
                ArgumentName=MODE,
                ArgumentValue=mode,
            )
        return Wanted(SSE_C, customer=customer)
    if mode == "aws:kms:dsse":
        raise S3Error("NotImplemented", "S4 encrypts once: ask for aws:kms.")
    if mode not in (SSE_S3, SSE_KMS, ""):
        raise S3Error(
            "InvalidArgument",
            "The encryption method specified is not supported",
            ArgumentName=MODE,
            ArgumentValue=mode,
        )
    if mode != SSE_KMS and (KMS_KEY in headers or CONTEXT in headers):
        raise S3Error(
            "InvalidArgument",
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
            ArgumentName=MODE,
        )
    if not mode:
        return None
    bucket_key = headers.get(BUCKET_KEY, "").lower() == "true" and mode == SSE_KMS
    return Wanted(mode, key_name(headers.get(KMS_KEY, "")), _context(headers.get(CONTEXT, "")), bucket_key)


def agree(sealing: Sealing | None, headers: Mapping[str, str]) -> None:
    """What a later request of an upload says of its encryption is how the upload was begun. Raises S3Error."""
    held = sealing or Sealing("", "")
    told = {
        MODE: held.mode,
        KMS_KEY: held.key,
        CONTEXT: held.context,
        BUCKET_KEY: str(held.bucket_key).lower(),
    }
    for name, value in told.items():
        given = headers.get(name)
        if (
            given is not None
            and (key_name(given) if name == KMS_KEY else given.lower() if name == BUCKET_KEY else given) != value
        ):
            raise S3Error(
                "InvalidArgument",
                f"{name} is not what the upload was begun with.",
                ArgumentName=name,
                ArgumentValue=given,
            )


def key_name(text: str) -> str:
    """The name of a key of the KMS, however it is written: plain, as an alias or as an ARN. Raises S3Error."""
    name = text.rpartition("/")[2] if text.startswith(("arn:", "alias/")) else text
    # It is a piece of a path for Vault, where the HTTP client would take `.` and `..` away, and something else stand
    # there.
    if (text and not name) or not name.isprintable() or "/" in name or len(name) > 255 or name in (".", ".."):
        raise S3Error("KMS.NotFoundException", f"Invalid keyId {text!r}")
    return name


def _context(text: str) -> str:
    if not text:
        return ""
    try:
        found = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        found = None
    texts = isinstance(found, dict) and all(isinstance(one, str) for one in found.values())
    if not texts or len(text) > CONTEXT_BYTES:
        raise S3Error(
            "InvalidArgument",
            "The header 'x-amz-server-side-encryption-context' shall be base64-encoded UTF-8 string holding JSON which represents a string-string map",
            ArgumentName=CONTEXT,
        )
    return text


def customer_key(headers: Mapping[str, str], prefix: str = CUSTOMER) -> bytes:
    """The key of 32 bytes that a request brings, empty where it brings none. Raises S3Error."""
    algorithm, text, md5 = (headers.get(prefix + name) for name in ("algorithm", "key", "key-md5"))
    if algorithm is None and text is None and md5 is None:
        return b""
    lacking = {
        "a valid encryption algorithm": algorithm,
        "an appropriate secret key": text,
        "the client calculated MD5 of the secret key": md5,
    }
    for what, given in lacking.items():
        if not given:
            raise S3Error(
                "InvalidArgument",
                f"Requests specifying Server Side Encryption with Customer provided keys must provide {what}.",
                ArgumentName=prefix + "algorithm",
            )
    if algorithm != "AES256":
        raise S3Error("InvalidEncryptionAlgorithmError", ArgumentName=prefix + "algorithm")
    try:
        key = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise S3Error(
            "InvalidArgument",
            "The secret key was invalid for the specified algorithm.",
            ArgumentName=prefix + "key",
        )
    if _md5(key) != md5:
        raise S3Error(
            "InvalidArgument",
            "The calculated MD5 hash of the key did not match the hash that was provided.",
            ArgumentName=prefix + "key-md5",
        )
    return key


def _md5(key: bytes) -> str:
    return base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()


def shown(sealing: Sealing | None, headers: Mapping[str, str]) -> dict[str, str]:
    """What an answer says of how its object is encrypted; `headers` are the request's."""
    if sealing is None:
        return {}
    if sealing.mode == SSE_C:
        md5 = headers.get(CUSTOMER + "key-md5")
        return {CUSTOMER + "algorithm": "AES256", **({CUSTOMER + "key-MD5": md5} if md5 else {})}
    found = {MODE: sealing.mode}
    if sealing.mode == SSE_KMS:
        found[KMS_KEY] = sealing.key
        if sealing.bucket_key:
            found[BUCKET_KEY] = "true"
    return found


# -- a bucket's default


def default_from_xml(root: Element) -> Default:
    """Raises S3Error."""
    rules = list(root.all("Rule"))
    if len(rules) != 1 or len(root.children) != 1:
        raise S3Error("MalformedXML")
    names = [child.name for child in rules[0].children]
    if "BlockedEncryptionTypes" in names:
        raise S3Error("NotImplemented", "S4 blocks no kind of encryption: a bucket policy can deny it.")
    applied = list(rules[0].all("ApplyServerSideEncryptionByDefault"))
    if len(applied) != 1 or not {"ApplyServerSideEncryptionByDefault", "BucketKeyEnabled"}.issuperset(names):
        raise S3Error("MalformedXML")
    mode, key = applied[0].get("SSEAlgorithm"), applied[0].get("KMSMasterKeyID") or ""
    if mode == "aws:kms:dsse":
        raise S3Error("NotImplemented", "S4 encrypts once: ask for aws:kms.")
    if mode not in (SSE_S3, SSE_KMS):
        raise S3Error("MalformedXML")
    if key and mode != SSE_KMS:
        raise S3Error(
            "InvalidArgument", "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms"
        )
    return Default(mode, key_name(key), rules[0].truth("BucketKeyEnabled"))


def default_to_xml(default: Default) -> str:
    key = tag("KMSMasterKeyID", default.key) if default.key else ""
    applied = tag("SSEAlgorithm", default.mode) + key
    return (
        f"<Rule><ApplyServerSideEncryptionByDefault>{applied}</ApplyServerSideEncryptionByDefault>"
        f"{tag('BucketKeyEnabled', str(default.bucket_key).lower())}</Rule>"
    )
