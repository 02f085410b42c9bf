"""S3 Control, AWS's second API of S3, as far as it is about buckets: their tags, which Terraform's provider reads and
writes this way. It is signed for S3, has addresses of its own (`/v20180820/…`, with the account in x-amz-account-id),
and wraps its errors.

A call names its bucket by an ARN; from there on it is an operation on that bucket like any other: authenticated,
authorized and audited in the same places. What else S3 Control has is NotImplemented. Source: Amazon S3 Control API
reference; botocore's model of s3control.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from s4.access import documents
from s4.access.keys import TAG_KEYS, of_labels
from s4.access.policy import ACCOUNT
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.http import lending
from s4.http.answers import XML, Answer, respond
from s4.http.authorize import Call, authorize
from s4.http.request import S3Request, check_unsigned
from s4.s3 import amz, tags
from s4.s3.errors import S3Error
from s4.s3.xml import HEAD, tag

NAMESPACE = "http://awss3control.amazonaws.com/doc/2018-08-20/"
_START = "/v20180820/"
_TAGS = {"GET": "ListTagsForResource", "POST": "TagResource", "DELETE": "UntagResource"}
_BUCKET = re.compile(r"arn:aws:s3:::([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])").fullmatch
_OTHERS = re.compile(
    r"arn:aws:s3(express)?:[a-z0-9-]+:\d{12}:.+"
).fullmatch  # storage lens groups, access grants, directories
_TRIES = 5


def is_call(request: S3Request) -> bool:
    """Whether a request speaks S3 Control: what is said to a bucket that is called v20180820 names no account."""
    return request.path.startswith(_START) and "x-amz-account-id" in request.headers


async def serve(gateway: Gateway, request: S3Request, authenticate: Callable[[S3Request], Awaitable[None]]) -> Answer:
    """The answer to a call, in S3 Control's form."""
    path = request.path.removeprefix(_START)
    request.bucket, request.key, request.operation = "", b"", "Unknown"
    try:
        await authenticate(request)
        operation, request.bucket = _named(request.method, path)
        request.operation = operation
        amz.check(operation, request.headers)
        if request.claim is None:
            check_unsigned(request)
        if request.headers["x-amz-account-id"] != ACCOUNT:
            raise S3Error("AccessDenied")
        call = await authorize(gateway, request)
        return await OPERATIONS[operation](gateway, call)
    except S3Error as error:
        request.failure, request.refusal = error.code, error
        body = error.element(request.path)
        more = f"<RequestId>{request.id}</RequestId><HostId>{request.id}</HostId>"
        text = f"{HEAD}<ErrorResponse>{body}{more}</ErrorResponse>".encode("utf-8", "replace")
        return respond(error.status, {"Content-Type": XML, **error.headers}, text)


def _named(method: str, path: str) -> tuple[str, str]:
    """(operation, bucket). Raises S3Error."""
    kind, _, rest = path.partition("/")
    if kind != "tags":
        raise S3Error("NotImplemented", "Of S3 Control S4 implements the tags of buckets only.")
    operation = _TAGS.get(method, "")
    if not operation:
        raise S3Error("MethodNotAllowed", headers={"Allow": ", ".join(_TAGS)}, Method=method, ResourceType="TAGS")
    arn = unquote(rest, errors="replace")
    found = _BUCKET(arn)
    if found is None:
        if _OTHERS(arn):
            raise S3Error("NotImplemented", "Of S3 Control S4 implements the tags of buckets only.")
        raise S3Error("InvalidRequest", "The resource's ARN is not valid.", ResourceArn=arn)
    return operation, found[1]


async def _list(gateway: Gateway, call: Call) -> Answer:
    found = documents.tags_of(call.must_exist())
    root = "ListTagsForResourceResult"
    listed = "".join(f"<Tag>{tag('Key', name)}{tag('Value', value)}</Tag>" for name, value in found.items())
    text = f'{HEAD}<{root} xmlns="{NAMESPACE}"><Tags>{listed}</Tags></{root}>'
    return respond(200, {"Content-Type": XML}, text.encode())


async def _tag(gateway: Gateway, call: Call) -> Answer:
    brought = tags.of_control(await call.request.xml("TagResourceRequest"))
    await call.authorizer.must("s3:TagResource", more=of_labels(brought))
    await _change(gateway, call, lambda held: {**held, **brought})
    return respond(204)


async def _untag(gateway: Gateway, call: Call) -> Answer:
    named = [value for name, value in call.request.pairs if name == "tagKeys"]
    if not named:
        raise S3Error("InvalidRequest", "tagKeys must name at least one tag.")
    await call.authorizer.must("s3:UntagResource", more={TAG_KEYS: tuple(named)})
    await _change(
        gateway,
        call,
        lambda held: {name: value for name, value in held.items() if name not in named},
    )
    return respond(204)


async def _change(gateway: Gateway, call: Call, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Change a bucket's tags from what they are, as one step."""
    name = call.request.bucket
    for left in range(_TRIES, 0, -1):
        bucket = await find_bucket(gateway, name)
        wanted = tags.check(change(documents.tags_of(bucket)).items(), tags.OF_BUCKET)
        lending.check(call, bucket, wanted)
        text = documents.encode(wanted) if wanted else ""
        try:
            await set_document(gateway, name, documents.TAGS, text, bucket, (documents.TAGS,))
        except S3Error as error:
            if error.code != "OperationAborted" or left == 1:
                raise
        else:
            return


OPERATIONS = {"ListTagsForResource": _list, "TagResource": _tag, "UntagResource": _untag}
