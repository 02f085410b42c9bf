"""Object lock: a bucket's default retention; retention and legal hold of a version; who may get round governance."""

from __future__ import annotations

from s4.access import documents
from s4.access.keys import of_hold, of_lock
from s4.gateway import objects
from s4.gateway.buckets import set_lock
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.read import Opened
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.metadata.rows import Bucket
from s4.s3 import lock
from s4.s3.errors import S3Error
from s4.s3.lock import Lock
from s4.s3.names import exact_date
from s4.s3.xml import document, tag


async def get_configuration(gateway: Gateway, call: Call) -> Answer:
    bucket = call.must_exist()
    if not bucket.lock:
        raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=call.request.bucket)
    return respond_xml(document("ObjectLockConfiguration", lock.default_to_xml(documents.default_lock(bucket))))


async def put_configuration(gateway: Gateway, call: Call) -> Answer:
    default = lock.default_from_xml(await call.request.xml("ObjectLockConfiguration"))
    await set_lock(gateway, call.request.bucket, documents.encode(default) if default is not None else "")
    return respond(200)


async def wants_bypass(call: Call, key: bytes, version: str) -> bool:
    """Whether the request gets round governance. Raises S3Error where its caller may not."""
    if not lock.wants_bypass(call.request.headers):
        return False
    await call.authorizer.must("s3:BypassGovernanceRetention", key, version)
    return True


async def asked_lock(gateway: Gateway, call: Call) -> Lock:
    """What a write asks for, once its bucket has object lock and its caller may. Raises S3Error."""
    wanted = lock.from_headers(call.request.headers, gateway.now_ms())
    if wanted.mode:
        await call.authorizer.must("s3:PutObjectRetention", call.request.key)
    if lock.HOLD in call.request.headers:
        await call.authorizer.must("s3:PutObjectLegalHold", call.request.key)
    _check(await find_bucket(gateway, call.request.bucket))
    return wanted


def _check(bucket: Bucket) -> None:
    if not bucket.lock:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


async def shown(call: Call, opened: Opened) -> dict[str, str]:
    """Headers of GET and HEAD, as far as the caller may see them."""
    row, authorizer, version = opened.row, call.authorizer, call.request.query.get("versionId", "")
    found: dict[str, str] = {}
    if row.lock_mode and await authorizer.may("s3:GetObjectRetention", call.request.key, version, row=row):
        found |= {lock.MODE: row.lock_mode, lock.UNTIL: exact_date(row.lock_until_ms)}
    hold = lock.hold_of(row)
    if hold and await authorizer.may("s3:GetObjectLegalHold", call.request.key, version, row=row):
        found[lock.HOLD] = hold
    return found


async def _open(call: Call) -> Opened:
    _check(call.must_exist())
    return await call.open()


async def get_retention(gateway: Gateway, call: Call) -> Answer:
    row = (await _open(call)).row
    if not row.lock_mode:
        raise S3Error("NoSuchObjectLockConfiguration")
    return respond_xml(document("Retention", lock.retention_to_xml(row.lock_mode, row.lock_until_ms)))


async def put_retention(gateway: Gateway, call: Call) -> Answer:
    now_ms, version = gateway.now_ms(), call.request.query.get("versionId", "")
    mode, until_ms = lock.retention_from_xml(await call.request.xml("Retention"), now_ms)
    await call.authorizer.must("s3:PutObjectRetention", call.request.key, version, of_lock(mode, until_ms, now_ms))
    bypass = await wants_bypass(call, call.request.key, version)
    _check(await find_bucket(gateway, call.request.bucket))
    await objects.change_object(
        gateway,
        call.request.bucket,
        call.request.key,
        version,
        retention=(mode, until_ms),
        bypass=bypass,
        origin=call.origin,
    )
    return respond(200)


async def get_hold(gateway: Gateway, call: Call) -> Answer:
    hold = lock.hold_of((await _open(call)).row)
    if not hold:
        raise S3Error("NoSuchObjectLockConfiguration")
    return respond_xml(document("LegalHold", tag("Status", hold)))


async def put_hold(gateway: Gateway, call: Call) -> Answer:
    hold = lock.hold_from_xml(await call.request.xml("LegalHold"))
    version = call.request.query.get("versionId", "")
    await call.authorizer.must("s3:PutObjectLegalHold", call.request.key, version, of_hold(hold))
    _check(await find_bucket(gateway, call.request.bucket))
    await objects.change_object(gateway, call.request.bucket, call.request.key, version, hold=hold, origin=call.origin)
    return respond(200)
