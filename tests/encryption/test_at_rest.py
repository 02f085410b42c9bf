"""What encryption leaves on the disk: no content, no key; what damage does; and rotation of the keys that wrap."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from msgspec.structs import replace

import damage
from inprocess import Bytes, opened, verified
from process import ServerProcess, make_client
from s4.crypto.keyring import Keyring
from s4.crypto.kms import FileKms
from s4.gateway import accounts, buckets, copies, multipart, objects
from s4.gateway.accounts import Accounts
from s4.gateway.context import Gateway
from s4.gateway.copies import Copy
from s4.gateway.multipart import Completion, WantedPart
from s4.gateway.objects import Attributes
from s4.gateway.read import open_object, stream, unlock
from s4.metadata.rows import AccessKey, Object
from s4.node.local import OpenStore
from s4.peer.api import StaleError
from s4.s3.checksums import Expected
from s4.s3.encryption import SSE_C, SSE_KMS, SSE_S3, Wanted
from s4.s3.errors import S3Error
from s4.storage.records import DamagedError
from s4.upkeep.rewrap import Rewrapper

BUCKET, MASTER, CUSTOMER = "sealed", os.urandom(32), os.urandom(32)
MODES = {SSE_S3: Wanted(SSE_S3), SSE_KMS: Wanted(SSE_KMS), SSE_C: Wanted(SSE_C, customer=CUSTOMER)}
WORD = b"the quick brown fox "


def line(name: str, key: bytes) -> str:
    return f"{name}:{base64.b64encode(key).decode()}\n"


def run(
    directory: Path,
    test: Callable[[OpenStore, Gateway], Awaitable[None]],
    directories: Sequence[Path] = (),
    **more: Any,
) -> None:
    async def go() -> None:
        (directory / "kms").write_text(line("k", MASTER[::-1]))
        async with opened(directories or directory / "data", **more) as (store, gateway):
            gateway.keyring, gateway.kms = Keyring(MASTER), FileKms(directory / "kms")
            await buckets.create_bucket(gateway, BUCKET, "root")
            await test(store, gateway)

    asyncio.run(go())


async def put(gateway: Gateway, key: str, data: bytes, wanted: Wanted | None) -> None:
    await objects.put_object(
        gateway, BUCKET, key.encode(), Bytes(data), Expected(), Attributes(encryption=wanted), "root"
    )


async def content(gateway: Gateway, key: str, customer: bytes = b"") -> bytes:
    found = await open_object(gateway, BUCKET, key.encode(), "")
    await unlock(gateway, found, customer)
    return b"".join([bytes(piece) async for piece in stream(gateway, found, 0, found.row.size)])


async def part(gateway: Gateway, key: str, upload: str, number: int, data: bytes, customer: bytes) -> WantedPart:
    stored, _, _ = await multipart.put_part(
        gateway, BUCKET, key.encode(), upload, number, Bytes(data), Expected(), customer
    )
    return WantedPart(number, stored.etag, {})


async def fill(gateway: Gateway) -> dict[str, tuple[bytes, bytes]]:
    """Objects of all modes, inline, small, large, in parts and copied: key -> (content, customer's key)."""
    made = {}
    for mode, wanted in MODES.items():
        for size in (100, 5000, 300_000):
            made[f"{mode} {size}"] = (WORD * (size // 20), wanted.customer)
            await put(gateway, f"{mode} {size}", WORD * (size // 20), wanted)
        name = f"{mode} parts"
        upload, _ = await multipart.create_upload(
            gateway, BUCKET, name.encode(), Attributes(encryption=wanted), "root", "", ""
        )
        parts = [
            await part(gateway, name, upload, number, WORD * count, wanted.customer)
            for number, count in ((1, 300_000), (2, 3))
        ]
        await multipart.complete_upload(gateway, BUCKET, name.encode(), upload, Completion(parts))
        made[name] = (WORD * 300_003, wanted.customer)
        source = await open_object(gateway, BUCKET, f"{mode} 5000".encode(), "")
        await unlock(gateway, source, wanted.customer)
        await copies.copy_object(
            gateway, source, Copy(BUCKET, f"{mode} copy".encode(), "root", encryption=MODES[SSE_S3])
        )
        made[f"{mode} copy"] = (WORD * 250, b"")
    return made


async def whole(gateway: Gateway, made: dict[str, tuple[bytes, bytes]]) -> None:
    for key, (data, customer) in made.items():
        assert await content(gateway, key, customer) == data, key


def test_no_content_and_no_key_is_on_the_disk(tmp_path: Path) -> None:
    secret: list[bytes] = [MASTER, MASTER[::-1], CUSTOMER]

    async def test(store: OpenStore, gateway: Gateway) -> None:
        made = await fill(gateway)
        await whole(gateway, made)
        assert (await verified(store.node)).problems == []
        for key, (_, customer) in made.items():
            found = await open_object(gateway, BUCKET, key.encode(), "")
            await unlock(gateway, found, customer)
            assert len(found.content_key) == 32
            secret.append(found.content_key)
        await put(gateway, "plain", b"in the clear", None)

    run(tmp_path, test)
    looked_for = [
        form
        for key in secret
        for form in (key, base64.b64encode(key), base64.urlsafe_b64encode(key).rstrip(b"="), key.hex().encode())
    ]
    kept = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert any(b"in the clear" in data for data in kept.values()), "the search finds what is there"
    for path, data in kept.items():
        assert WORD.strip() not in data, path
        assert not [form for form in looked_for if form in data], path


@pytest.mark.parametrize("drive", [0, 1, 2])
def test_damage_is_mended_from_other_shards(tmp_path: Path, drive: int) -> None:
    directories = [tmp_path / f"d{number}" for number in range(3)]

    async def test(_: OpenStore, gateway: Gateway) -> None:
        chance = random.Random(drive)
        data = chance.randbytes(500_000)
        for mode, wanted in MODES.items():
            await put(gateway, mode, data, wanted)
        assert damage.flip(directories[drive], chance, 1.0) > 0
        for mode, wanted in MODES.items():
            assert await content(gateway, mode, wanted.customer) == data

    run(tmp_path, test, directories=directories, geometry=(2, 1))


@pytest.mark.parametrize("size", [100, 200_000])
def test_rows_that_were_tampered_with_open_nothing(tmp_path: Path, size: int) -> None:
    """Two objects whose extents, seals or wrapped keys are exchanged; an inline byte that is another; a cut off end."""

    async def test(store: OpenStore, gateway: Gateway) -> None:
        for key in ("a", "b"):
            await put(gateway, key, os.urandom(size), MODES[SSE_S3])
        rows = [
            (found.row, found.inline) for found in [await open_object(gateway, BUCKET, key, "") for key in (b"a", b"b")]
        ]
        (a, data), (b, other) = rows
        assert a.sealing is not None
        wrong: list[tuple[Object, bytes]] = [
            (replace(a, extents=b.extents), other or data),
            (replace(a, extents=[replace(a.extents[0], seal=b.extents[0].seal)]), data),
            (replace(a, sealing=b.sealing), data),
            (replace(a, extents=[replace(a.extents[0], size=size - 16)], size=size - 16), data[:-16] if data else data),
            (replace(a, sealing=replace(a.sealing, mode=SSE_KMS, key="k")), data),
        ]
        if data:
            wrong.append((a, bytes([data[0] ^ 1]) + data[1:]))
        for row, inline in wrong:
            found = await open_object(gateway, BUCKET, b"a", "")
            found.row, found.inline = row, inline
            with pytest.raises((DamagedError, S3Error)):
                await unlock(gateway, found)
                _ = [piece async for piece in stream(gateway, found, 0, row.size)]

    run(tmp_path, test)


def test_keys_are_wrapped_anew_and_no_byte_moves(tmp_path: Path) -> None:
    newer = os.urandom(32)

    async def test(store: OpenStore, gateway: Gateway) -> None:
        made = await fill(gateway)
        upload, _ = await multipart.create_upload(
            gateway, BUCKET, b"open", Attributes(encryption=MODES[SSE_S3]), "root", "", ""
        )
        first = await part(gateway, "open", upload, 1, WORD * 300_000, b"")

        async def add(rows: Accounts) -> None:
            rows.put("S4KEY", AccessKey("root", accounts.kept_secret(gateway, "S4KEY", "the secret"), 1))

        await accounts.change(gateway, add)
        sizes = {path: path.stat().st_size for path in (tmp_path / "data").rglob("*.vol")}
        blobs = {
            extent.blob for key in made for extent in (await open_object(gateway, BUCKET, key.encode(), "")).row.extents
        }
        worker = Rewrapper(gateway, store.host, lambda: range(gateway.partitions))
        await worker.run()
        assert (worker.rewrapped, worker.left) == (0, 0), "one version of each key: nothing was rotated"

        gateway.keyring = Keyring(MASTER, newer)
        (tmp_path / "kms").write_text(line("k", MASTER[::-1]) + line("k", newer))
        gateway.kms = FileKms(tmp_path / "kms")
        assert worker.left == gateway.partitions
        await put(gateway, "new", WORD, MODES[SSE_KMS])
        await whole(gateway, made)
        await worker.run()
        wrapped_by_us = sum(1 for key in made if not key.startswith(SSE_C) or key.endswith("copy"))
        assert worker.rewrapped == wrapped_by_us + 2, "an open upload and a secret too"
        assert worker.left > 0, "a pass that finds nothing says so"
        await worker.run()
        assert (worker.rewrapped, worker.left) == (wrapped_by_us + 2, 0)

        # The old versions can go.
        gateway.keyring = Keyring(newer)
        (tmp_path / "kms").write_text(line("k", newer))
        gateway.kms = FileKms(tmp_path / "kms")
        await whole(gateway, {**made, "new": (WORD, b"")})
        second = await part(gateway, "open", upload, 2, WORD, b"")
        await multipart.complete_upload(gateway, BUCKET, b"open", upload, Completion([first, second]))
        assert await content(gateway, "open") == WORD * 300_001
        secrets = await Accounts(gateway).get(AccessKey, "S4KEY")
        assert secrets is not None
        assert accounts.open_secret(gateway, "S4KEY", secrets.secret) == "the secret"
        assert {
            extent.blob for key in made for extent in (await open_object(gateway, BUCKET, key.encode(), "")).row.extents
        } == blobs
        assert {path: path.stat().st_size for path in sizes}.items() <= {
            path: path.stat().st_size for path in (tmp_path / "data").rglob("*.vol")
        }.items()
        assert (await verified(store.node)).problems == []

    run(tmp_path, test)


def test_the_last_line_is_the_current_key_though_it_stands_above_too(tmp_path: Path) -> None:
    """Who appends a line that is to be moved to the end, and later takes the old one away, loses nothing."""
    older, newer = os.urandom(32), os.urandom(32)
    ring = Keyring(newer, older, newer)
    assert ring.names == Keyring(older, newer).names
    assert not ring.is_current(Keyring(older).seal("text", "about"))
    assert Keyring(newer).open(ring.seal("text", "about"), "about") == "text"
    (tmp_path / "kms").write_text(line("k", newer) + line("k", older) + line("k", newer))
    wrapped = asyncio.run(FileKms(tmp_path / "kms").wrap("k", bytes(32), "about"))
    (tmp_path / "kms").write_text(line("k", newer))
    assert asyncio.run(FileKms(tmp_path / "kms").unwrap("k", wrapped, "about")) == bytes(32)


def test_a_pass_that_is_cut_off_or_meets_writes_loses_nothing(tmp_path: Path) -> None:
    newer = os.urandom(32)

    async def test(store: OpenStore, gateway: Gateway) -> None:
        for number in range(40):
            await put(gateway, f"{number}", WORD, MODES[SSE_S3])
        gateway.keyring = Keyring(MASTER, newer)
        worker = Rewrapper(gateway, store.host, lambda: range(gateway.partitions))

        async def overwrite() -> None:
            for number in range(0, 40, 2):
                await put(gateway, f"{number}", WORD * 2, MODES[SSE_KMS])

        cut = asyncio.create_task(worker.run())
        await overwrite()
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        await worker.run()
        gateway.keyring = Keyring(newer)
        for number in range(40):
            assert await content(gateway, f"{number}") == WORD * (1 if number % 2 else 2)

    run(tmp_path, test)


def test_a_key_that_is_gone_is_named_and_kept_count_of(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway) -> None:
        await put(gateway, "a", WORD, MODES[SSE_S3])
        gateway.keyring = Keyring(os.urandom(32), os.urandom(32))
        with pytest.raises(S3Error, match="another master key"):
            await content(gateway, "a")
        worker = Rewrapper(gateway, store.host, lambda: range(gateway.partitions))
        await worker.run()
        assert (worker.rewrapped, worker.left) == (0, 1)

    run(tmp_path, test)


def test_no_content_and_no_key_is_in_logs(tmp_path: Path) -> None:
    """Of a server that tells all it can, whose clients err in every way."""
    key, master = os.urandom(32), os.urandom(32)
    (tmp_path / "kms").write_text(line("k", master))
    server = ServerProcess(
        tmp_path / "data",
        "--reserve",
        "64MiB",
        "--access-log",
        "on",
        "--log-level",
        "debug",
        "--kms",
        str(tmp_path / "kms"),
        "--bare-keys",
        "on",
    ).start()
    s3 = make_client(server.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    right, wrong = ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": one} for one in (key, key[::-1]))
    content = WORD * 1000
    s3.put_object(Bucket=BUCKET, Key="k", Body=content, **right)
    s3.put_object(Bucket=BUCKET, Key="s", Body=content, ServerSideEncryption="aws:kms")
    assert s3.get_object(Bucket=BUCKET, Key="k", **right)["Body"].read() == content
    tries: list[tuple[Any, dict[str, Any]]] = [
        (s3.get_object, {"Key": "k", **wrong}),
        (s3.get_object, {"Key": "k"}),
        (s3.get_object, {"Key": "s", **right}),
        (s3.get_object, {"Key": "none", **right}),
        (s3.put_object, {"Key": "x", "Body": content, **right, "SSECustomerAlgorithm": "AES128"}),
        (
            s3.put_object,
            {
                "Key": "x",
                "Body": content,
                **right,
                "SSECustomerKey": base64.b64encode(key).decode(),
                "SSECustomerKeyMD5": "AAAA",
            },
        ),
        (s3.put_object, {"Key": "x", "Body": content, **right, "ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    ]
    for call, given in tries:
        with pytest.raises(ClientError):
            call(Bucket=BUCKET, **given)
    assert server.stop() == 0
    kept = [server.log.read_bytes(), *(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())]
    assert any(b"PutObject" in data for data in kept), "the logs are among them"
    for secret in (key, key[::-1], master):
        for form in (secret, base64.b64encode(secret), secret.hex().encode()):
            assert not [data for data in kept if form in data]
    assert not [data for data in kept if WORD.strip() in data]


@pytest.mark.parametrize("asked", [None, MODES[SSE_S3]])
def test_a_copy_whose_source_changes_meanwhile_is_of_the_one_kind_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Wanted | None
) -> None:
    """Its bytes went between the look and the reference; what is there now is encrypted otherwise."""

    async def test(_: OpenStore, gateway: Gateway) -> None:
        before, after = (None, MODES[SSE_KMS]) if asked is None else (MODES[SSE_KMS], None)
        await put(gateway, "a", WORD * 1000, before)
        real = objects.take_extents

        async def attempt() -> None:
            source = await open_object(gateway, BUCKET, b"a", "")
            await unlock(gateway, source)
            await copies.copy_object(gateway, source, Copy(BUCKET, b"b", "root", encryption=asked))

        async def gone(*arguments: Any) -> Any:
            monkeypatch.setattr(copies, "take_extents", real)
            await put(gateway, "a", WORD * 2000, after)

        monkeypatch.setattr(copies, "take_extents", gone)
        await objects.while_it_changes(attempt)
        copied = await open_object(gateway, BUCKET, b"b", "")
        assert (copied.row.sealing is None) == (asked is None)
        assert all(bool(extent.seal) == (asked is not None) for extent in copied.row.extents)
        assert await content(gateway, "b") == WORD * 2000

    run(tmp_path, test)


def test_a_copy_that_leads_no_more_does_not_say_that_no_key_is_left() -> None:
    """Its rows may have been cleared: by `s4_keys_left` a person takes the old key away."""
    rows = SimpleNamespace(scan=lambda *_: iter(()), check=lambda _: None)
    rotated: Any = SimpleNamespace(keyring=SimpleNamespace(several=True), kms=None)
    worker = Rewrapper(rotated, rows, lambda: [5])

    def refuse(partition: int) -> None:
        raise StaleError("another leads")

    rows.check = refuse
    with suppress(StaleError):
        asyncio.run(worker.run())
    assert worker.left == 1
    rows.check = lambda _: None
    asyncio.run(worker.run())
    assert worker.left == 0
