"""Whether a request may do what it asks: the one place that decides, before anything is looked at.

It needs the bucket's row, which gateways hold under lease. An object's row is read only where a policy asks for its
tags, or where nothing but its ACL could allow a read. Whoever may not ask learns nothing: a bucket or key that is not
there and one that is forbidden have one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ssl import SSLObject

import msgspec

from s4.access import documents, keys
from s4.access.actions import NEEDS, bucket_arn, object_arn, of_version
from s4.access.keys import Facts
from s4.access.policy import ACCOUNT, DENY, Ask, Memo, Policy
from s4.access.reasons import why_not
from s4.access.requester import ANONYMOUS, ROOT
from s4.gateway.context import Gateway, Origin
from s4.gateway.multipart import find_begun
from s4.gateway.rates import NO_RATE
from s4.gateway.read import Opened, open_object
from s4.http.request import S3Request
from s4.metadata.keys import partition_of
from s4.metadata.rows import Bucket, Object, Upload, decode_object
from s4.s3 import acl, conditions, encryption, names, sigv4
from s4.s3.errors import S3Error
from s4.s3.operations import BUCKET, OBJECT

OF_ROOT = frozenset(
    ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy")
)  # so that nobody locks out all
_OWNERS = frozenset(("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"))
_LATER = frozenset(
    (
        "CreateBucket",
        "DeleteObjects",
        "PutObjectTagging",
        "PutObjectRetention",
        "PutObjectLegalHold",
        "TagResource",
        "UntagResource",
    )
)  # the body says what is asked
_OF_INITIATOR = frozenset(("AbortMultipartUpload", "ListParts"))  # who began an upload may, unless something denies it
_READS = frozenset(("GetObject", "HeadObject"))
_OF_UPLOAD = frozenset(("UploadPart", "UploadPartCopy", "CompleteMultipartUpload"))
_TAG = "s3:existingobjecttag/"
_SEALED = "s3:x-amz-server-side-encryption"
More = Mapping[str, tuple[str, ...]]  # condition keys of what is asked (keys.of_tags and others)


class Authorizer:
    """Answers for one request, and for one bucket. `free`: whatever is asked, the answer is yes.

    What it allowed by the tags or the ACL of a version it allowed of that version. Who opens the object afterwards may
    meet another one: `confirm` judges that (`open` does both).
    """

    __slots__ = (
        "_bucket",
        "_by_tags",
        "_contexts",
        "_gateway",
        "_memo",
        "_name",
        "_open",
        "_policy",
        "_refused",
        "_request",
        "_rested",
        "_whole",
        "free",
        "who",
    )

    def __init__(self, gateway: Gateway, request: S3Request, name: str, bucket: Bucket | None) -> None:
        self._gateway, self._request, self._name, self._bucket = gateway, request, name, bucket
        self.who = request.requester
        # What does not depend on the key that is asked for is found once for all keys of the request.
        self._whole: keys.Values | None = None
        self._contexts: dict[str, keys.Values] = {}  # by action
        self._memo: Memo = {}
        self._by_tags: bool | None = None
        self._refused: Ask | None = None
        self._rested: list[tuple[str, bytes, str, More | None]] = []  # what was allowed by a row
        # Nothing that is kept of the bucket could say no to who may do it anyway.
        self._policy: Policy | None = None
        self._open = True
        if bucket is not None and documents.POLICY in bucket.documents:
            self._open = False
            self._policy = documents.policy_for(bucket, anonymous=self.who.kind == ANONYMOUS)
        self.free = self._open and self.who.everything

    async def must(
        self,
        action: str,
        key: bytes = b"",
        version: str = "",
        more: More | None = None,
        row: Object | None = None,
    ) -> None:
        """Raises S3Error AccessDenied."""
        if not await self.may(action, key, version, more, row):
            raise self.refusal()

    def refusal(self) -> S3Error:
        """AccessDenied, with what decided so for the log."""
        error = S3Error("AccessDenied")
        error.why = self._why
        return error

    def _why(self) -> str:
        if self._refused is None:
            return ""
        written = documents.policy_of(self._bucket) if self._bucket is not None else None
        return why_not(self.who, self._refused, written, kept_out=written is not self._policy)

    async def may(
        self,
        action: str,
        key: bytes = b"",
        version: str = "",
        more: More | None = None,
        row: Object | None = None,
        *,
        granted: bool = False,
    ) -> bool:
        """Whether the requester may do `action` to the bucket, or to a version of a key. `more`: further condition
        keys. `row` is the version where it was opened already. `granted`: it may unless something denies it."""
        if self.free or (self.who.kind == ROOT and action in OF_ROOT):
            return True
        asked, action = action, of_version(action, version)
        if self._open and self.who.plainly(action, self._name, keys=bool(key)):
            return True
        resource = object_arn(self._name, key) if key else bucket_arn(self._name)
        context = self._about(action, version, more)
        by_tags = bool(key) and self._goes_by_tags() and keys.KEYS[_TAG].applies(action.lower())
        if by_tags:
            found = row or await self._row(key, version)
            context = {**context, **keys.existing_tags(found.tags if found is not None else {})}
        ask, policy = Ask(self.who.asker, action, resource, context, self._memo), self._policy
        by_acl = False
        if granted:
            allowed = self.who.allowed(ask, policy, granted=True)
            self._refused = self._refused if allowed else ask
            return allowed
        if not self.who.allowed(ask, policy):
            by_acl = bool(key) and not self._granted_by_bucket(action)
            if not await self._granted(action, key, version, row) or not self.who.allowed(ask, policy, granted=True):
                self._refused = ask
                return False
        if row is None and (by_tags or by_acl):
            self._rested.append((asked, key, version, more))
        return True

    async def open(self, key: bytes, version: str, *, whole: bool = False) -> Opened:
        """Open an object that the requester may do something to: what its tags or ACL allowed is allowed of this very
        version. `whole` where its bytes are wanted. Raises S3Error."""
        opened = await open_object(self._gateway, self._name, key, version, self._bucket, whole=whole)
        if self._rested:
            await self.confirm(key, version, opened.row)
        return opened

    async def confirm(self, key: bytes, version: str, row: Object) -> None:
        """Judge of the version that was opened what was allowed by one that may have been another. Raises S3Error."""
        for action, asked_key, asked_version, more in self._rested:
            if (asked_key, asked_version) == (key, version) and not await self.may(action, key, version, more, row):
                raise self.refusal()

    def could(self, action: str) -> bool:
        """Whether the requester may do it, or it to versions, to anything in the bucket: before a body is read that
        says what."""
        policy = self._policy
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
        partition = partition_of(self._bucket.id, key, self._gateway.partitions)
        found = await self._gateway.node.find_object(partition, self._bucket.id, key, version)
        return decode_object(found.value)[0] if found is not None else None

    def denies_everywhere(self, action: str) -> bool:
        """Whether the requester is denied an action, that is on no bucket of its own, whatever the bucket."""
        ask = Ask(self.who.asker, action, bucket_arn("*"), self._about(action, "", None))
        policies = (*self.who.policies, *sum(self.who.limits, ()))
        return any(one.decide(ask) == DENY for one in policies)

    def _goes_by_tags(self) -> bool:
        """Whether a policy asks for tags of objects."""
        if self._by_tags is None:
            self._by_tags = self._asks_for(_TAG)
        return self._by_tags

    def _asks_for(self, prefix: str) -> bool:
        policies = (*self.who.policies, *sum(self.who.limits, ()), *([self._policy] if self._policy else []))
        return any(one.asks_for(prefix) for one in policies)

    async def look_at_upload(self, key: bytes, upload: str) -> None:
        """Judge what follows in an upload by the encryption that it was begun with, which no later request says again:
        where a policy asks for that. Comes before anything is asked."""
        if self._bucket is None or not self._asks_for(_SEALED):
            return
        begun: Upload | Object | None = await find_begun(self._gateway, self._name, key, upload, b"")
        if begun is None:  # completed before, perhaps: a repeat is told what was answered then
            row = await self._row(key, "")
            begun = row if row is not None and row.upload and row.upload.hex() == upload.lower() else None
        if begun is not None:
            told = encryption.shown(begun.sealing, {})
            own = {f"s3:{name}": (value,) for name, value in told.items()}
            self._whole = {**context_of(self._request, self._gateway.clock), **own}

    def _about(self, action: str, version: str, more: More | None) -> keys.Values:
        """The condition keys that an action has. Where `more` says what is asked, the request's headers do not."""
        if action not in self._contexts:
            if self._whole is None:
                self._whole = context_of(self._request, self._gateway.clock)
            self._contexts[action] = keys.for_action(self._whole, action)
        found = self._contexts[action]
        if version or more is not None:
            asked = {**(more or {}), **({"s3:versionid": (version,)} if version else {})}
            kept = found if more is None else {name: value for name, value in found.items() if not keys.is_asked(name)}
            found = {**kept, **keys.for_action(asked, action)}
        return found


def context_of(request: S3Request, clock: Callable[[], float] = time.time) -> keys.Values:
    """The condition keys that a request fills by itself (keys.KEYS), whatever they apply to."""
    transport, claim = request.http.transport, request.claim
    tls: SSLObject | None = transport.get_extra_info("ssl_object") if transport is not None else None
    facts = Facts(
        request.headers,
        request.query,
        request.operation,
        clock(),
        request.http.remote or "",
        (tls.version() or "").removeprefix("TLSv") if tls is not None else "",
        about=request.requester.about,
    )
    if claim is not None:
        signed = "REST-QUERY-STRING" if claim.presigned else "POST" if request.form is not None else "REST-HEADER"
        facts = replace(
            facts,
            signed=signed,
            algorithm=claim.algorithm,
            signed_at=sigv4.parse_time(claim.timestamp),
            region=claim.region,
            payload=claim.payload_hash,
        )
    return keys.context_of(facts)


class Call(msgspec.Struct, frozen=True):
    """A request that may go on to its operation, with what was found out on the way: `bucket` is the row of the
    request's own, None where there is none. Only `authorize` makes one, and operations are given nothing less."""

    request: S3Request
    bucket: Bucket | None
    authorizer: Authorizer

    def must_exist(self) -> Bucket:
        """The row of the request's bucket, as it was when the request was judged: for what reads no body before it
        decides. Raises S3Error NoSuchBucket."""
        if self.bucket is None:
            raise S3Error("NoSuchBucket", BucketName=self.request.bucket)
        return self.bucket

    async def open(self) -> Opened:
        """The version that the request names. Raises S3Error."""
        return await self.authorizer.open(self.request.key, self.request.query.get("versionId", ""))

    @property
    def origin(self) -> Origin:
        """As events tell it."""
        return Origin(self.request.user, self.request.http.remote or "", self.request.id)

    @property
    def caller(self) -> str:
        """The name of who asks: the owner of what is made."""
        return self.request.user


async def authorizer_of(gateway: Gateway, request: S3Request, name: str) -> Authorizer:
    """For another bucket than the request's own, such as a copy's source."""
    return Authorizer(gateway, request, name, await gateway.node.find_bucket(name))


async def authorize(gateway: Gateway, request: S3Request) -> Call:
    """The call that a request becomes. Raises S3Error AccessDenied where the requester may not do the operation.

    The operation itself asks for what only it knows: the keys of a DeleteObjects, tags in a body, the source of a copy.
    """
    bucket = await gateway.node.find_bucket(request.bucket) if request.bucket else None
    gateway.bucket_rates.note(request.bucket, documents.rate_of(bucket) if bucket is not None else NO_RATE)
    authorizer = Authorizer(gateway, request, request.bucket, bucket)
    call = Call(request, bucket, authorizer)
    if not _OWNERS.isdisjoint(request.headers):
        _check_owners(request)
    if authorizer.free:
        return call
    if request.operation in _OF_UPLOAD:
        await authorizer.look_at_upload(request.key, request.query.get("uploadId", ""))
    action, level = NEEDS[request.operation]
    if request.operation in _LATER:
        if not authorizer.could(action):
            error = S3Error("AccessDenied")
            error.why = lambda: f"{action}: nothing allows it on anything in this bucket"
            raise error
    elif level == BUCKET:
        await authorizer.must(action)
    elif level == OBJECT:
        await _must_on_object(gateway, call, action)
    if request.operation == "GetObjectAttributes":
        await authorizer.must("s3:GetObjectAttributes", request.key, request.query.get("versionId", ""))
    if "x-amz-tagging" in request.headers and request.key:
        await authorizer.must("s3:PutObjectTagging", request.key)
    if "if-match" in request.headers and request.operation in conditions.TAKEN:
        await _must_know_etag(call)
    return call


async def _must_know_etag(call: Call) -> None:
    """Raises S3Error where a write's If-Match would tell the ETag, an MD5 of the content, to who may not read it."""
    request = call.request
    if conditions.etag_of(request.headers["if-match"]) != "*":
        await call.authorizer.must("s3:GetObject", request.key, request.query.get("versionId", ""))


def _check_owners(request: S3Request) -> None:
    """Raises S3Error where the request wants its buckets to be of another account than the one there is."""
    for header in sorted(_OWNERS & request.headers.keys()):
        if (named := request.headers[header]) != ACCOUNT:
            if names.number(named, 0, 10**12 - 1) is None or len(named) != len(ACCOUNT):
                raise S3Error("InvalidBucketOwnerAWSAccountID")
            raise S3Error("AccessDenied")


async def _must_on_object(gateway: Gateway, call: Call, action: str) -> None:
    """Raises S3Error: AccessDenied, or that the key is not there, to strangers in a bucket that everybody may list."""
    request, authorizer = call.request, call.authorizer
    version = request.query.get("versionId", "")
    if await authorizer.may(action, request.key, version):
        return
    if request.operation in _OF_INITIATOR and authorizer.who.name and call.bucket is not None:
        text = request.query.get("uploadId", "")
        begun = await find_begun(gateway, request.bucket, request.key, text, b"")
        if (
            begun is not None
            and begun.owner == request.user
            and await authorizer.may(action, request.key, granted=True)
        ):
            return
    if (
        request.operation in _READS
        and authorizer.who.kind == ANONYMOUS
        and await authorizer.may("s3:ListBucket")
        and await authorizer.may(action, request.key, version, granted=True)
    ):
        try:
            await open_object(gateway, request.bucket, request.key, version, call.bucket)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchVersion"):
                error.told = True
                raise
    raise authorizer.refusal()


async def hidden(authorizer: Authorizer, error: S3Error) -> S3Error:
    """An error as the requester may see it: that a key is not there is for those only who may list its bucket. Who
    opens something of another bucket than the request's asks that bucket's authorizer."""
    if error.told or error.code not in ("NoSuchKey", "NoSuchVersion"):
        return error
    if not await authorizer.may("s3:ListBucket"):
        error = authorizer.refusal()
    error.told = True
    return error
