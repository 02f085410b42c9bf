"""The registry of query parameters, as `amz.py` is of x-amz-* names: which of them an operation takes. Pure.

S3 passes over what it does not know, and so does S4 where an object is read (pages add parameters so that no cache
answers) and where a name begins with x-, which S3 leaves to its clients. Everywhere else a name that is passed over
may be a setting or an operation that S4 has not: `PUT /bucket/key?next` would replace the object by what is said about
it, `DELETE /bucket?next` delete the bucket, `GET /bucket?next` list its objects, in which a client finds a setting
that was never set.

- A name that nobody knows: NotImplemented, of a write, or of a read of a bucket where it has no value, as what
  names a setting has.
- A name of another operation, of a write: InvalidArgument. Two operations in one address, and a name with two
  values: the same.
Source: botocore's model of S3; S3 user guide, "Custom access log information".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from s4.s3.errors import S3Error
from s4.s3.routing import BY_ID, OF_BUCKET, OF_OBJECT

_PAGES = frozenset(("prefix", "delimiter", "encoding-type"))
_OVERRIDES = frozenset(
    f"response-{name}"
    for name in (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    )
)
_OF_VERSION = frozenset(
    (
        "GetObject",
        "HeadObject",
        "DeleteObject",
        "GetObjectAttributes",
        "GetObjectTagging",
        "PutObjectTagging",
        "DeleteObjectTagging",
        "GetObjectAcl",
        "PutObjectAcl",
        "GetObjectRetention",
        "PutObjectRetention",
        "GetObjectLegalHold",
        "PutObjectLegalHold",
    )
)
_VERSION = frozenset(("versionId",))
_OWN: dict[str, frozenset[str]] = {
    "ListBuckets": frozenset(("prefix", "continuation-token", "max-buckets", "bucket-region")),
    "ListObjects": _PAGES | {"marker", "max-keys"},
    "ListObjectsV2": _PAGES | {"list-type", "start-after", "continuation-token", "fetch-owner", "max-keys"},
    "ListObjectVersions": _PAGES | {"key-marker", "version-id-marker", "max-keys"},
    "ListMultipartUploads": _PAGES | {"key-marker", "upload-id-marker", "max-uploads"},
    "ListParts": frozenset(("max-parts", "part-number-marker", "encoding-type")),
    "GetObject": _OVERRIDES | {"partNumber"},
    "HeadObject": _OVERRIDES | {"partNumber"},
    "UploadPart": frozenset(("partNumber",)),
    "UploadPartCopy": frozenset(("uploadId", "partNumber")),
}
_SUBRESOURCES = frozenset((*OF_BUCKET, *OF_OBJECT)) - {"partNumber"}
_OLD = frozenset(("AWSAccessKeyId", "Expires", "Signature"))  # of an address that is signed by version 2 (sigv2.py)
_AS_HEADERS = frozenset(("content-type", "content-md5"))  # in such an address


def _taken() -> dict[str, frozenset[str]]:
    found = dict(_OWN)
    for table in (OF_BUCKET, OF_OBJECT):
        for name, methods in table.items():
            for operation in methods.values():
                found[operation] = found.get(operation, frozenset()) | {name}
    for many, by_id in BY_ID.items():
        found[by_id] = found[many] | {"id"}
        found[many] |= {"continuation-token"}
    for operation in _OF_VERSION:
        found[operation] = found.get(operation, frozenset()) | _VERSION
    return found


TAKEN = _taken()
KNOWN = frozenset().union(*TAKEN.values())
_NONE: frozenset[str] = frozenset()
_READS = ("Get", "Head", "List")
_OF_BUCKETS = frozenset(
    (
        "ListBuckets",
        "ListObjects",
        "ListObjectsV2",
        *BY_ID.values(),
        *(one for of in OF_BUCKET.values() for one in of.values()),
    )
)
_MARKS = {
    "version-id-marker": "A version-id marker cannot be empty.",
    "versionId": "Version id cannot be the empty string",
}


def check(operation: str, query: Mapping[str, str], pairs: Iterable[tuple[str, str]] = ()) -> None:
    """Raises S3Error for a parameter that the operation would pass over. `pairs` are all of the query, of which
    `query` has the first of each name."""
    if not query:
        return
    mine = TAKEN.get(operation, _NONE)
    if "versionId" in query and "versionId" not in mine:
        raise _wrong("versionId", query["versionId"], "This operation does not accept a version-id.")
    for name, message in _MARKS.items():
        if query.get(name) == "" and name in mine:
            raise _wrong(name, "", message)
    if operation == "ListObjects" and "list-type" in query:
        raise _wrong("list-type", query["list-type"], "Invalid List Type specified in Request")
    asked = _SUBRESOURCES & query.keys()
    if len(asked) > 1:
        raise _wrong("ResourceType", min(asked), f"Conflicting query string parameters: {', '.join(sorted(asked))}")
    old = "AWSAccessKeyId" in query
    for name in query.keys() - mine:
        if not (old and (name in _OLD or name.lower() in _AS_HEADERS)):
            _judge(operation, name, query[name])
    for name, value in pairs:
        if query[name] != value and name in mine:
            raise _wrong(name, value, f"{name} is given twice, with different values.")


def _judge(operation: str, name: str, value: str) -> None:
    """Of a name that the operation does not take. Raises S3Error."""
    if name[:2].lower() == "x-":
        return
    if operation.startswith(_READS) and (value or operation not in _OF_BUCKETS or name in KNOWN - _SUBRESOURCES):
        return
    if name in KNOWN:
        raise _wrong(name, value, f"{name} is not supported for this operation ({operation}).")
    raise S3Error("NotImplemented", f"S4 does not implement the parameter {name}.", ArgumentName=name)


def _wrong(name: str, value: str, message: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)
