"""Row formats. A value is a version byte and a msgpack array; readers of all versions stand side by side.

Fields are only ever added at the end, with a default, so that older rows decode. More is a new version byte, a reader
here, and bytes in golden.json. An object row has inline bytes behind it: listings decode the front only. A blob's of
version 2 is like it, and has the blob's bytes (small.py).

    object row = version (1), length of the array (4, little-endian), array, inline bytes"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

VERSION = 1


class RowError(Exception):
    """A row cannot be read: damage, or a newer program wrote it."""


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """Base of all row formats: an array of fields in order."""


class Sealing(_Row, frozen=True):
    """How an object is encrypted, and its key, wrapped. `key` names the KMS's key, `context` is base64 as it came."""

    mode: str
    wrapped: str
    key: str = ""
    context: str = ""
    bucket_key: bool = False


class Extent(_Row, frozen=True):
    """A run of an object's bytes: a blob, or (blob empty) bytes that are inline behind the row. `size` is the client's;
    where there is a `seal` the bytes are encrypted, and more are stored (`s4.segments`)."""

    number: int
    size: int
    partition: int = 0
    blob: bytes = b""
    reference: bytes = b""
    etag: str = ""
    checksum: str = ""
    seal: bytes = b""


class Summary(_Row, frozen=True):
    """The front of an object row, all that listings need. Times are milliseconds since 1970."""

    modified_ms: int
    size: int
    etag: str
    marker: bool
    null: bool
    owner: str
    checksum_algorithm: str
    checksum_type: str


class Object(_Row, frozen=True):
    """One version of an object, or a delete marker. Starts with the fields of Summary."""

    modified_ms: int
    size: int
    etag: str
    marker: bool
    null: bool
    owner: str
    checksum_algorithm: str = ""
    checksum_type: str = ""
    checksum: str = ""
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    extents: list[Extent] = []
    upload: bytes = b""
    lock_mode: str = ""
    lock_until_ms: int = 0
    legal_hold: bool = False
    acl: str = ""
    sealing: Sealing | None = None
    hold_told: bool = False  # whether a legal hold was ever put, on or off


class Upload(_Row, frozen=True):
    """A multipart upload in progress."""

    created_ms: int
    owner: str
    checksum_algorithm: str = ""
    checksum_type: str = ""
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    acl: str = ""
    lock_mode: str = ""
    lock_until_ms: int = 0
    legal_hold: bool = False
    sealing: Sealing | None = None
    checksum_chosen: bool = True  # by the client; otherwise the default one is kept, and parts may bring others
    hold_told: bool = False  # as of an object


class Part(_Row, frozen=True):
    """An uploaded part. `brought`: the checksum that it came with where its upload keeps another, ALGORITHM:base64."""

    modified_ms: int
    extent: Extent
    inline: bytes = b""
    brought: str = ""


class Blob(_Row, frozen=True):
    """Bytes in shards, or in this row where k is 0. `missing` are the positions whose shard must be made again."""

    size: int
    stripe: int
    k: int
    m: int
    sha256: bytes
    created_ms: int
    missing: list[int] = []


class Gone(_Row, frozen=True):
    """What something that was removed holds still: references, as (partition, blob, reference); or the parts of an
    upload, `taken` where an object has what they held; or, with a bucket alone, the uploads of one that is closed."""

    held: list[tuple[int, bytes, bytes]] = []
    bucket: int = 0
    key: bytes = b""
    upload: bytes = b""
    taken: bool = False


class Event(_Row, frozen=True):
    """What happened, for a receiver that has not taken it yet. `rule` is the id of the rule that asked for it."""

    name: str
    rule: str
    bucket: str
    key: bytes
    version: str
    size: int
    etag: str
    time_ms: int
    user: str = ""
    address: str = ""
    request: str = ""


class Reference(_Row, frozen=True):
    """A use of a blob: the partition and the object or part that claims it."""

    partition: int
    bucket: int
    key: bytes
    upload: bytes
    created_ms: int


class Content(_Row, frozen=True):
    """Where content with this SHA-256 already is."""

    partition: int
    blob: bytes
    size: int


class Bucket(_Row, frozen=True):
    """A bucket. Its id is new at each creation. `versioning`: "", "Enabled" or "Suspended". `deleting` is the token of
    the deletion that is under way, `undoing` tells that it found the bucket in use. `documents` are settings that only
    gateways read, by name, each as text; `policy`, `lifecycle` and `cors` were never written."""

    id: int
    owner: str
    created_ms: int
    revision: int = 1
    versioning: str = ""
    deleting: bytes = b""
    policy: str = ""
    lifecycle: str = ""
    cors: str = ""
    lock: bool = False
    quota_bytes: int = 0
    undoing: bool = False
    documents: dict[str, str] = {}


class BucketState(_Row, frozen=True):
    """What a partition knows of a bucket: the settings' revision, the token of the deletion that closed it, and the
    last one that was undone here. Tokens rise."""

    revision: int
    versioning: str
    closed: bytes = b""
    reopened: bytes = b""


class User(_Row, frozen=True):
    """`inline` maps names to policy documents, `attached` are ARNs of managed policies, as in Group and Role."""

    name: str
    created_ms: int
    enabled: bool = True
    id: str = ""
    path: str = "/"
    tags: dict[str, str] = {}
    inline: dict[str, str] = {}
    attached: list[str] = []
    groups: list[str] = []
    boundary: str = ""
    canonical: str = ""  # of those of 0.7: made of the name
    rate: tuple[int, int] = (0, 0)  # requests and bytes a second; 0 where the general ones count


class Group(_Row, frozen=True):
    name: str
    created_ms: int
    id: str
    path: str = "/"
    inline: dict[str, str] = {}
    attached: list[str] = []


class Role(_Row, frozen=True):
    """`trust` is the document that says who may assume it."""

    name: str
    created_ms: int
    id: str
    path: str
    trust: str
    description: str = ""
    session_s: int = 3600
    tags: dict[str, str] = {}
    inline: dict[str, str] = {}
    attached: list[str] = []
    boundary: str = ""
    canonical: str = ""


class Managed(_Row, frozen=True):
    """A managed policy: its documents by version number, with the time of each; `default` counts, `last` was the
    highest number ever."""

    name: str
    created_ms: int
    id: str
    path: str
    versions: dict[int, tuple[str, int]]
    default: int = 1
    last: int = 1
    description: str = ""
    updated_ms: int = 0
    tags: dict[str, str] = {}


class Provider(_Row, frozen=True):
    """An OpenID Connect provider, whose tokens buy credentials: its issuer's URL is its name."""

    url: str
    created_ms: int
    clients: list[str] = []
    thumbprints: list[str] = []
    tags: dict[str, str] = {}
    keys: str = ""  # a JSON Web Key Set that an administrator gave: the issuer is asked for others only


class LastUse(_Row, frozen=True):
    """When an access key was last used, within a minute or so, and for what service."""

    used_ms: int
    service: str
    region: str


class AccessKey(_Row, frozen=True):
    user: str
    secret: str
    created_ms: int
    enabled: bool = True


class Grant(_Row, frozen=True):
    """A role (Reader, Writer, SuperUser) on the buckets whose names match a pattern with `*`."""

    role: str
    buckets: str = "*"


class Policy(_Row, frozen=True):
    """What one user may do."""

    grants: list[Grant]


class Job(_Row, frozen=True):
    """Long work that goes on after a restart: so far, the rename of a prefix."""

    bucket: str
    source: str
    destination: str
    created_ms: int
    cursor: bytes = b""
    done: int = 0
    finished: bool = False
    error: str = ""
    named_ms: int = 0  # the time in the ids of the commands that go on from here


class Counters(_Row, frozen=True):
    """Sums kept in the same batch as the rows they count. Per bucket, and per partition under bucket 0. `saved` are
    the sizes of the blobs that a bucket refers to, but for each blob's first reference: what it shares."""

    objects: int = 0
    bytes: int = 0
    blobs: int = 0
    references: int = 0
    blob_bytes: int = 0
    saved: int = 0


class Repaired(_Row, frozen=True):
    counters: bool = False  # of an older program, counted again (repairs.py)


def summed(found: Iterable[Counters]) -> Counters:
    return Counters(*map(sum, zip(*map(msgspec.structs.astuple, found), strict=True)))


class Head(_Row, frozen=True):
    """The newest entry of a partition that is in."""

    epoch: int
    sequence: int


class Turn(_Row, frozen=True):
    """The newest turn of the writer loop in this copy; `rows` is None where no other copy can need them."""

    number: int
    rows: list[tuple[bytes, bytes | None]] | None = None


class Heal(_Row, frozen=True):
    created_ms: int


class Answer(_Row, frozen=True):
    """What a repeated command is told (rule R12)."""

    created_ms: int
    answer: bytes


class Forgotten(_Row, frozen=True):
    """Answers to commands with ids from before this time were dropped: such a command is not decided any more (R12)."""

    before_ms: int


class Refused(_Row, frozen=True):
    created_ms: int


class Notify(_Row, frozen=True):
    """What events say besides what happened: the bucket's name and rules; who asked, from where, by which request."""

    bucket: str
    rules: str
    user: str = ""
    address: str = ""
    request: str = ""


class Action(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What an outbox row asks for. Every action is idempotent (rule C2)."""


class Dereference(Action, frozen=True):
    partition: int
    blob: bytes
    reference: bytes


class Publish(Action, frozen=True):
    sha256: bytes
    partition: int
    blob: bytes
    size: int


class Unpublish(Action, frozen=True):
    sha256: bytes
    blob: bytes


class FreeBlob(Action, frozen=True):
    """Shards of a blob that nothing refers to any more."""

    blob: bytes


class RemoveSource(Action, frozen=True):
    """The second half of a rename: delete the source, if its newest version is still that one. `at_ms` is when that was
    decided, 0 in rows of 0.7 and before."""

    bucket: int
    key: bytes
    version: str
    notify: Notify | None = None
    at_ms: int = 0


AnyAction = Dereference | Publish | Unpublish | FreeBlob | RemoveSource
R = TypeVar("R")

_encoder = msgspec.msgpack.Encoder()
_decoder: Callable[[Any], Any] = lru_cache(256)(msgspec.msgpack.Decoder)


def encode(row: msgspec.Struct) -> bytes:
    return b"\x01" + _encoder.encode(row)


def decode(kind: type[R], value: bytes) -> R:
    """Raises RowError."""
    if not value or value[0] != VERSION:
        if kind is Blob and value[:1] == b"\x02":
            return decode(kind, b"\x01" + value[5 : 5 + int.from_bytes(value[1:5], "little")])
        raise RowError(
            f"{getattr(kind, '__name__', kind)} row version {value[:1].hex() or 'none'} is not known to this S4"
        )
    try:
        row: R = _decoder(kind).decode(memoryview(value)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RowError(f"a {getattr(kind, '__name__', kind)} row is damaged: {error}") from error
    return row


def decode_action(value: bytes) -> AnyAction:
    return decode(AnyAction, value)  # type: ignore[arg-type]


def encode_object(row: Object, inline: bytes = b"") -> bytes:
    front = _encoder.encode(row)
    return b"\x01" + len(front).to_bytes(4, "little") + front + inline


def _front(value: bytes) -> tuple[memoryview, int]:
    if len(value) < 5 or value[0] != VERSION:
        raise RowError(f"object row version {value[:1].hex() or 'none'} is not known to this S4")
    end = 5 + int.from_bytes(value[1:5], "little")
    return memoryview(value)[5:end], end


_object_decoder = msgspec.msgpack.Decoder(Object)
_summary_decoder = msgspec.msgpack.Decoder(Summary)


LARGE, LARGEST_KEPT = 16 * 1024, 4 * 1024 * 1024  # of a row: of an object of hundreds of parts


def decode_object(value: bytes) -> tuple[Object, bytes]:
    """The row and its inline bytes. Raises RowError."""
    return _decode_large(value) if LARGE < len(value) <= LARGEST_KEPT else _decode_object(value)


def _decode_object(value: bytes) -> tuple[Object, bytes]:
    front, end = _front(value)
    try:
        return _object_decoder.decode(front), value[end:]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RowError(f"an object row is damaged: {error}") from error


# what is read is asked for again, and ten thousand parts take milliseconds each time
_decode_large = lru_cache(4)(_decode_object)


def decode_summary(value: bytes) -> Summary:
    """The part of an object row that listings need. Raises RowError."""
    return decode_listed(value, b"")[0]


def decode_listed(value: bytes, text: bytes) -> tuple[Summary, bool]:
    """`decode_summary`, and whether `text` stands in the row, inline bytes aside."""
    if value[:1] != b"\x01":
        _front(value)
    end = 5 + int.from_bytes(value[1:5], "little")
    try:
        return _summary_decoder.decode(memoryview(value)[5:end]), value.find(text, 5, end) >= 0
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RowError(f"an object row is damaged: {error}") from error
