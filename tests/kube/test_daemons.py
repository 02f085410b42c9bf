"""What the operator asks of daemons for a Bucket's settings, against a real server: done twice, and taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from inprocess import until
from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from s4.cluster.recovery import Recovery
from s4.s3 import encryption
from s4.s3.cors import CorsRule
from s4.s3.lock import Default
from s4_operator.bucket_models import BucketSpec, LifecycleRule
from s4_operator.bucket_settings import Asked, lifecycle_rule, put
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.models import Rates

BUCKET = "settings-of-a-bucket"


@asynccontextmanager
async def talking(server: ServerProcess) -> AsyncIterator[Daemons]:
    async with aiohttp.ClientSession() as session:
        made = Daemons(session, [server.admin.partition("//")[2]], server.endpoint, REGION, ACCESS, SECRET)
        await made.make_bucket(BUCKET)
        yield made


def with_daemons(server: ServerProcess, work: Callable[[Daemons], Awaitable[None]]) -> None:
    async def run() -> None:
        async with talking(server) as daemons:
            await work(daemons)

    asyncio.run(run())


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[Daemons]:
    """Daemons that are this application alone."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    where = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    try:
        async with aiohttp.ClientSession() as session:
            yield Daemons(session, [where], f"http://{where}", REGION, ACCESS, SECRET)
    finally:
        await runner.cleanup()


def test_a_daemon_that_does_not_know_a_call_says_so_in_text() -> None:
    """As one of 0.7 does: a cluster of such was never formed, for its operator could not read the answer."""

    async def test() -> None:
        async with served(web.Application()) as daemons:
            assert await daemons.recovery(()) == Recovery()
            with pytest.raises(DaemonError, match="404: Not Found"):
                await daemons.users()

    asyncio.run(test())


def test_a_bucket_that_is_emptied_leaves_connections_to_others() -> None:
    """A thousand deletions at once took all that there are: no cluster's daemon was heard within its time."""
    listed, goes_on = "".join(f"<Version><Key>{one}</Key></Version>" for one in range(300)), asyncio.Event()
    pages, begun = [f"<L>{listed}</L>", "<L/>", "<L/>"], list[str]()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/admin/v1/users":
            return web.json_response({"users": []})
        if request.method == "GET":
            return web.Response(text=pages.pop(0))
        begun.append(request.path)
        await goes_on.wait()
        return web.Response(status=204)

    async def test() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", answer)
        async with served(app) as daemons:
            emptied = asyncio.create_task(daemons.empty_bucket("b"))
            await until(lambda: begun)
            assert await daemons.users() == {}
            goes_on.set()
            await emptied
            assert len(begun) == 300

    asyncio.run(test())


def test_everybody_reads_and_then_does_not(server: ServerProcess, s3: Any) -> None:
    with_daemons(server, lambda daemons: everybody(server, s3, daemons))


async def read_by_all(daemons: Daemons, is_asked: bool) -> None:
    spec = BucketSpec(clusterRef={"name": "c"}, access="PublicRead" if is_asked else "Private")
    await put(daemons, BUCKET, Asked(spec, Rates()), {"access"})


async def everybody(server: ServerProcess, s3: Any, daemons: Daemons) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    anybody = make_client(server.endpoint, signature_version=UNSIGNED)
    other = {
        "Sid": "kept",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/k",
    }
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": other}))
    for _ in range(2):
        await read_by_all(daemons, True)
        assert anybody.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"x"
        with pytest.raises(ClientError, match="AccessDenied"):
            anybody.list_objects_v2(Bucket=BUCKET)
        assert len(json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]) == 2
    for _ in range(2):
        await read_by_all(daemons, False)
        with pytest.raises(ClientError, match="AccessDenied"):
            anybody.get_object(Bucket=BUCKET, Key="k")
        assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"] == [other]
        assert set(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values()) == {True}
    s3.delete_bucket_policy(Bucket=BUCKET)
    await read_by_all(daemons, True)
    await read_by_all(daemons, False)
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=BUCKET)


def test_a_quota_and_rules_for_browsers(server: ServerProcess, s3: Any) -> None:
    with_daemons(server, lambda daemons: bounded(s3, daemons))


def test_lifecycle_and_object_lock(server: ServerProcess, s3: Any) -> None:
    with_daemons(server, lambda daemons: over_time(s3, daemons))


async def over_time(s3: Any, daemons: Daemons) -> None:
    asked = [
        LifecycleRule(prefix="logs/", tags={"a": "b"}, expireAfterDays=30),
        LifecycleRule(noncurrentAfterDays=7, keepNoncurrent=2, abortUploadsAfterDays=3),
    ]
    for _ in range(2):
        await daemons.put_lifecycle(BUCKET, [lifecycle_rule(number, one) for number, one in enumerate(asked, 1)])
    first, second = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert first["Expiration"] == {"Days": 30}
    assert first["Filter"] == {"And": {"Prefix": "logs/", "Tags": [{"Key": "a", "Value": "b"}]}}
    assert second["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7, "NewerNoncurrentVersions": 2}
    assert second["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    for _ in range(2):
        await daemons.put_lifecycle(BUCKET, [])
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)
    await daemons.put_encryption(BUCKET, encryption.Default("AES256"))
    shown = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert shown["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    for _ in range(2):
        await daemons.put_encryption(BUCKET, None)
    with pytest.raises(ClientError, match="ServerSideEncryptionConfigurationNotFound"):
        s3.get_bucket_encryption(Bucket=BUCKET)
    await daemons.make_bucket(BUCKET + "-locked")
    for default in (None, Default("GOVERNANCE", days=3), Default("GOVERNANCE", days=3), None):
        await daemons.put_lock(BUCKET + "-locked", default)
        found = s3.get_object_lock_configuration(Bucket=BUCKET + "-locked")["ObjectLockConfiguration"]
        assert found.get("Rule") == ({"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}} if default else None)


async def bounded(s3: Any, daemons: Daemons) -> None:
    await daemons.put_quota(BUCKET, 10)
    with pytest.raises(ClientError, match="QuotaExceeded"):
        s3.put_object(Bucket=BUCKET, Key="large", Body=b"x" * 11)
    await daemons.put_quota(BUCKET, 0)
    s3.put_object(Bucket=BUCKET, Key="large", Body=b"x" * 11)
    for requests, size in ((7, 0), (7, 4096), (0, 0)):
        for _ in range(2):
            await daemons.put_rate(BUCKET, requests, size)
        (shown,) = (one for one in (await daemons.admin("GET", "/buckets"))["buckets"] if one["name"] == BUCKET)
        assert (shown["requests_per_s"], shown["bytes_per_s"]) == (requests, size)
    rule = CorsRule(["https://example.org"], ["GET", "PUT"], ["*"], ["ETag"], 60)
    for _ in range(2):
        await daemons.put_cors(BUCKET, [rule])
    (found,) = s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"]
    assert found == {
        "AllowedOrigins": ["https://example.org"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    }
    for _ in range(2):
        await daemons.put_cors(BUCKET, [])
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=BUCKET)
