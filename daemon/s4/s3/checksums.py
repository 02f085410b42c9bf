"""Digests of bodies: MD5 for the ETag, SHA-256 for content, and the x-amz-checksum family.

Source: S3 User Guide, "Checking object integrity". Values are base64 of big-endian bytes. A multipart
checksum is COMPOSITE (the checksum of the parts' checksums, "-N" appended) or FULL_OBJECT (of all bytes,
combined from the parts' CRCs without reading them again).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
from awscrt import checksums as awscrt
from crc32c import crc32c

from s4.s3.errors import S3Error

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
HEADER = {algorithm: f"x-amz-checksum-{algorithm.lower()}" for algorithm in ALGORITHMS}
ALGORITHM_OF = {header: algorithm for algorithm, header in HEADER.items()}
DIGEST_BYTES = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
Data = bytes | bytearray | memoryview


class Digest(Protocol):
    def update(self, data: Data, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc:
    """A CRC with hashlib's face."""

    def __init__(self, function: Callable[[Data, int], int], size: int) -> None:
        self._function, self._size, self._value = function, size, 0

    def update(self, data: Data, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def new(algorithm: str) -> Digest:
    if algorithm == "CRC32":
        return Crc(zlib.crc32, 4)
    if algorithm == "CRC32C":
        return Crc(crc32c, 4)
    if algorithm == "CRC64NVME":
        return Crc(awscrt.crc64nvme, 8)
    return hashlib.sha1(usedforsecurity=False) if algorithm == "SHA1" else hashlib.sha256()


class Expected(msgspec.Struct, frozen=True):
    """What a client says of its body: raw digests, None where it says nothing.

    `algorithm` is the checksum to keep with the object; its value may come later, in a trailer.
    """

    md5: bytes | None = None
    sha256: bytes | None = None
    algorithm: str = ""
    checksum: bytes | None = None
    trailer: str = ""


class Digests:
    """All digests of one body, in one pass. Without `content` its SHA-256 is left out unless the algorithm is that."""

    def __init__(self, algorithm: str, *, content: bool = True) -> None:
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self._content = content or algorithm == "SHA256"
        self.algorithm = algorithm
        self._extra = new(algorithm) if algorithm and algorithm != "SHA256" else None
        self.size = 0

    def update(self, data: Data) -> None:
        self._md5.update(data)
        if self._content:
            self._sha256.update(data)
        if self._extra is not None:
            self._extra.update(data)
        self.size += len(data)

    def md5_hex(self) -> str:
        return self._md5.hexdigest()

    def sha256(self) -> bytes:
        return self._sha256.digest()

    def checksum(self) -> str:
        """base64 of the chosen algorithm's digest, empty where none was chosen."""
        if not self.algorithm:
            return ""
        raw = self._extra.digest() if self._extra is not None else self.sha256()
        return base64.b64encode(raw).decode()

    def verify(self, expected: Expected, trailers: dict[str, str]) -> None:
        """Raises S3Error where the body is not what was announced."""
        if expected.md5 is not None and expected.md5 != self._md5.digest():
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if expected.sha256 is not None and expected.sha256 != self.sha256():
            raise S3Error("XAmzContentSHA256Mismatch", ClientComputedContentSHA256=expected.sha256.hex(),
                          S3ComputedContentSHA256=self.sha256().hex())  # fmt: skip
        wanted = expected.checksum
        if expected.trailer:
            wanted = decode(self.algorithm, trailers.get(expected.trailer, ""))
        if wanted is not None and base64.b64encode(wanted).decode() != self.checksum():
            raise S3Error("BadDigest", f"The {self.algorithm} you specified did not match the calculated checksum.")


def decode(algorithm: str, text: str) -> bytes:
    """Raw digest of a header's value. Raises S3Error InvalidRequest."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != DIGEST_BYTES[algorithm]:
        raise S3Error("InvalidRequest", f"Value for {HEADER[algorithm]} header is invalid.")
    return raw


def decode_md5(text: str) -> bytes:
    """Raw digest of Content-MD5. Raises S3Error InvalidDigest."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return raw


def expected_of(headers: dict[str, str], payload_hash: str) -> Expected:
    """What the headers of an upload say of its body. Raises S3Error."""
    md5 = decode_md5(headers["content-md5"]) if "content-md5" in headers else None
    sha256 = bytes.fromhex(payload_hash) if len(payload_hash) == 64 else None
    given = [name for name in ALGORITHM_OF if name in headers]
    announced = [name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip()]
    unknown = [name for name in announced if name not in ALGORITHM_OF]
    if unknown:
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(given) + len(announced) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    named = headers.get("x-amz-sdk-checksum-algorithm", "").upper()
    if named and named not in ALGORITHMS:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    if announced:
        algorithm = ALGORITHM_OF[announced[0]]
        return Expected(md5, sha256, algorithm, None, announced[0])
    if given:
        algorithm = ALGORITHM_OF[given[0]]
        if named and named != algorithm:
            raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
        return Expected(md5, sha256, algorithm, decode(algorithm, headers[given[0]]))
    if named:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
        )
    return Expected(md5, sha256)


def multipart_etag(parts: Iterable[str]) -> str:
    """md5 of the parts' binary MD5s, "-", their number."""
    listed = list(parts)
    joined = b"".join(bytes.fromhex(etag) for etag in listed)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(listed)}"


def composite(algorithm: str, parts: list[str]) -> str:
    digest = new(algorithm)
    digest.update(b"".join(base64.b64decode(part) for part in parts))
    return f"{base64.b64encode(digest.digest()).decode()}-{len(parts)}"


def full_object(algorithm: str, parts: list[tuple[str, int]]) -> str:
    """The CRC of all bytes from (CRC, size in bytes) of each part."""
    combine: dict[str, Callable[[int, int, int], int]] = {
        "CRC32": awscrt.combine_crc32, "CRC32C": awscrt.combine_crc32c, "CRC64NVME": awscrt.combine_crc64nvme,
    }  # fmt: skip
    total = 0
    for index, (text, size) in enumerate(parts):
        value = int.from_bytes(base64.b64decode(text), "big")
        total = value if index == 0 else combine[algorithm](total, value, size)
    return base64.b64encode(total.to_bytes(DIGEST_BYTES[algorithm], "big")).decode()


def default_type(algorithm: str) -> str:
    """The type of a multipart upload's checksum where the client names none."""
    return FULL_OBJECT if algorithm == "CRC64NVME" else COMPOSITE


def check_type(algorithm: str, kind: str) -> str:
    """The checksum type of a multipart upload. Raises S3Error where S3 does not have the pair."""
    if not kind:
        return default_type(algorithm) if algorithm else ""
    if kind not in (COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if not algorithm:
        raise S3Error(
            "InvalidRequest",
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
        )
    if (kind == FULL_OBJECT and algorithm.startswith("SHA")) or (kind == COMPOSITE and algorithm == "CRC64NVME"):
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return kind
