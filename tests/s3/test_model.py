"""botocore's model of S3 as a registry: whatever an operation can be told, S4 obeys or refuses in words.

For every operation that S4 has, each input that the model puts into a header, the query or the body is sent with a
value that cannot be right, to the endpoint in this process. It is refused, or stands in `ANYTHING`, with why every
value is right. What the model lacks, names of next year's among it, is refused where it could be passed over. A new
botocore that brings a name fails here until somebody decides on it. It costs three seconds of a processor: some
thousand requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.session
import pytest

from fuzz.endpoint import Endpoint, endpoint
from inprocess import put
from raw import Answer, signed
from s4.crypto.keyring import Keyring
from s4.gateway.buckets import create_bucket
from s4.gateway.multipart import create_upload
from s4.gateway.objects import Attributes
from s4.http.operations import OPERATIONS
from s4.s3 import amz, conditions, parameters
from s4.s3.errors import S3Error
from s4.s3.schemas import MANY, SCHEMAS, UNREAD, Schema
from s4.s3.xml import parse

MODEL = botocore.session.get_session().get_service_model("s3")
NAMES = [name for name in OPERATIONS if name in MODEL.operation_names]
READS = ("Get", "Head", "List")
NONSENSE = "?!nonsense"
UPLOADS = ("UploadPart", "UploadPartCopy", "ListParts", "CompleteMultipartUpload", "AbortMultipartUpload")
ETAG = hashlib.md5(b"part").hexdigest()
KEY_HOLDER = "0" * 64

# Names of which any value is right: why.
ANYTHING = {
    "x-amz-meta-": "metadata is the client's own",
    **dict.fromkeys(
        ("Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Expires"),
        "kept, and given back",
    ),
    **dict.fromkeys(
        (
            "response-cache-control",
            "response-content-disposition",
            "response-content-encoding",
            "response-content-language",
            "response-content-type",
            "response-expires",
        ),
        "given back",
    ),
    **dict.fromkeys(("prefix", "delimiter", "marker", "start-after", "key-marker"), "a key, or a piece of one"),
    **dict.fromkeys(
        (
            "If-Modified-Since",
            "If-Unmodified-Since",
            "x-amz-copy-source-if-modified-since",
            "x-amz-copy-source-if-unmodified-since",
            "x-amz-rename-source-if-modified-since",
            "x-amz-rename-source-if-unmodified-since",
        ),
        "what is no date is passed over (RFC 9110, 13.1.3)",
    ),
    **dict.fromkeys(
        ("If-None-Match", "x-amz-rename-source-if-none-match", "x-amz-copy-source-if-none-match"),
        "no object has this ETag, which is what is asked for",
    ),
    "Range": "what is no range of bytes is passed over (RFC 9110, 14.2)",
    "upload-id-marker": "without a key marker it says nothing (API: ListMultipartUploads)",
    "x-amz-client-token": amz.NO_PROMISE["x-amz-client-token"],
    "id": "of settings that S4 lacks: none has it, and none can be",
}
# Elements of which any text is right, by their path's end.
ANY_TEXT = {
    "Tag.Key": "a tag's key",
    "Tag.Value": "a tag's value",
    "CORSRule.AllowedOrigin": "an origin",
    "CORSRule.AllowedHeader": "a pattern of names",
    "CORSRule.ID": "a name",
    "QueueConfiguration.Id": "a name",
    "TopicConfiguration.Id": "a name",
    "Rule.ID": "a name",
    "Rule.Prefix": "a piece of a key",
    "Filter.Prefix": "a piece of a key",
    "And.Prefix": "a piece of a key",
    "ErrorDocument.Key": "a key",
    "IndexDocument.Suffix": "a piece of a key",
    "Condition.KeyPrefixEquals": "a piece of a key",
    "Redirect.ReplaceKeyPrefixWith": "a piece of a key",
    "Redirect.ReplaceKeyWith": "a key",
    "Object.Key": "a key",
    **{f"{root}.{name}": why for (root, name), why in UNREAD.items()},
    "Owner.ID": UNREAD["AccessControlPolicy", "Owner"],
    "Owner.DisplayName": UNREAD["AccessControlPolicy", "Owner"],
    "Grantee.DisplayName": UNREAD["AccessControlPolicy", "DisplayName"],
    "Grantee.Type": UNREAD["AccessControlPolicy", "Type"],
    "Part.LastModified": UNREAD["CompleteMultipartUpload", "LastModified"],
    "Part.Size": UNREAD["CompleteMultipartUpload", "Size"],
}

_GRANT = f"<Grant><Grantee><ID>{KEY_HOLDER}</ID></Grantee><Permission>READ</Permission></Grant>"
# A right body for each operation that has one; for another element than these have `_with` makes the way to it.
BODIES = {
    "CreateBucket": "<CreateBucketConfiguration/>",
    "PutBucketVersioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "PutBucketTagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "PutObjectTagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "PutBucketPolicy": '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::settings/*"}]}',
    "PutPublicAccessBlock": "<PublicAccessBlockConfiguration><BlockPublicAcls>false</BlockPublicAcls></PublicAccessBlockConfiguration>",
    "PutBucketOwnershipControls": "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
    "PutBucketAcl": f"<AccessControlPolicy><Owner><ID>x</ID></Owner><AccessControlList>{_GRANT}</AccessControlList></AccessControlPolicy>",
    "PutObjectAcl": f"<AccessControlPolicy><Owner><ID>x</ID></Owner><AccessControlList>{_GRANT}</AccessControlList></AccessControlPolicy>",
    "PutBucketCors": "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>",
    "PutBucketWebsite": "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Redirect><HostName>h</HostName></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>",
    "PutBucketLifecycleConfiguration": "<LifecycleConfiguration><Rule><Filter><Prefix>a</Prefix></Filter><Status>Enabled</Status><Expiration><Days>9</Days></Expiration></Rule></LifecycleConfiguration>",
    "PutBucketNotificationConfiguration": "<NotificationConfiguration><QueueConfiguration><Queue>arn:aws:sqs:us-east-1:000000000000:hook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>",
    "PutBucketEncryption": "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    "PutObjectLockConfiguration": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    "PutObjectRetention": "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
    "PutObjectLegalHold": "<LegalHold><Status>OFF</Status></LegalHold>",
    "DeleteObjects": "<Delete><Object><Key>k</Key></Object></Delete>",
    "CompleteMultipartUpload": f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{ETAG}</ETag></Part></CompleteMultipartUpload>",
    "PutObject": "inline",
    "UploadPart": "part",
}
NEVER_SET = ("ReplicationConfigurationNotFoundError", "MetadataConfigurationNotFound")  # settings that S4 lacks
LOCKED = (
    "GetObjectLockConfiguration",
    "PutObjectLockConfiguration",
    "GetObjectRetention",
    "PutObjectRetention",
    "GetObjectLegalHold",
    "PutObjectLegalHold",
)


# What must be there to be read; others deleted it.
SETTING_OF = {
    name: "Put" + name.removeprefix("Get")
    for name in NAMES
    if name.startswith("Get") and "Put" + name.removeprefix("Get") in BODIES
}
SETTING_OF |= {"GetBucketPolicyStatus": "PutBucketPolicy", "GetPublicAccessBlock": "PutPublicAccessBlock"}


class S3:
    """The endpoint, where every operation finds what it needs."""

    def __init__(self, made: Endpoint, runner: asyncio.Runner) -> None:
        self.made, self.run, self._number = made, runner.run, 0
        self.made.gateway.receivers = {"hook": object()}  # type: ignore[dict-item, assignment]  # told of nothing here
        self.made.gateway.keyring = Keyring(bytes(32))
        for bucket in ("settings", "plain"):
            self.run(create_bucket(made.gateway, bucket, "root"))
        self.run(create_bucket(made.gateway, "locked", "root", lock=True))
        assert (
            self.send("PUT", "/plain", {"ownershipControls": ""}, {}, BODIES["PutBucketOwnershipControls"]).status
            == 200
        )
        for operation in ("PutPublicAccessBlock", "PutBucketOwnershipControls", *BODIES):
            if operation.startswith("Put") and operation != "PutObject":
                assert self.ask(operation).status < 300, operation

    def ask(
        self,
        operation: str,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        body: str | None = None,
    ) -> Answer:
        """The answer to an operation that would succeed but for what is said besides."""
        if operation in SETTING_OF:
            self.ask(SETTING_OF[operation])
        http, made = MODEL.operation_model(operation).http, self.made
        path, _, own = http["requestUri"].partition("?")
        bucket = "locked" if operation in LOCKED else "settings" if self._of_settings(operation) else "plain"
        key, more, sent = "k", dict(headers or {}), BODIES.get(operation, "") if body is None else body
        self._number += 1
        if "{Key+}" in path and operation not in UPLOADS and operation not in SETTING_OF:
            self.run(put(made.gateway, bucket, b"k", b"inline"))
        if operation == "DeleteBucket":
            bucket = f"new-{self._number}"
            self.run(create_bucket(made.gateway, bucket, "root"))
        if operation == "CreateBucket":
            bucket = f"new-{self._number}"
        if operation in ("CopyObject", "UploadPartCopy"):
            more = {"x-amz-copy-source": "/bbb/k", **more}
        if operation == "RenameObject":
            more, key = {"x-amz-rename-source": "/plain/k", **more}, f"renamed-{self._number}"
        if operation == "GetObjectAttributes":
            more = {"x-amz-object-attributes": "ETag", **more}
        asked = dict(pair.partition("=")[::2] for pair in own.split("&") if pair)
        if operation in UPLOADS:
            key = "m"
            asked["uploadId"] = self._upload(bucket, filled=operation == "CompleteMultipartUpload")
            if operation.startswith("UploadPart"):
                asked["partNumber"] = "1"
        asked = {**asked, **(query or {})}
        target = path.replace("{Bucket}", bucket).replace("{Key+}", key)
        return self.send(http["method"], target, asked, more, sent)

    def _of_settings(self, operation: str) -> bool:
        return (
            "Bucket" in operation and operation not in ("CreateBucket", "DeleteBucket", "ListBuckets", "HeadBucket")
        ) or "PublicAccess" in operation

    def _upload(self, bucket: str, *, filled: bool) -> str:
        upload, _ = self.run(create_upload(self.made.gateway, bucket, b"m", Attributes(), "root", "", ""))
        if filled:
            self.send("PUT", f"/{bucket}/m", {"partNumber": "1", "uploadId": upload}, {}, "part")
        return upload

    def send(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: str) -> Answer:
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        target, sent, raw = signed(
            "http://localhost",
            method,
            path,
            query=text,
            headers=headers,
            body=body.encode(),
            access=self.made.access,
            secret=self.made.secret,
        )
        lines = [
            f"{method} {target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in sent.items() if name.lower() not in ("host", "content-length")),
        ]
        length = [] if any(name.lower() == "content-length" for name in headers) else [f"content-length: {len(raw)}"]
        head = "\r\n".join([*lines, "host: localhost", *length, "connection: close", "", ""])
        received = self.run(self.made.send(head.encode("utf-8") + raw))
        return Answer(int(received.split(b" ", 2)[1]), {}, received)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with asyncio.Runner() as runner:
        made = endpoint(Path(tmp_path_factory.mktemp("model")), time.time)
        yield S3(runner.run(made.__aenter__()), runner)
        runner.run(made.__aexit__(None, None, None))


def inputs(operation: str) -> Iterator[tuple[str, str]]:
    """(where, name) of each header and parameter of an operation."""
    shape = MODEL.operation_model(operation).input_shape
    for member in (shape.members if shape else {}).values():
        where, name = member.serialization.get("location", ""), member.serialization.get("name", "")
        if where in ("header", "headers", "querystring"):
            yield where, name


@pytest.mark.parametrize("operation", NAMES)
def test_what_an_operation_can_be_told_is_obeyed_or_refused(s3: S3, operation: str) -> None:
    plain = s3.ask(operation)
    assert plain.status < 300 or plain.code in NEVER_SET, plain.body
    for where, name in inputs(operation):
        if name == "Content-Length" or (where == "headers" and name in ANYTHING):
            continue
        said = {name: NONSENSE}
        answer = s3.ask(operation, query=said) if where == "querystring" else s3.ask(operation, headers=said)
        if name in ANYTHING:
            assert answer.status != 500, (name, answer.body)
        else:
            assert answer.status >= 400, f"{name} is passed over: {answer.body!r}"
            assert answer.code not in ("SignatureDoesNotMatch", "InternalError"), (name, answer.body)


def test_each_name_of_which_anything_is_right_is_in_the_model() -> None:
    assert {name for operation in NAMES for _, name in inputs(operation)} >= set(ANYTHING)
    assert all(ANYTHING.values())


def _elements(shape: Any) -> dict[str, Any]:
    if shape.type_name == "list":
        return _elements(shape.member)
    found: dict[str, Any] = {}
    for name, member in getattr(shape, "members", {}).items():
        if member.serialization.get("xmlAttribute"):
            continue
        flat, inner = member.serialization.get("flattened"), member.member if member.type_name == "list" else member
        within = _elements(inner) if inner.type_name == "structure" else {}
        own = member.serialization.get("name", name)
        found[own] = within if member is inner or flat else {inner.serialization.get("name", "member"): within}
    return found


def _lists(shape: Any, name: str = "") -> Iterator[str]:
    """Names of the elements that the model makes lists of."""
    if shape.type_name == "list":
        yield name if shape.serialization.get("flattened") else shape.member.serialization.get("name", "member")
        yield from _lists(shape.member)
    for own, member in getattr(shape, "members", {}).items():
        yield from _lists(member, member.serialization.get("name", own))


def test_what_may_stand_more_than_once_is_what_the_model_lists() -> None:
    payloads = ((MODEL.operation_model(name).input_shape, _payload(name)) for name in NAMES)
    assert {
        one for shape, found in payloads if found for one in _lists(shape.members[shape.serialization["payload"]])
    } == MANY


def _payload(operation: str) -> tuple[str, dict[str, Any]] | None:
    shape = MODEL.operation_model(operation).input_shape
    name = shape.serialization.get("payload") if shape else None
    if name is None or shape.members[name].type_name != "structure":
        return None
    return shape.members[name].serialization.get("name", name), _elements(shape.members[name])


def _paths(schema: Schema, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in schema.items():
        yield (*before, name)
        yield from _paths(inner, (*before, name))


@pytest.mark.parametrize("operation", [name for name in NAMES if _payload(name)])
def test_a_body_has_the_elements_of_the_model_and_no_others(operation: str) -> None:
    root, elements = _payload(operation) or ("", {})
    extra = {name for of, name in UNREAD if of == root}
    schema = SCHEMAS[root]
    assert {path for path in _paths(schema) if path[-1] not in extra} == {
        path for path in _paths(elements) if path[-1] not in extra
    }
    for path in ((), *_paths(schema)):
        if path and path[-1] not in MANY:
            inner = (
                "".join(f"<{name}>" for name in path[:-1])
                + 2 * f"<{path[-1]}/>"
                + "".join(f"</{name}>" for name in reversed(path[:-1]))
            )
            with pytest.raises(S3Error, match=r"MalformedXML.*twice"):
                parse(f"<{root}>{inner}</{root}>".encode(), root, 20)
        text = (
            f"<{root}>"
            + "".join(f"<{name}>" for name in path)
            + "<Next/>"
            + "".join(f"</{name}>" for name in reversed(path))
            + f"</{root}>"
        )
        with pytest.raises(S3Error, match=r"MalformedXML.*Next"):
            parse(text.encode(), root, 20)


def _with(body: str, root: str, path: tuple[str, ...], value: str) -> str:
    """A body with a value at a path: where the body has that element it is changed, else added beside what is there."""
    opening, at = body, len(f"<{root}>") if f"<{root}/>" not in body else 0
    if not at:
        opening, at = f"<{root}></{root}>", len(f"<{root}>")
    for depth, name in enumerate(path):
        found = opening.find(f"<{name}>", at)
        if found < 0:
            inner = (
                "".join(f"<{one}>" for one in path[depth:])
                + value
                + "".join(f"</{one}>" for one in reversed(path[depth:]))
            )
            return opening[:at] + inner + opening[at:]
        at = found + len(f"<{name}>")
    return opening[:at] + value + opening[opening.index("</", at) :]


@pytest.mark.parametrize("operation", [name for name in NAMES if _payload(name)])
def test_each_element_of_a_body_is_obeyed_or_refused(s3: S3, operation: str) -> None:
    root, _ = _payload(operation) or ("", {})
    for path in _paths(SCHEMAS[root]):
        inner: Any = SCHEMAS[root]
        for name in path:
            inner = inner[name]
        if inner:
            continue
        body = _with(BODIES[operation], root, path, NONSENSE)
        answer = s3.ask(operation, body=body)
        if ".".join(path[-2:]) in ANY_TEXT:
            assert answer.status != 500, (path, answer.body)
        else:
            refused = answer.status >= 400 or b"<Error>" in answer.body
            assert refused, f"{'.'.join(path)} is passed over: {body}"


@pytest.mark.parametrize("operation", [name for name in NAMES if not name.startswith(READS)])
def test_a_write_is_told_nothing_that_it_passes_over(s3: S3, operation: str) -> None:
    """A parameter or a condition that it does not take is refused: it could be another operation of next year's."""
    for query in ({"next": ""}, {"next": "1"}, {"prefix": "a"}):
        assert s3.ask(operation, query=query).code in ("NotImplemented", "InvalidArgument"), query
    for name in sorted(conditions.HEADERS - conditions.TAKEN.get(operation, frozenset())):
        assert s3.ask(operation, headers={name: "*"}).code == "NotImplemented", name
    assert s3.ask(operation, query={"x-id": operation, "x-user": "a"}).status < 300


def test_two_operations_in_one_address_are_refused() -> None:
    for operation, query in (
        ("GetBucketAcl", ("acl", "policy")),
        ("ListParts", ("uploadId", "tagging")),
        ("DeleteBucketPolicy", ("cors", "policy")),
    ):
        with pytest.raises(S3Error, match=r"InvalidArgument.*Conflicting"):
            parameters.check(operation, dict.fromkeys(query, "x"))
    for pairs in ([("versionId", "a"), ("versionId", "b")], [("uploadId", "a"), ("uploadId", "b")]):
        with pytest.raises(S3Error, match=r"InvalidArgument.*twice"):
            parameters.check("GetObject" if pairs[0][0] == "versionId" else "ListParts", dict(pairs[:1]), pairs)
    parameters.check(
        "GetObject", {"a": "b", "versionId": "c"}, [("a", "b"), ("a", "c"), ("versionId", "c"), ("versionId", "c")]
    )


def test_a_setting_that_nobody_knows_is_not_a_listing() -> None:
    """What asks a bucket for a setting of next year's would take the list of its objects for one that was never set."""
    for operation in ("ListObjects", "ListBuckets"):
        with pytest.raises(S3Error, match="NotImplemented"):
            parameters.check(operation, {"next": ""})
    parameters.check("ListObjects", {"prefix": "", "marker": "", "v": "123"})
    parameters.check("GetObject", {"20261126": ""})  # what a page adds so that no cache answers
