"""Digests of bodies: MD5 for the ETag, SHA-256 for content, and the x-amz-checksum family.

Source: S3 User Guide, "Checking object integrity"; the names are those of S3's service model. Values are base64 of
big-endian bytes. A multipart checksum is COMPOSITE (the checksum of the parts' checksums, "-N" appended) or FULL_OBJECT
(of all bytes, combined from the parts' CRCs without reading them again; no hash can be combined so). Where a client
chooses none, the whole object's CRC64NVME is kept, as on S3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Protocol

import msgspec
import xxhash
from awscrt import checksums as awscrt
from crc32c import crc32c

from s4.s3 import hashing
from s4.s3.errors import S3Error
from s4.s3.hashing import BodyHash, Data

DIGEST_BYTES = {
    "CRC32": 4,
    "CRC32C": 4,
    "CRC64NVME": 8,
    "SHA1": 20,
    "SHA256": 32,
    "SHA512": 64,
    "MD5": 16,
    "XXHASH64": 8,
    "XXHASH3": 8,
    "XXHASH128": 16,
}
ALGORITHMS = tuple(DIGEST_BYTES)
DEFAULT = "CRC64NVME"  # kept where the client chooses none
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
HEADER = {algorithm: f"x-amz-checksum-{algorithm.lower()}" for algorithm in ALGORITHMS}
ALGORITHM_OF = {header: algorithm for algorithm, header in HEADER.items()}
_PREFIX = "x-amz-checksum-"
_NO_VALUES = {
    "x-amz-checksum-algorithm",
    "x-amz-checksum-mode",
    "x-amz-checksum-type",
}  # of that prefix, but no digests


class Hasher(Protocol):
    """Who decodes a body."""

    def hash_into(self, body: BodyHash, /) -> bool:
        """Hash what is handed out from now on. False where that is left to who takes it."""


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
    if algorithm == "SHA256":
        return hashlib.sha256()
    if algorithm == "SHA512":
        return hashlib.sha512()
    if algorithm == "XXHASH64":
        return xxhash.xxh64()
    if algorithm == "XXHASH3":
        return xxhash.xxh3_64()
    if algorithm == "XXHASH128":
        return xxhash.xxh3_128()
    return hashlib.new(algorithm, usedforsecurity=False)  # SHA1, MD5


@cache
def of_nothing(header: str) -> str:
    """What a checksum's header says of an empty body."""
    return base64.b64encode(new(ALGORITHM_OF[header]).digest()).decode()


class Expected(msgspec.Struct, frozen=True):
    """What a client says of its body: raw digests, None where it says nothing.

    `algorithm` is the checksum to compare; its value may come later, in a trailer. `keep` is the one to keep with the
    object, empty for the same.
    """

    md5: bytes | None = None
    sha256: bytes | None = None
    algorithm: str = ""
    checksum: bytes | None = None
    trailer: str = ""
    keep: str = ""

    @property
    def kept(self) -> str:
        return self.keep or self.algorithm

    @property
    def certain(self) -> bool:
        """Whether the client said what the body is."""
        return self.md5 is not None or self.sha256 is not None or self.checksum is not None or self.trailer != ""


class Digests:
    """All digests of one body, in one pass. Without `content` its SHA-256 is left out unless a checksum is that."""

    def __init__(self, expected: Expected, *, content: bool = True) -> None:
        self._expected, self._kept = expected, expected.kept
        wanted = {expected.algorithm, self._kept} - {""}
        self._hash, self._left = hashing.new(content=content or "SHA256" in wanted), False
        self._extra = {algorithm: new(algorithm) for algorithm in wanted if algorithm not in ("SHA256", "MD5")}
        self._updates = [digest.update for digest in self._extra.values()]
        self._told: dict[str, str] = {}
        self.size = 0

    def leave_to(self, decoder: Hasher) -> None:
        """MD5 and SHA-256 are left to who decodes the body where that hashes it too: all in one pass."""
        self._left = decoder.hash_into(self._hash)

    def update(self, data: Data) -> None:
        if not self._left:
            self._hash.update(data)
        for update in self._updates:
            update(data)
        self.size += len(data)

    def md5_hex(self) -> str:
        return self._hash.md5().hex()

    def sha256(self) -> bytes:
        return self._hash.sha256()

    def checksum(self) -> str:
        """base64 of the digest to keep, empty where none is. The body has ended."""
        return self._text(self._kept) if self._kept else ""

    def brought(self) -> str:
        """ALGORITHM:base64 of the checksum that was compared, where another is kept; else empty. The body has ended."""
        compared = self._expected.algorithm
        return f"{compared}:{self._text(compared)}" if compared not in ("", self._kept) else ""

    def _text(self, algorithm: str) -> str:
        if algorithm not in self._told:
            known = {"SHA256": self._hash.sha256, "MD5": self._hash.md5}
            digest = known[algorithm]() if algorithm in known else self._extra[algorithm].digest()
            self._told[algorithm] = base64.b64encode(digest).decode()
        return self._told[algorithm]

    def verify(self, trailers: dict[str, str]) -> None:
        """The body has ended. Raises S3Error where it is not what was announced."""
        expected = self._expected
        if expected.md5 is not None and expected.md5 != self._hash.md5():
            raise S3Error(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                ExpectedDigest=base64.b64encode(expected.md5).decode(),
                CalculatedDigest=self._text("MD5"),
            )
        if expected.sha256 is not None and expected.sha256 != self.sha256():
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=expected.sha256.hex(),
                S3ComputedContentSHA256=self.sha256().hex(),
            )
        wanted = expected.checksum
        if expected.trailer:
            if expected.trailer not in trailers:
                raise S3Error("MalformedTrailerError", "x-amz-trailer announces a trailer, and the body has none.")
            wanted = decode(expected.algorithm, trailers[expected.trailer])
        if wanted is not None and base64.b64encode(wanted).decode() != self._text(expected.algorithm):
            raise S3Error("BadDigest", f"The {expected.algorithm} you specified did not match the calculated checksum.")


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
        error = S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
        error.fields["Content-MD5"] = text
        raise error
    return raw


def expected_of(headers: dict[str, str], payload_hash: str) -> Expected:
    """What the headers of an upload say of its body. Raises S3Error.

    An algorithm that x-amz-checksum-algorithm names without a value is the one to keep.
    """
    md5 = decode_md5(headers["content-md5"]) if "content-md5" in headers else None
    sha256 = bytes.fromhex(payload_hash) if len(payload_hash) == 64 else None
    given = [name for name in headers if name.startswith(_PREFIX) and name not in _NO_VALUES]
    announced: list[str] = []
    if "x-amz-trailer" in headers:
        announced = [name.strip().lower() for name in headers["x-amz-trailer"].split(",") if name.strip()]
        if not ALGORITHM_OF.keys() >= set(announced):
            raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    for name in given:
        if name not in ALGORITHM_OF:
            raise S3Error("InvalidRequest", f"There is no checksum algorithm of the header {name}.")
    if len(given) + len(announced) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    named = asked_algorithm(headers, "x-amz-sdk-checksum-algorithm")
    keep = asked_algorithm(headers, "x-amz-checksum-algorithm")  # minio-go names it with a value, and may without
    if announced or given:
        header = (announced or given)[0]
        algorithm = ALGORITHM_OF[header]
        for what, one in (("sdk-", named), ("", keep)):
            if one not in ("", algorithm):
                raise S3Error("InvalidRequest", f"Value for x-amz-{what}checksum-algorithm header is invalid.")
        if announced:
            return Expected(md5, sha256, algorithm, None, header)
        return Expected(md5, sha256, algorithm, decode(algorithm, headers[header]))
    if named:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
        )
    return Expected(md5, sha256, keep=keep)


def check_whole(headers: Mapping[str, str]) -> None:
    """The checksum of what is written at once is one of all its bytes. Raises S3Error where another type is asked
    for."""
    if headers.get("x-amz-checksum-type", FULL_OBJECT).upper() != FULL_OBJECT:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")


def asked_algorithm(headers: dict[str, str], name: str) -> str:
    """The algorithm that a header names, empty where it is not there. Raises S3Error."""
    algorithm = headers.get(name, "").upper()
    if algorithm and algorithm not in ALGORITHMS:
        raise S3Error(
            "InvalidRequest",
            f"Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{', '.join(ALGORITHMS)}]",
        )
    return algorithm


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
        "CRC32": awscrt.combine_crc32,
        "CRC32C": awscrt.combine_crc32c,
        "CRC64NVME": awscrt.combine_crc64nvme,
    }
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
    if (kind == FULL_OBJECT and not algorithm.startswith("CRC")) or (kind == COMPOSITE and algorithm == "CRC64NVME"):
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return kind
