"""What the fuzzer drives: each target takes any bytes and fails where a promise about hostile input is broken.

A target is a context manager that gives a function of bytes. The function raises nothing for input that is
refused the way the product refuses it, and AssertionError for everything else: an exception that would become
a 500, an answer from 500 up, bytes that are not those stored, a parser whose result depends on how the input was cut.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from fuzz import spoken
from fuzz.endpoint import REGION, Endpoint, endpoint
from s4.access import policy as policies
from s4.access.patterns import PolicyError
from s4.access.requester import SUPER_USER, parse_grant, policy_of, requester
from s4.cluster import shardmap
from s4.http.iam import tokens
from s4.http.iam.protocol import IamError
from s4.metadata import rows
from s4.peer import frames
from s4.peer.stream import FrameStream
from s4.s3 import checksums, chunked, conditions, names, postpolicy, ranges, sigv2, sigv4, xml
from s4.s3.errors import S3Error
from s4.storage.files import Files
from s4.storage.records import DamagedError, FormatError, Shard, pack_record, pack_volume, unpack_record, unpack_volume
from s4.storage.shards import ShardSettings, ShardStore

Target = Callable[[bytes], None]
STAMP = "20260101T000000Z"
NOW_S = 1767225600.0
POLICY_ASKS = [
    policies.Ask(
        policies.Asker(arns),
        action,
        "arn:aws:s3:::photos/a*b",
        {"aws:sourceip": ("10.0.0.1",), "s3:prefix": ("home/",), "aws:currenttime": (str(NOW_S),)},
    )
    for arns in ((), ("arn:aws:iam::000000000000:user/ana",))
    for action in ("s3:GetObject", "s3:PutObject")
]


@contextmanager
def refused() -> Iterator[None]:
    """What S4 refuses is refused as a client's error."""
    try:
        yield
    except S3Error as error:
        assert error.status < 500, f"answered {error.status} {error.code}"
        assert error.xml("/", "id").decode()


def lines_of(data: bytes) -> tuple[list[str], bytes]:
    """Header lines as a server gives them (what is no UTF-8 as surrogates), and the rest after an empty line."""
    head, _, rest = data.partition(b"\n\n")
    return [line.strip() for line in head.decode("utf-8", "surrogateescape").split("\n")], rest


@contextmanager
def sigv4_target() -> Iterator[Target]:
    """`METHOD /path?query`, header lines. Nothing that a fuzzer writes may pass for signed with this secret."""
    secret = hashlib.sha256(b"unguessable").hexdigest()

    def run(data: bytes) -> None:
        (first, *lines), _ = lines_of(data)
        method, _, target = first.partition(" ")
        path, _, query = target.partition("?")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        with refused():
            request = sigv4.Request(method, path, sigv4.parse_query(query), headers)
            try:
                claim = sigv4.parse(request)
            except sigv4.OldSignatureError:
                old = sigv2.parse(request, "", "all", "us-east-1")
                sigv2.check(old, secret, NOW_S, 900, 604_800)
                raise AssertionError("a forged signature of version 2 was taken") from None
            if claim is not None:
                sigv4.check(claim, request, secret, "us-east-1", NOW_S, 900, 604_800)
                raise AssertionError("a forged signature was taken")

    yield run


@contextmanager
def chunked_target() -> Iterator[Target]:
    """Two bytes of settings and a body: the same outcome whole as cut anywhere, and never more than was declared."""
    key, trailers = b"k" * 32, ("x-amz-checksum-crc32",)
    claim = sigv4.Claim("a", STAMP[:8], "us-east-1", STAMP, ("host",), "0" * 64, sigv4.STREAMING, presigned=False)

    def outcome(settings: int, length: int, body: bytes, step: int) -> tuple[bytes, str, bool]:
        signer = sigv4.ChunkSigner(key, claim) if settings & 1 else None
        decoder = chunked.ChunkedDecoder(length, signer, trailers if settings & 2 else (), bool(settings & 4))
        payload, code = b"", ""
        try:
            for at in range(0, len(body), step):
                payload += b"".join(decoder.feed(body[at : at + step]))
        except S3Error as error:
            assert error.status < 500
            code = error.code
        assert len(payload) <= length
        assert not (settings & 1 and decoder.finished), "a forged chunk signature was taken"
        return payload, code, decoder.finished

    def run(data: bytes) -> None:
        if len(data) > 2:
            settings, length, body = data[0], data[1], data[2:]
            whole = outcome(settings, length, body, len(body))
            pieces = outcome(settings, length, body, 1 + settings // 8)
            assert whole[1:] == pieces[1:], "how the body was cut changed the outcome"
            assert whole[1] or whole[0] == pieces[0]

    yield run


@contextmanager
def xml_target() -> Iterator[Target]:
    """A tree within its bounds, or MalformedXML."""

    def run(data: bytes) -> None:
        with refused():
            stack = [(xml.parse(data, "Delete", 5), 1)]
            while stack:
                element, depth = stack.pop()
                assert depth <= 5
                stack += [(child, depth + 1) for child in element.children]

    yield run


@contextmanager
def headers_target() -> Iterator[Target]:
    """One byte of size, then lines: ranges inside the object; dates, ETags, checksums and numbers parsed or refused."""

    def run(data: bytes) -> None:
        size, (text, *rest) = data[0] if data else 0, lines_of(data[1:])[0]
        for parse in (ranges.parse, ranges.parse_copy):
            with refused():
                span = parse(text, size)
                assert span is None or (span[0] >= 0 < span[1] and span[0] + span[1] <= size)
        assert conditions.parse_date(text) is None or conditions.parse_date(text) is not None
        conditions.matches(text, "0" * 32)
        found = names.number(text, 0, 10_000)
        assert found is None or 0 <= found <= 10_000
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        with refused():
            checksums.Digests(checksums.expected_of(headers, sigv4.UNSIGNED))
        with refused():
            conditions.check_read(headers, "0" * 32, int(NOW_S * 1000))

    yield run


@contextmanager
def grants_target() -> Iterator[Target]:
    """`Role:pattern` and a bucket's name: decided, and never SuperUser by another role's pattern."""

    def run(data: bytes) -> None:
        (text, *rest), _ = lines_of(data)
        try:
            grant = parse_grant(text)
        except ValueError:
            return
        bucket = rest[0] if rest else "photos"
        who = requester("User", "u", ["arn:aws:iam::000000000000:user/u"], [policy_of(grant)])
        arn = f"arn:aws:s3:::{bucket}"
        asks = (
            ("s4:Admin", "*"),
            ("iam:CreateUser", "arn:aws:iam::000000000000:user/u"),
            ("s3:PutObject", arn),
            ("s3:GetObject", arn),
        )
        may = {action: who.allowed(policies.Ask(who.asker, action, resource)) for action, resource in asks}
        assert may["s4:Admin"] == may["iam:CreateUser"] == (grant.role == SUPER_USER)
        assert may["s3:GetObject"] or not may["s3:PutObject"]

    yield run


@contextmanager
def policies_target() -> Iterator[Target]:
    """Whatever is no policy is refused; what is one decides on anything."""

    def run(data: bytes) -> None:
        try:
            policy = policies.parse(data.decode("utf-8", "replace"), principals=True)
        except PolicyError:
            return
        for ask in POLICY_ASKS:
            assert policy.decide(ask) in ("Allow", "Deny", "")
        assert policy.public in (True, False)

    yield run


@contextmanager
def frames_target() -> Iterator[Target]:
    """A stream of peer frames: decoded, or the connection ends with FrameError."""

    async def read(data: bytes) -> None:
        stream, view = FrameStream(), memoryview(data)
        stream.connection_made(asyncio.Transport())
        while view:
            buffer = stream.get_buffer(-1)
            taken = min(len(buffer), len(view))
            buffer[:taken] = view[:taken]
            stream.buffer_updated(taken)
            view = view[taken:]
        stream.connection_lost(None)
        with contextlib.suppress(frames.FrameError, OSError):
            while True:
                header, _ = await stream.read()
                for decoder in (
                    frames.revision_decoder,
                    frames.age_decoder,
                    *(method.arguments for method in frames.METHODS.values()),
                ):
                    with contextlib.suppress(frames.FrameError):
                        frames.value_of(decoder, header.value)

    with asyncio.Runner() as runner:
        yield lambda data: runner.run(read(data))


@contextmanager
def rows_target() -> Iterator[Target]:
    """Any bytes as a row of any kind, and as a shard map: decoded, or refused as damaged."""
    kinds = [kind for kind in vars(rows).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]

    def run(data: bytes) -> None:
        for kind in kinds:
            with contextlib.suppress(rows.RowError):
                rows.decode(kind, data)
        for decode in (rows.decode_object, rows.decode_summary, rows.decode_action):
            with contextlib.suppress(rows.RowError):
                decode(data)
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            shardmap.decode(data)

    yield run


@contextmanager
def headers_of_volumes_target() -> Iterator[Target]:
    """Any bytes as a volume's and a record's header: FormatError, or values that written again read the same."""
    secret = b"s" * 16

    def run(data: bytes) -> None:
        with contextlib.suppress(FormatError):
            header = unpack_volume(data[:64])
            assert unpack_volume(pack_volume(header)) == header
        for at in (64, 4096):  # an aligned record is at the second only
            with contextlib.suppress(FormatError):
                record = unpack_record(data[:64], secret, at)
                assert unpack_record(pack_record(record, secret, at), secret, at) == record

    yield run


SHARDS = {
    number: hashlib.shake_128(bytes([number])).digest(size)
    for number, size in enumerate((1, 700, 4096, 65_536, 66_000, 5))
}


def _shard(number: int) -> Shard:
    return Shard(number % 2, bytes([number]) * 16, number % 3, 0)


@contextmanager
def volume_target() -> Iterator[Target]:
    """Edits (offset, length, bytes) of a volume, or a cut: the store opens, with its index and without; a shard
    read is the one that was written or damaged, never other bytes; a record that no edit touched is still found."""
    files, settings = Files(), ShardSettings(volume_bytes=1 << 20, preallocate_bytes=0, reserve_bytes=0, flush_s=3600)

    def die(error: BaseException) -> None:
        raise AssertionError("the store would have died") from error

    async def fill(path: Path) -> None:
        store = await ShardStore.open(files, path, bytes(16), settings, die)
        for number, body in SHARDS.items():
            await store.append(_shard(number), [body], sync=True)
        await store.close()

    async def check(path: Path, touched: bool) -> None:
        store = await ShardStore.open(files, path, bytes(16), settings, die)
        for number, body in SHARDS.items():
            try:
                assert await store.read(_shard(number), 0, len(body)) == body, "wrong bytes"
            except DamagedError:
                assert touched, "an untouched volume lost a shard"
        await store.append(_shard(0), [b"still writable"], sync=True)
        assert await store.read(_shard(0), 0, 14) == b"still writable"
        await store.close()

    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as scratch:
        pristine, work = Path(scratch) / "pristine", Path(scratch) / "work"
        pristine.mkdir()
        runner.run(fill(pristine))
        volume = next(path for path in pristine.rglob("*") if path.is_file() and path.read_bytes()[:8] == b"S4VOLUME")
        whole = volume.read_bytes()
        index = next(path.name for path in pristine.iterdir() if path.is_dir() and (path / "CURRENT").exists())

        def run(data: bytes) -> None:
            keep_index, edited = bool(data) and data[0] & 1, edit(whole, data[1:])
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(pristine, work)
            (work / volume.relative_to(pristine)).write_bytes(edited)
            if not keep_index:
                shutil.rmtree(work / index)
            runner.run(check(work, edited != whole))

        yield run


def edit(whole: bytes, edits: bytes) -> bytes:
    """Each edit is 3 bytes of offset and one of length, and that many bytes put there; length 0 cuts the file."""
    made = bytearray(whole)
    while len(edits) >= 4:
        offset, length = int.from_bytes(edits[:3], "big") % (len(whole) + 1), edits[3]
        piece, edits = edits[4 : 4 + length], edits[4 + length :]
        if length:
            made[offset : offset + len(piece)] = piece
        else:
            del made[offset:]
    return bytes(made)


@contextmanager
def post_policies_target() -> Iterator[Target]:
    """The JSON of a form's policy: read or refused; what it has no condition for is never let through."""

    def run(data: bytes) -> None:
        with refused():
            found = postpolicy.parse(base64.b64encode(data).decode())
            named = {one.field for one in found.conditions}
            found.check(
                {one.field: one.value for one in found.conditions} | {"bucket": "b", "not-named-by-anyone": ""}, NOW_S
            )
            raise AssertionError(f"a field that is not among {named} was let through")

    yield run


@contextmanager
def tokens_target() -> Iterator[Target]:
    """A web identity's token, as it is, and signed as head and claims on two lines: claims or a refusal."""
    signer = ec.derive_private_key(7, ec.SECP256R1())
    keys = (signer.public_key(), ec.derive_private_key(7, ec.SECP384R1()).public_key())

    def run(data: bytes) -> None:
        head, _, claims = data.partition(b"\n")
        covered = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims))
        signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(covered, signer)
        signed = covered + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
        for token in (data.decode("utf-8", "surrogateescape"), signed.decode()):
            with contextlib.suppress(IamError):
                issuer, _ = tokens.unverified(token)
                for key in keys:
                    with contextlib.suppress(IamError):
                        tokens.verified(token, key, ["s4"], issuer)

    yield run


@contextmanager
def request_target() -> Iterator[Target]:
    """One byte of signing mode, `METHOD /target`, header lines, a body (UPLOAD is a real upload's id): sent signed to
    a whole server. No 500, no hang, and no x-amz- name is passed over."""
    with serving() as (server, send):

        def run(data: bytes) -> None:
            if data:
                spoken.check(*_second(send, signed(server, data)))

        yield run


MODES = (sigv4.UNSIGNED, "", sigv4.STREAMING_UNSIGNED_TRAILER, sigv4.STREAMING)


def signed(server: Endpoint, data: bytes) -> tuple[bytes, list[str]]:
    """A request of `request_target` as it is sent, and the names that it says."""
    data = data.replace(b"UPLOAD", server.upload.encode())
    lines, body = lines_of(data[1:])
    method, _, target = lines[0].partition(" ")
    mode = MODES[data[0] % 4] or hashlib.sha256(body).hexdigest()
    headers = {"host": "localhost", "x-amz-date": STAMP, "x-amz-content-sha256": mode}
    for name, value in fields_of(lines[1:]):
        headers.setdefault(name, value)
    with contextlib.suppress(S3Error, UnicodeError):
        headers["authorization"] = sigv4.authorization(server.access, server.secret, REGION, method, target, headers)
    return spoken.head(method, target, headers, body), [*headers, *spoken.names_in(target)]


def fields_of(lines: list[str]) -> list[tuple[str, str]]:
    """`name: value` of each line that HTTP leaves to S3."""
    parted = (line.partition(":") for line in lines)
    return [
        (name.strip().lower(), value.strip())
        for name, _, value in parted
        if name.strip() and name.strip().lower() not in spoken.OURS
    ]


@contextmanager
def serving(*, tasks: bool = False) -> Iterator[tuple[Endpoint, Callable[[bytes], bytes]]]:
    """A whole server, and what sends it the bytes of a connection."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as scratch:
        loop = runner.get_loop()
        made = endpoint(Path(scratch), lambda: NOW_S, tasks=tasks)
        server = loop.run_until_complete(made.__aenter__())
        try:
            yield server, lambda sent: loop.run_until_complete(server.send(sent))
        finally:
            loop.run_until_complete(made.__aexit__(None, None, None))


@contextmanager
def presigned_target() -> Iterator[Target]:
    """`METHOD /path?query`, header lines, a body: sent as a presigned address. No 500, and no x-amz- name is passed
    over."""
    with serving() as (server, send):

        def run(data: bytes) -> None:
            lines, body = lines_of(data.replace(b"UPLOAD", server.upload.encode()))
            method, _, target = lines[0].partition(" ")
            if data:
                spoken.check(*_second(send, spoken.presigned(server, method, target, dict(fields_of(lines[1:])), body)))

        yield run


def _second(send: Callable[[bytes], bytes], said: tuple[bytes, list[str]]) -> tuple[bytes, list[str]]:
    return send(said[0]), said[1]


@contextmanager
def forms_target() -> Iterator[Target]:
    """One byte: odd, then `name: value` lines and a file, as a form whose policy covers them all; even, then the body
    of a form as it is. No 500, and no x-amz- field is passed over."""
    with serving() as (server, send):

        def run(data: bytes) -> None:
            if not data:
                return
            if data[0] % 2 == 0:
                spoken.check(send(spoken.upload(data[1:])), ())
                return
            lines, file = lines_of(data[1:])
            fields = [
                (name.strip(), value.strip())
                for name, _, value in (line.partition(":") for line in lines)
                if name.strip()
            ]
            spoken.check(send(spoken.form(server, fields, file)), [name for name, _ in fields])

        yield run


TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "sigv4": sigv4_target,
    "chunked": chunked_target,
    "xml": xml_target,
    "headers": headers_target,
    "grants": grants_target,
    "policies": policies_target,
    "frames": frames_target,
    "rows": rows_target,
    "volume-headers": headers_of_volumes_target,
    "volume": volume_target,
    "post-policies": post_policies_target,
    "tokens": tokens_target,
    "request": request_target,
    "presigned": presigned_target,
    "forms": forms_target,
}
