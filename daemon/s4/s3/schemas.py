"""Which elements the bodies of requests have. Pure.

S3 answers MalformedXML to what its published schema has not. Here that keeps what a client says from being passed
over: an element that nobody knows, such as a condition of next year's SDK, is refused by name as it is read
(`xml.Document`).

Rules for editors: an element stands here only if its operation reads it or refuses it, or it is in `UNREAD`, with the
reason. Source: botocore's model of S3, of which `tests/s3/test_model.py` reads every shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Schema: TypeAlias = "Mapping[str, Schema]"


def _has(leaves: str = "", **inner: Schema) -> Schema:
    return {**dict.fromkeys(leaves.split(), _LEAF), **inner}


_LEAF: Schema = {}
_TAG = _has("Key Value")
_RULES = _has(S3Key=_has(FilterRule=_has("Name Value")))
_OF_FILTER = _has("ObjectSizeGreaterThan ObjectSizeLessThan Prefix", Tag=_TAG)
_DURATION = _has("Days Years")
_SUMS = "CRC32 CRC32C CRC64NVME MD5 SHA1 SHA256 SHA512 XXHASH128 XXHASH3 XXHASH64"

# by the name of the root; the bodies of other roots are nobody's, or looked at by who reads them
SCHEMAS: Mapping[str, Schema] = {
    "AccessControlPolicy": _has(
        Owner=_has("DisplayName ID"),
        AccessControlList=_has(Grant=_has("Permission", Grantee=_has("DisplayName EmailAddress ID URI Type"))),
    ),
    "CORSConfiguration": _has(CORSRule=_has("AllowedHeader AllowedMethod AllowedOrigin ExposeHeader ID MaxAgeSeconds")),
    "CompleteMultipartUpload": _has(
        Part=_has("ETag PartNumber LastModified Size " + " ".join(f"Checksum{name}" for name in _SUMS.split()))
    ),
    "CreateBucketConfiguration": _has(
        "LocationConstraint", Bucket=_has("DataRedundancy Type"), Location=_has("Name Type"), Tags=_has(Tag=_TAG)
    ),
    "Delete": _has("Quiet", Object=_has("ETag Key LastModifiedTime Size VersionId")),
    "LegalHold": _has("Status"),
    "LifecycleConfiguration": _has(
        Rule=_has(
            "ID Prefix Status",
            AbortIncompleteMultipartUpload=_has("DaysAfterInitiation"),
            Expiration=_has("Date Days ExpiredObjectDeleteMarker"),
            Filter={"And": _OF_FILTER, **_OF_FILTER},
            NoncurrentVersionExpiration=_has("NewerNoncurrentVersions NoncurrentDays"),
            NoncurrentVersionTransition=_has("NewerNoncurrentVersions NoncurrentDays StorageClass"),
            Transition=_has("Date Days StorageClass"),
        )
    ),
    "NotificationConfiguration": _has(
        CloudFunctionConfiguration=_has("CloudFunction Event Id", Filter=_RULES),
        EventBridgeConfiguration=_LEAF,
        QueueConfiguration=_has("Event Id Queue", Filter=_RULES),
        TopicConfiguration=_has("Event Id Topic", Filter=_RULES),
    ),
    "ObjectLockConfiguration": _has(
        "ObjectLockEnabled", Rule=_has(DefaultRetention=_has("Mode Days Years", DefaultEventHold=_DURATION))
    ),
    "OwnershipControls": _has(Rule=_has("ObjectOwnership")),
    "PublicAccessBlockConfiguration": _has("BlockPublicAcls BlockPublicPolicy IgnorePublicAcls RestrictPublicBuckets"),
    "Retention": _has("EventHold Mode RetainUntilDate", EventHoldDuration=_DURATION),
    "ServerSideEncryptionConfiguration": _has(
        Rule=_has(
            "BucketKeyEnabled",
            ApplyServerSideEncryptionByDefault=_has("KMSMasterKeyID SSEAlgorithm"),
            BlockedEncryptionTypes=_has("EncryptionType"),
        )
    ),
    "TagResourceRequest": _has(Tags=_has(Tag=_TAG)),
    "Tagging": _has(TagSet=_has(Tag=_TAG)),
    "VersioningConfiguration": _has("MfaDelete Status"),
    "WebsiteConfiguration": _has(
        ErrorDocument=_has("Key"),
        IndexDocument=_has("Suffix"),
        RedirectAllRequestsTo=_has("HostName Protocol"),
        RoutingRules=_has(
            RoutingRule=_has(
                Condition=_has("HttpErrorCodeReturnedEquals KeyPrefixEquals"),
                Redirect=_has("HostName HttpRedirectCode Protocol ReplaceKeyPrefixWith ReplaceKeyWith"),
            )
        ),
    ),
}

# What may stand more than once; of two others nobody could say which one is meant.
MANY = frozenset(
    (
        "AllowedHeader",
        "AllowedMethod",
        "AllowedOrigin",
        "CORSRule",
        "CloudFunctionConfiguration",
        "EncryptionType",
        "Event",
        "ExposeHeader",
        "FilterRule",
        "Grant",
        "NoncurrentVersionTransition",
        "Object",
        "Part",
        "QueueConfiguration",
        "RoutingRule",
        "Rule",
        "Tag",
        "TopicConfiguration",
        "Transition",
    )
)

# What is taken and changes nothing, and why that is no silent loss: (root, names).
UNREAD = {
    ("AccessControlPolicy", "Owner"): "who owns a bucket or an object does not change",
    ("AccessControlPolicy", "DisplayName"): "of who is named by ID",
    ("AccessControlPolicy", "Type"): "a grantee is what names it: an ID, a group's URI or an address",
    ("CompleteMultipartUpload", "LastModified"): "clients send back what ListParts told them",
    ("CompleteMultipartUpload", "Size"): "as LastModified; the ETag says which part it is",
}
