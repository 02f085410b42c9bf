"""Which operation a request asks for, from its method, address, query and headers.

What S3 has and this server has not is answered NotImplemented by name: never a silent yes.
"""

from __future__ import annotations

from collections.abc import Mapping

from s4.s3.errors import S3Error
from s4.s3.roles import READ, WRITE

# operation -> access that it needs to the bucket
ACCESS = {
    "ListBuckets": READ, "HeadBucket": READ, "GetBucketLocation": READ, "GetBucketVersioning": READ,
    "ListObjects": READ, "ListObjectsV2": READ, "ListObjectVersions": READ, "ListMultipartUploads": READ,
    "GetObject": READ, "HeadObject": READ, "GetObjectAttributes": READ, "ListParts": READ,
    "CreateBucket": WRITE, "DeleteBucket": WRITE, "PutBucketVersioning": WRITE, "DeleteObjects": WRITE,
    "PutObject": WRITE, "CopyObject": WRITE, "DeleteObject": WRITE, "RenameObject": WRITE,
    "CreateMultipartUpload": WRITE, "UploadPart": WRITE, "UploadPartCopy": WRITE,
    "CompleteMultipartUpload": WRITE, "AbortMultipartUpload": WRITE,
}  # fmt: skip

_UNSUPPORTED = frozenset({
    "accelerate", "acl", "analytics", "cors", "encryption", "intelligent-tiering", "inventory", "legal-hold",
    "lifecycle", "logging", "metadataConfiguration", "metadataTable", "metrics", "notification", "object-lock",
    "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "restore",
    "retention", "select", "tagging", "torrent", "website", "session", "abac",
})  # fmt: skip
_UNSUPPORTED_HEADERS = (
    "x-amz-tagging", "x-amz-website-redirect-location", "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold", "x-amz-bucket-object-lock-enabled",
    "x-amz-write-offset-bytes", "x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner",
)  # fmt: skip
_HEADER_PREFIXES = ("x-amz-server-side-encryption", "x-amz-grant-", "x-amz-copy-source-server-side-encryption")
_SIGNED = frozenset(("x-amz-date", "x-amz-content-sha256"))  # in every request
_PRIVATE = ("private", "bucket-owner-full-control", "bucket-owner-read")


def route(method: str, bucket: str, key: bytes, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """The operation's name in the S3 API. Raises S3Error MethodNotAllowed or NotImplemented."""
    if query and not _UNSUPPORTED.isdisjoint(query):
        raise S3Error("NotImplemented", f"S4 does not implement {', '.join(sorted(_UNSUPPORTED & query.keys()))}.")
    check_headers(headers)
    if key:
        operation = _object(method, query, headers)
    elif bucket:
        operation = _bucket(method, query)
    else:
        operation = "ListBuckets" if method == "GET" else ""
    if not operation:
        raise S3Error(
            "MethodNotAllowed", Method=method, ResourceType="OBJECT" if key else "BUCKET" if bucket else "SERVICE"
        )
    return operation


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that ask for what this server would not do."""
    for name, value in headers.items():
        if name in _SIGNED or not name.startswith("x-amz-") or name.startswith("x-amz-meta-"):
            continue
        if name in _UNSUPPORTED_HEADERS or name.startswith(_HEADER_PREFIXES):
            raise S3Error("NotImplemented", f"S4 does not implement the header {name}.")
        if name == "x-amz-acl" and value not in _PRIVATE:
            raise S3Error("NotImplemented", f"S4 does not implement the ACL {value}.")
        if name == "x-amz-storage-class" and value != "STANDARD":
            raise S3Error("NotImplemented", f"S4 does not implement the storage class {value}.")


def _object(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    if method == "GET":
        return "GetObjectAttributes" if "attributes" in query else "ListParts" if "uploadId" in query else "GetObject"
    if method == "HEAD":
        return "HeadObject"
    if method == "PUT":
        if "uploadId" in query or "partNumber" in query:
            return "UploadPartCopy" if "x-amz-copy-source" in headers else "UploadPart"
        if "renameObject" in query:
            return "RenameObject"
        return "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
    if method == "POST":
        return (
            "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload" if "uploadId" in query else ""
        )
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    return ""


def _bucket(method: str, query: Mapping[str, str]) -> str:
    if method == "GET":
        for name, operation in (("location", "GetBucketLocation"), ("versioning", "GetBucketVersioning"),
                                ("versions", "ListObjectVersions"), ("uploads", "ListMultipartUploads")):  # fmt: skip
            if name in query:
                return operation
        return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
    if method == "PUT":
        return "PutBucketVersioning" if "versioning" in query else "CreateBucket"
    if method == "POST":
        return "DeleteObjects" if "delete" in query else ""
    return {"HEAD": "HeadBucket", "DELETE": "DeleteBucket"}.get(method, "")
