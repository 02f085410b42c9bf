"""The S3 operations: from request to gateway call to response. One file per family, one table of all."""

from __future__ import annotations

from collections.abc import Awaitable

from s4.gateway.context import Gateway
from s4.http.answers import Answer
from s4.http.authorize import Call
from s4.http.operations import buckets, copies, forms, labels, listing, locks, multipart, objects, settings, unset
from s4.http.operations.settings import Operation

OPERATIONS: dict[str, Operation] = {
    "ListBuckets": buckets.list_buckets,
    "CreateBucket": buckets.create_bucket,
    "HeadBucket": buckets.head_bucket,
    "DeleteBucket": buckets.delete_bucket,
    "GetBucketLocation": buckets.get_location,
    "GetBucketVersioning": buckets.get_versioning,
    "PutBucketVersioning": buckets.put_versioning,
    "GetObjectLockConfiguration": locks.get_configuration,
    "PutObjectLockConfiguration": locks.put_configuration,
    "GetObjectRetention": locks.get_retention,
    "PutObjectRetention": locks.put_retention,
    "GetObjectLegalHold": locks.get_hold,
    "PutObjectLegalHold": locks.put_hold,
    "ListObjects": listing.list_objects,
    "ListObjectsV2": listing.list_objects_v2,
    "ListObjectVersions": listing.list_versions,
    "ListMultipartUploads": listing.list_uploads,
    "PutObject": objects.put_object,
    "PostObject": forms.post_object,
    "GetObject": objects.get_object,
    "HeadObject": objects.head_object,
    "GetObjectAttributes": objects.get_attributes,
    "DeleteObject": objects.delete_object,
    "DeleteObjects": objects.delete_objects,
    "GetObjectTagging": labels.get_tagging,
    "PutObjectTagging": labels.put_tagging,
    "DeleteObjectTagging": labels.delete_tagging,
    "GetObjectAcl": labels.get_acl,
    "PutObjectAcl": labels.put_acl,
    "CopyObject": copies.copy_object,
    "RenameObject": copies.rename_object,
    "CreateMultipartUpload": multipart.create_upload,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": multipart.upload_part_copy,
    "ListParts": multipart.list_parts,
    "CompleteMultipartUpload": multipart.complete_upload,
    "AbortMultipartUpload": multipart.abort_upload,
    **settings.OPERATIONS,
    **unset.OPERATIONS,
}


def run(gateway: Gateway, call: Call) -> Awaitable[Answer]:
    """The operation that a request asks for, which was authorized."""
    return OPERATIONS[call.request.operation](gateway, call)
