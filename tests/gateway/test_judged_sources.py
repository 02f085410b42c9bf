"""A source that is replaced between the look that judged it and its use: over the S3 port, with a real store, whose
node lets a test do something right behind a certain call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry

from inprocess import Bytes, get, opened, put
from process import make_client
from s4.access import documents
from s4.config.listening import listening_socket
from s4.gateway.buckets import create_bucket, set_document
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.copies import Copy, copy_object, rename_object
from s4.gateway.objects import Attributes, put_object
from s4.gateway.read import open_object
from s4.metadata import commands, keys
from s4.node.local import OpenStore
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error
from s4.server.parts import S3Endpoint, ServerSettings
from s4.telemetry.audit import AuditLog

OLD, NEW = b"old" * 3000, b"new" * 3000
NO_SECRETS = """{"Statement": [{"Effect": "Deny", "Principal": "*", "Action": ["s3:GetObject", "s3:DeleteObject"],
  "Resource": "arn:aws:s3:::photos/*", "Condition": {"StringEquals": {"s3:ExistingObjectTag/secret": "yes"}}}]}"""


class Behind:
    """The node; after the first `find_object` of the source something happens."""

    def __init__(self, node: Any) -> None:
        self._node, self.looks = node, 0
        self.then: Callable[[], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Any:
        found = await self._node.find_object(partition, bucket, key, version)
        if key == b"source" and self.then is not None:
            self.looks += 1
            then, self.then = self.then, None
            await then()
        return found


def run(path: Path, test: Callable[[OpenStore, Gateway, Behind, Any], Awaitable[None]]) -> None:
    """`test` gets an S3 client whose calls block: it is for threads."""

    async def whole() -> None:
        async with opened(path / "data") as (store, gateway):
            node = Behind(store.node)
            gateway.node = node  # type: ignore[assignment]
            settings, bound = ServerSettings([]), listening_socket("127.0.0.1:0")
            endpoint = S3Endpoint(settings, gateway, CollectorRegistry(), AuditLog("none"), lambda: "")
            await endpoint.start(bound)
            client = make_client(
                f"http://127.0.0.1:{bound.getsockname()[1]}", store.root.access_key, store.root.secret_key
            )
            try:
                await create_bucket(gateway, "photos", "root")
                await put(gateway, "photos", b"source", OLD)
                await test(store, gateway, node, client)
            finally:
                client.close()
                await endpoint.close()

    asyncio.run(whole())


async def replaced(gateway: Gateway, tags: dict[str, str] | None = None) -> None:
    await put_object(gateway, "photos", b"source", Bytes(NEW), Expected(), Attributes(tags=tags or {}), "root")


async def refused(call: Callable[..., Any], **arguments: Any) -> int:
    with pytest.raises(ClientError) as failure:
        await asyncio.to_thread(call, Bucket="photos", **arguments)
    status: int = failure.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


async def is_there(gateway: Gateway, key: bytes) -> bool:
    try:
        await get(gateway, "photos", key)
    except S3Error:
        return False
    return True


def test_a_copy_of_what_was_asked_for_is_not_one_of_what_came_since(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        etag = (await open_object(gateway, "photos", b"source", "")).row.etag
        node.then = lambda: replaced(gateway)
        assert await refused(client.copy_object, Key="copy", CopySource="photos/source", CopySourceIfMatch=etag) == 412
        assert not await is_there(gateway, b"copy")

    run(tmp_path, test)


def test_a_copy_without_conditions_takes_what_is_there(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        node.then = lambda: replaced(gateway)
        await asyncio.to_thread(client.copy_object, Bucket="photos", Key="copy", CopySource="photos/source")
        assert await get(gateway, "photos", b"copy") == NEW

    run(tmp_path, test)


@pytest.mark.parametrize("looks", ["judge", "open"])
def test_what_the_tags_of_the_version_before_allowed_is_not_copied(tmp_path: Path, looks: str) -> None:
    """It is replaced behind the look for its tags, or behind the one that opens it."""

    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        await set_document(gateway, "photos", documents.POLICY, NO_SECRETS)

        async def once_more() -> None:
            node.then = lambda: replaced(gateway, {"secret": "yes"})

        node.then = (lambda: replaced(gateway, {"secret": "yes"})) if looks == "judge" else once_more
        assert await refused(client.copy_object, Key="copy", CopySource="photos/source") == 403
        assert not await is_there(gateway, b"copy")

    run(tmp_path, test)


def test_what_the_tags_of_the_version_before_allowed_is_not_read(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        await set_document(gateway, "photos", documents.POLICY, NO_SECRETS)
        node.then = lambda: replaced(gateway, {"secret": "yes"})
        assert await refused(client.get_object, Key="source") == 403
        assert node.looks == 1

    run(tmp_path, test)


def test_a_rename_of_what_was_asked_for_is_not_one_of_what_came_since(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        etag = (await open_object(gateway, "photos", b"source", "")).row.etag
        node.then = lambda: replaced(gateway)
        assert await refused(client.rename_object, Key="other", RenameSource="source", SourceIfMatch=etag) == 412
        assert await get(gateway, "photos", b"source") == NEW
        assert not await is_there(gateway, b"other")

    run(tmp_path, test)


def test_a_part_of_what_was_asked_for_is_not_one_of_what_came_since(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        etag = (await open_object(gateway, "photos", b"source", "")).row.etag
        upload = (await asyncio.to_thread(client.create_multipart_upload, Bucket="photos", Key="m"))["UploadId"]
        part = {"Key": "m", "UploadId": upload, "PartNumber": 1, "CopySource": "photos/source"}
        node.then = lambda: replaced(gateway)
        assert await refused(client.upload_part_copy, **part, CopySourceIfMatch=etag) == 412
        made = await asyncio.to_thread(client.upload_part_copy, Bucket="photos", **part)
        parts = {"Parts": [{"PartNumber": 1, "ETag": made["CopyPartResult"]["ETag"]}]}
        await asyncio.to_thread(
            client.complete_multipart_upload, Bucket="photos", Key="m", UploadId=upload, MultipartUpload=parts
        )
        assert await get(gateway, "photos", b"m") == NEW

    run(tmp_path, test)


def test_an_object_that_is_replaced_while_it_is_opened_is_read_as_it_is_then(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        node.then = lambda: replaced(gateway)
        answer = await asyncio.to_thread(client.get_object, Bucket="photos", Key="source")
        assert await asyncio.to_thread(answer["Body"].read) == NEW

    run(tmp_path, test)


def test_an_acl_is_given_to_the_version_that_it_was_made_for(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Behind, client: Any) -> None:
        bucket = await find_bucket(gateway, "photos")
        opened_first = await open_object(gateway, "photos", b"source", "")
        await replaced(gateway)
        settings = commands.Settings(bucket.id, bucket.revision, "")
        home = keys.partition_of(bucket.id, b"source", gateway.partitions)
        late = await store.node.execute(
            home, commands.ChangeObject(settings, b"source", acl="[]", seen=opened_first.suffix)
        )
        assert isinstance(late, commands.Refused)
        now = await open_object(gateway, "photos", b"source", "")
        assert isinstance(
            await store.node.execute(home, commands.ChangeObject(settings, b"source", acl="[]", seen=now.suffix)),
            commands.Written,
        )

    run(tmp_path, test)


def test_a_copy_is_written_anew_where_shards_of_its_source_are_missing(tmp_path: Path) -> None:
    """C4: such a blob takes no new reference; that it does not change is no reason to give up."""

    async def whole() -> None:
        async with opened([tmp_path / name for name in "abc"]) as (store, gateway):
            await create_bucket(gateway, "photos", "root")
            await put(gateway, "photos", b"source", OLD)
            source = await open_object(gateway, "photos", b"source", "")
            extent = source.row.extents[0]
            assert await store.node.execute(extent.partition, commands.NeedHeal(extent.blob, [1])) == commands.Taken(
                True
            )
            await copy_object(gateway, source, Copy("photos", b"copy", "root"))
            assert await get(gateway, "photos", b"copy") == OLD
            with pytest.raises(S3Error, match="made again") as busy:
                await rename_object(gateway, "photos", b"source", b"other", "root")
            assert busy.value.status == 503
            assert await get(gateway, "photos", b"source") == OLD

    asyncio.run(whole())
