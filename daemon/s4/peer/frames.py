"""The frames of the peer protocol, version 1.

    frame = header length (4), payload length (4), header (msgpack), payload (raw)          little-endian

A call's header is [id, incarnation, method, 0, arguments, patience], an answer's [id, incarnation, "", outcome, value].
`METHODS` is derived from the annotations of `peer.api.NodeApi`: the interface is the wire format. Bulk bytes are the
raw payload. Id 0 is the server's own word: settings changed, forget what you cached.

A connection begins with HELLO, which names the versions that the caller speaks, its cluster and the store that it
means; the answer is WELCOME with the newest version that both speak and the process's incarnation (rule D2), or a
refusal that says why. Fields are only added, at the end of arrays, where an older reader passes over them; what an
older peer must understand differently is a new version. A release speaks its own version and the one before, so that
a rolling upgrade, which mixes two releases, never cuts a cluster in half.

Version 2 knows rows of blobs that have their bytes, and `find_whole` (metadata/small.py); and `discard_all`.
"""

from __future__ import annotations

import inspect
import struct
import typing
from dataclasses import dataclass
from typing import Any

import msgspec

from s4.peer.api import ForgottenError, NodeApi, StaleError, UnavailableError, UnknownResultError
from s4.storage.records import DamagedError, DiskFullError, OfflineError

LENGTHS = struct.Struct("<II")
MAX_HEADER = 64 << 20
MAX_PAYLOAD = 16 << 20
OK, FAILED = 0, 1
INVALIDATE = "invalidate"
BEACON, HELLO, ACK = "beacon", "hello", "ack"
VERSIONS = (1, 2)  # the least and the most that this release speaks

encode = msgspec.msgpack.Encoder().encode


class Header(msgspec.Struct, array_like=True):
    """A call or an answer. `name` is the method, or empty in answers; `value` is decoded by the method's types.

    `patience_ms` is how long the caller waits for an answer; 0 where it did not say. `trace` is its traceparent.
    """

    id: int
    incarnation: int
    name: str
    outcome: int
    value: msgspec.Raw
    patience_ms: int = 0
    trace: str = ""


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """`store` is the id of the store that is meant, `caller` the caller's own or a gateway's name: whoever calls again
    under it reads nothing any more that it read through an earlier connection of another process."""

    least: int
    most: int
    cluster: str
    store: str
    caller: str = ""


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    version: int
    incarnation: int


class Failure(msgspec.Struct, array_like=True):
    kind: str
    code: str
    message: str
    before_ms: int = 0  # of kind "forgotten"


# What a method raises, the special before the general, and the S3 error of who cannot tell more of it.
_KINDS: dict[str, tuple[type[Exception], str]] = {
    "stale": (StaleError, "ServiceUnavailable"),
    "forgotten": (ForgottenError, "ServiceUnavailable"),
    "unknown": (UnknownResultError, "ServiceUnavailable"),
    "full": (DiskFullError, "StorageFull"),
    "offline": (OfflineError, "InternalError"),
    "damaged": (DamagedError, "InternalError"),
}
FAILURES: tuple[type[Exception], ...] = (UnavailableError, *(kind for kind, _ in _KINDS.values()))


def failure_of(error: Exception) -> Failure:
    """Of one of `FAILURES`."""
    if isinstance(error, UnavailableError):
        return Failure("unavailable", error.code, error.message)
    name, code = next((name, code) for name, (kind, code) in _KINDS.items() if isinstance(error, kind))
    return Failure(name, code, str(error), error.before_ms if isinstance(error, ForgottenError) else 0)


def error_of(failure: Failure) -> Exception:
    if failure.kind == "forgotten":
        return ForgottenError(failure.message, failure.before_ms)
    if failure.kind in _KINDS:
        return _KINDS[failure.kind][0](failure.message)
    return UnavailableError(failure.code, failure.message)


@dataclass(frozen=True, slots=True)
class Method:
    """How one method's arguments and result are decoded."""

    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[Any]
    payload_at: int | None
    raw_result: bool
    defaults: tuple[Any, ...]  # of the last arguments, payload aside
    count: int

    def whole(self, arguments: list[Any]) -> list[Any]:
        """The arguments with the defaults of those that were left out."""
        missing = self.count - len(arguments)
        return [*arguments, *self.defaults[len(self.defaults) - missing :]] if missing else arguments


def _method(function: Any) -> Method:
    hints = typing.get_type_hints(function)
    result = hints.pop("return")
    names = list(hints)
    payload_at = names.index("payload") if "payload" in names else None
    types = tuple(hints[name] for name in names if name != "payload")
    raw = result is memoryview
    return Method(
        msgspec.msgpack.Decoder(tuple[types]),  # type: ignore[valid-type]
        msgspec.msgpack.Decoder(type(None) if raw else result),
        payload_at,
        raw,
        function.__defaults__ or (),
        len(types),
    )


METHODS = {name: _method(function) for name, function in inspect.getmembers(NodeApi, inspect.iscoroutinefunction)}
_header_decoder = msgspec.msgpack.Decoder(Header)


class FrameError(Exception):
    """The other side does not speak this protocol, or broke it."""


T = typing.TypeVar("T")
revision_decoder = msgspec.msgpack.Decoder(int)
age_decoder = msgspec.msgpack.Decoder(float)
lease_decoder = msgspec.msgpack.Decoder(bool)
hello_decoder = msgspec.msgpack.Decoder(Hello)
welcome_decoder = msgspec.msgpack.Decoder(Welcome)


def value_of(decoder: msgspec.msgpack.Decoder[T], raw: bytes | memoryview | msgspec.Raw) -> T:
    """Raises FrameError for what is no such value."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"a frame is damaged: {error}") from error


def sizes(raw: bytes | memoryview) -> tuple[int, int]:
    """Bytes of a frame's header and of its payload. Raises FrameError."""
    size, payload_size = LENGTHS.unpack(raw)
    if size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise FrameError(f"a frame of {size}+{payload_size} bytes is too large")
    return size, payload_size


def header_of(raw: bytes | memoryview) -> Header:
    """It keeps `raw`. Raises FrameError."""
    return value_of(_header_decoder, raw)


def pack(header: Header, payload: bytes | memoryview = b"") -> list[bytes | memoryview]:
    raw = encode(header)
    if payload:
        return [LENGTHS.pack(len(raw), len(payload)) + raw, payload]
    return [LENGTHS.pack(len(raw), 0) + raw]


def agree(hello: Hello, versions: tuple[int, int] = VERSIONS) -> int:
    """The newest version that both speak. Raises FrameError that says who has to be upgraded."""
    least, most = max(hello.least, versions[0]), min(hello.most, versions[1])
    if least > most:
        raise FrameError(
            f"the caller speaks versions {hello.least} to {hello.most} of the peer protocol, this S4 {versions[0]} to "
            f"{versions[1]}: upgrade one release at a time"
        )
    return most
