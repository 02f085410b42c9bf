"""Which operation a request asks for, from its method, address, query and headers.

What S3 has and this server has not is answered NotImplemented by name: never a silent yes.
"""

from __future__ import annotations

from collections.abc import Mapping

from s4.s3.errors import S3Error
from s4.s3.operations import BUCKET, OBJECT, OPERATIONS


def _addresses(at: str) -> dict[str, dict[str, str]]:
    """Query name -> method -> operation; without a name what the address itself is asked."""
    found: dict[str, dict[str, str]] = {}
    for one in OPERATIONS:
        if one.at == at and one.method:
            for name in one.query.split() or [""]:
                found.setdefault(name, {})[one.method] = one.name
    return found


OF_BUCKET, OF_OBJECT = _addresses(BUCKET), _addresses(OBJECT)
_PLAIN_BUCKET, _PLAIN_OBJECT = OF_BUCKET.pop(""), OF_OBJECT.pop("")
_UNSET = {one.query: one.name for one in OPERATIONS if one.unset and one.query}
# What asks for one of these, by its id.
BY_ID = {name: name.replace("List", "Get").removesuffix("s") for name in _UNSET.values() if name.startswith("List")}

# Query names of S3's that stand for operations which S4 has not.
_UNSUPPORTED = frozenset(
    {
        "annotation",
        "metadataAnnotationTable",
        "metadataInventoryTable",
        "metadataJournalTable",
        "restore",
        "select",
        "session",
        "torrent",
    }
)
_UNSUPPORTED_OF_OBJECT = _UNSUPPORTED | {"encryption", *_UNSET}


def route(method: str, bucket: str, key: bytes, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """The operation's name in the S3 API. Raises S3Error MethodNotAllowed or NotImplemented."""
    unsupported = _UNSUPPORTED_OF_OBJECT if key else _UNSUPPORTED
    if query and not unsupported.isdisjoint(query):
        raise S3Error("NotImplemented", f"S4 does not implement {', '.join(sorted(unsupported & query.keys()))}.")
    if bucket == "WriteGetObjectResponse":  # of Object Lambda; no bucket can have this name
        raise S3Error("NotImplemented", "S4 does not implement WriteGetObjectResponse.")
    lacking = [name for name in _UNSET if name in query] if query and not key and method != "GET" else ()
    if lacking:
        raise S3Error("NotImplemented", f"S4 does not implement {lacking[0]}.")
    if key:
        operation = _find(OF_OBJECT, _PLAIN_OBJECT, method, query)
        if operation == "UploadPart" and "partNumber" not in query:
            raise S3Error(
                "MethodNotAllowed", headers={"Allow": "DELETE, GET, POST"}, Method=method, ResourceType="UPLOAD"
            )
        if "x-amz-copy-source" in headers and operation in ("PutObject", "UploadPart"):
            operation = "CopyObject" if operation == "PutObject" else "UploadPartCopy"
    elif bucket:
        operation = _find(OF_BUCKET, _PLAIN_BUCKET, method, query)
        if operation == "ListObjects" and query.get("list-type") == "2":
            operation = "ListObjectsV2"
        elif "id" in query:
            operation = BY_ID.get(operation, operation)
    else:
        operation = "ListBuckets" if method == "GET" else ""
    if not operation:
        raise S3Error(
            "MethodNotAllowed",
            headers={"Allow": ", ".join(sorted(_allowed(bucket, key, query)))},
            Method=method,
            ResourceType="OBJECT" if key else "BUCKET" if bucket else "SERVICE",
        )
    return operation


def _find(
    special: Mapping[str, Mapping[str, str]], plain: Mapping[str, str], method: str, query: Mapping[str, str]
) -> str:
    if query:
        for name, methods in special.items():
            if name in query and (method in methods or (name != "partNumber" and method != "HEAD")):
                return methods.get(method, "")
    return plain.get(method, "")


def _allowed(bucket: str, key: bytes, query: Mapping[str, str]) -> set[str]:
    """The methods that an address has (RFC 9110, 15.5.6)."""
    special = OF_OBJECT if key else OF_BUCKET
    asked = [methods for name, methods in special.items() if name in query and name != "partNumber"] if bucket else []
    if asked:
        return set(asked[0])
    return set(_PLAIN_OBJECT) if key else {*_PLAIN_BUCKET, "POST"} if bucket else {"GET"}
