"""Whether a request may do what it asks: the one place that decides, before anything is looked at.

It needs the bucket's row, which gateways hold under lease. An object's row is read only where a policy asks for its
tags, or where nothing but its ACL could allow a read. Whoever may not ask learns nothing: a bucket or key that is not
there and one that is forbidden have one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ssl import SSLObject

from s4.access import documents
from s4.access.actions import BUCKET, NEEDS, OBJECT, bucket_arn, object_arn, of_version
from s4.access.policy import ACCOUNT, Ask
from s4.access.requester import ANONYMOUS, ROOT
from s4.gateway.context import Gateway
from s4.gateway.read import Opened, open_object
from s4.http.request import S3Request
from s4.metadata import keys
from s4.metadata.rows import Bucket, Object, decode_object
from s4.s3 import acl, lock, sigv4, tags
from s4.s3.errors import S3Error
from s4.s3.names import exact_date

_OF_ROOT = frozenset(
    ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy")
)  # so that nobody locks out all
_HEADERS = (
    "x-amz-acl", "x-amz-copy-source", "x-amz-metadata-directive", "x-amz-storage-class", "x-amz-object-ownership",
    "x-amz-content-sha256", "x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp", "x-amz-grant-write",
    "x-amz-grant-write-acp", "if-match", "if-none-match", "x-amz-object-lock-legal-hold",
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm",
)  # fmt: skip
_QUERY = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys", "versionId": "s3:versionid"}
_OWNERS = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
_LATER = frozenset(
    ("CreateBucket", "DeleteObjects", "PutObjectTagging", "PutObjectRetention", "PutObjectLegalHold")
)  # the body says what is asked
_TAG = "s3:existingobjecttag/"


class Judge:
    """Answers for one request, and for one bucket. `free`: whatever is asked, the answer is yes.

    What it allowed by the tags or the ACL of a version it allowed of that version. Who opens the object afterwards may meet
    another one: `confirm` judges that (`open_judged` does both).
    """

    __slots__ = ("_bucket", "_context", "_gateway", "_name", "_open", "_request", "_rested", "free", "who")

    def __init__(self, gateway: Gateway, request: S3Request, name: str, bucket: Bucket | None) -> None:
        self._gateway, self._request, self._name, self._bucket = gateway, request, name, bucket
        self.who = request.requester
        self._context: dict[str, tuple[str, ...]] | None = None
        self._rested: list[
            tuple[str, bytes, str, Mapping[str, tuple[str, ...]] | None]
        ] = []  # what was allowed by a row
        # Nothing that is kept of the bucket could say no to who may do it anyway.
        self._open = bucket is None or documents.POLICY not in bucket.documents
        self.free = self._open and self.who.everything

    @property
    def bucket(self) -> Bucket | None:
        return self._bucket

    async def must(
        self,
        action: str,
        key: bytes = b"",
        version: str = "",
        more: Mapping[str, tuple[str, ...]] | None = None,
        row: Object | None = None,
    ) -> None:
        """Raises S3Error AccessDenied."""
        if not await self.may(action, key, version, more, row):
            raise S3Error("AccessDenied")

    async def may(
        self,
        action: str,
        key: bytes = b"",
        version: str = "",
        more: Mapping[str, tuple[str, ...]] | None = None,
        row: Object | None = None,
    ) -> bool:
        """Whether the requester may do `action` to the bucket, or to a version of a key. `more`: further condition keys.
        `row` is the version where it was opened already."""
        if self.free or (self.who.kind == ROOT and action in _OF_ROOT):
            return True
        asked, action = action, of_version(action, version)
        if self._open and self.who.plainly(action, self._name, keys=bool(key)):
            return True
        resource = object_arn(self._name, key) if key else bucket_arn(self._name)
        policy = documents.policy_for(self._bucket, anonymous=self.who.kind == ANONYMOUS) if self._bucket else None
        context = dict(self._about())
        if more:
            context.update(more)
        by_tags = key and any(
            one.asks_for(_TAG) for one in (*self.who.policies, *sum(self.who.limits, ()), *([policy] if policy else []))
        )
        if by_tags:
            found = row or await self._row(key, version)
            tagged = found.tags if found is not None else {}
            context.update({_TAG + name.lower(): (value,) for name, value in tagged.items()})
        ask = Ask(self.who.asker, action, resource, context)
        by_acl = False
        if not self.who.allowed(ask, policy):
            by_acl = bool(key) and not self._granted_by_bucket(action)
            if not await self._granted(action, key, version, row) or not self.who.allowed(ask, policy, granted=True):
                return False
        if row is None and (by_tags or by_acl):
            self._rested.append((asked, key, version, more))
        return True

    async def confirm(self, key: bytes, version: str, row: Object) -> None:
        """Judge of the version that was opened what was allowed by one that may have been another. Raises S3Error."""
        for action, asked_key, asked_version, more in self._rested:
            if (asked_key, asked_version) == (key, version) and not await self.may(action, key, version, more, row):
                raise S3Error("AccessDenied")

    def could(self, action: str) -> bool:
        """Whether the requester may do it, or it to versions, to anything in the bucket: before a body is read that says what."""
        policy = documents.policy_for(self._bucket, anonymous=self.who.kind == ANONYMOUS) if self._bucket else None
        wanted = (action, of_version(action, "any"))
        return any(self.who.may_somewhere(one) or (policy is not None and policy.may_allow(one)) for one in wanted)

    def _granted_by_bucket(self, action: str) -> bool:
        """Whether the bucket's ACL allows it."""
        bucket = self._bucket
        if bucket is None or not documents.has_acls(bucket):
            return False
        ignore = documents.block_of(bucket).ignore
        listed = acl.decode(bucket.documents.get(documents.ACL, ""))
        return listed.allows(action, self.who.asker.canonical, of_bucket=True, ignore_public=ignore)

    async def _granted(self, action: str, key: bytes, version: str, row: Object | None) -> bool:
        """Whether an ACL allows it, the bucket's or the object's."""
        bucket = self._bucket
        if bucket is None or not documents.has_acls(bucket):
            return False
        if self._granted_by_bucket(action):
            return True
        if not key or not any(action.lower() in listed for listed in acl.OF_OBJECT.values()):
            return False
        found = row or await self._row(key, version)
        ignore = documents.block_of(bucket).ignore
        return found is not None and acl.decode(found.acl).allows(
            action, self.who.asker.canonical, of_bucket=False, ignore_public=ignore
        )

    async def _row(self, key: bytes, version: str) -> Object | None:
        if self._bucket is None:
            return None
        partition = keys.partition_of(self._bucket.id, key, self._gateway.partitions)
        found = await self._gateway.node.find_object(partition, self._bucket.id, key, version)
        return decode_object(found.value)[0] if found is not None else None

    def _about(self) -> dict[str, tuple[str, ...]]:
        if self._context is None:
            self._context = context_of(self._request, self._gateway.clock)
        return self._context


def context_of(request: S3Request, clock: Callable[[], float] = time.time) -> dict[str, tuple[str, ...]]:
    """The condition keys of a request. Source: service authorization reference, "Amazon S3"; IAM, "global condition keys"."""
    headers, query, now = request.headers, request.query, clock()
    transport = request.http.transport
    tls: SSLObject | None = transport.get_extra_info("ssl_object") if transport is not None else None
    found: dict[str, tuple[str, ...]] = {
        **request.requester.about,
        "aws:currenttime": (f"{now:.3f}",), "aws:epochtime": (f"{int(now)}",), "aws:securetransport": (str(tls is not None).lower(),),
        "aws:resourceaccount": (ACCOUNT,), "s3:resourceaccount": (ACCOUNT,),
    }  # fmt: skip
    optional = {
        "aws:sourceip": request.http.remote, "aws:useragent": headers.get("user-agent"), "aws:referer": headers.get("referer"),
        "s3:tlsversion": (tls.version() or "").removeprefix("TLSv") if tls is not None else None,
        **{f"s3:{name}": headers[name] for name in _HEADERS if name in headers},
        **{condition: query[name] for name, condition in _QUERY.items() if name in query},
    }  # fmt: skip
    if lock.UNTIL in headers:
        wanted = lock.from_headers(headers, int(now * 1000))
        found.update(of_lock(wanted.mode, wanted.until_ms, int(now * 1000)))
    claim = request.claim
    if claim is not None:
        found["s3:signatureversion"] = ("AWS4-HMAC-SHA256",)
        plain = "POST" if request.form is not None else "REST-HEADER"
        found["s3:authtype"] = ("REST-QUERY-STRING" if claim.presigned else plain,)
        found["aws:requestedregion"] = (claim.region,)
        if claim.presigned:
            found["s3:signatureage"] = (f"{max(0.0, now - sigv4.parse_time(claim.timestamp)) * 1000:.0f}",)
    found.update({name: (value,) for name, value in optional.items() if value})
    if "x-amz-tagging" in headers:
        found.update(of_tags(tags.from_header(headers)))
    return found


def of_tags(asked: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Condition keys of the tags that a request brings."""
    return {
        "s3:requestobjecttagkeys": tuple(asked),
        **{f"s3:requestobjecttag/{name.lower()}": (value,) for name, value in asked.items()},
    }


def of_lock(mode: str, until_ms: int, now_ms: int) -> dict[str, tuple[str, ...]]:
    """Condition keys of the retention that a request brings."""
    if not mode:
        return {}
    days = str(max(0, -(-(until_ms - now_ms) // lock.DAY_MS)))
    return {
        "s3:object-lock-mode": (mode,), "s3:object-lock-retain-until-date": (exact_date(until_ms),),
        "s3:object-lock-remaining-retention-days": (days,),
    }  # fmt: skip


async def judge_of(gateway: Gateway, request: S3Request, name: str) -> Judge:
    """For another bucket than the request's own, such as a copy's source."""
    return Judge(gateway, request, name, await gateway.node.find_bucket(name))


async def authorize(gateway: Gateway, request: S3Request) -> None:
    """Sets `request.judge`. Raises S3Error AccessDenied where the requester may not do the operation.

    The operation itself asks for what only it knows: the keys of a DeleteObjects, tags in a body, the source of a copy.
    """
    bucket = await gateway.node.find_bucket(request.bucket) if request.bucket else None
    judge = request.judge = Judge(gateway, request, request.bucket, bucket)
    for header in _OWNERS:
        if header in request.headers and request.headers[header] != ACCOUNT:
            raise S3Error("AccessDenied")
    if judge.free:
        return
    action, level = NEEDS[request.operation]
    if request.operation in _LATER:
        if not judge.could(action):
            raise S3Error("AccessDenied")
    elif level == BUCKET:
        await judge.must(action)
    elif level == OBJECT:
        await judge.must(action, request.key, request.query.get("versionId", ""))
    if request.operation == "GetObjectAttributes":
        await judge.must("s3:GetObjectAttributes", request.key)
    if "x-amz-tagging" in request.headers and request.key:
        await judge.must("s3:PutObjectTagging", request.key)


async def open_judged(
    gateway: Gateway, judge: Judge | None, name: str, key: bytes, version: str, bucket: Bucket | None = None
) -> Opened:
    """Open an object that the requester may do something to: what its tags or ACL allowed is allowed of this very version.
    Raises S3Error."""
    opened = await open_object(gateway, name, key, version, bucket)
    if judge is not None:
        await judge.confirm(key, version, opened.row)
    return opened


async def hidden(request: S3Request, error: S3Error) -> S3Error:
    """An error as the requester may see it: that a key is not there is for those only who may list."""
    if (
        error.code in ("NoSuchKey", "NoSuchVersion")
        and request.judge is not None
        and not await request.judge.may("s3:ListBucket")
    ):
        return S3Error("AccessDenied")
    return error
