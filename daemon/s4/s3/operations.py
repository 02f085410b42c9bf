"""The operations of S3: a row each. Routing, authorization, the audit log and what parameters they take come from here;
their handlers, which a pure module cannot know, are the same names in `http/operations/`. Pure.

Source: S3 API reference; S3 user guide, "Required permissions for Amazon S3 API operations".
"""

from __future__ import annotations

from typing import NamedTuple

SERVICE, BUCKET, OBJECT = "service", "bucket", "object"


class Operation(NamedTuple):
    """`method` and `query` name it among those `at` its kind of address; without a method something else does.
    `action` of IAM, on what the address is or what `on` says: empty where it is called as the operation. `unset`: it
    reads a setting that S4 lacks."""

    name: str
    at: str
    method: str = ""
    query: str = ""
    action: str = ""
    on: str = ""
    unset: bool = False


# Of an address with several of these queries the first counts.
OPERATIONS = (
    Operation("ListBuckets", SERVICE, action="s3:ListAllMyBuckets"),
    Operation("ListObjects", BUCKET, "GET", action="s3:ListBucket"),
    Operation("CreateBucket", BUCKET, "PUT"),
    Operation("HeadBucket", BUCKET, "HEAD", action="s3:ListBucket"),
    Operation("DeleteBucket", BUCKET, "DELETE"),
    Operation("ListObjectsV2", BUCKET, action="s3:ListBucket"),
    Operation("GetBucketLocation", BUCKET, "GET", "location"),
    Operation("GetBucketVersioning", BUCKET, "GET", "versioning"),
    Operation("PutBucketVersioning", BUCKET, "PUT", "versioning"),
    Operation("ListObjectVersions", BUCKET, "GET", "versions", "s3:ListBucketVersions"),
    Operation("ListMultipartUploads", BUCKET, "GET", "uploads", "s3:ListBucketMultipartUploads"),
    Operation("DeleteObjects", BUCKET, "POST", "delete", "s3:DeleteObject", on=OBJECT),
    Operation("GetBucketTagging", BUCKET, "GET", "tagging"),
    Operation("PutBucketTagging", BUCKET, "PUT", "tagging"),
    Operation("DeleteBucketTagging", BUCKET, "DELETE", "tagging", "s3:PutBucketTagging"),
    Operation("GetBucketPolicy", BUCKET, "GET", "policy"),
    Operation("PutBucketPolicy", BUCKET, "PUT", "policy"),
    Operation("DeleteBucketPolicy", BUCKET, "DELETE", "policy"),
    Operation("GetBucketPolicyStatus", BUCKET, "GET", "policyStatus"),
    Operation("GetBucketAcl", BUCKET, "GET", "acl"),
    Operation("PutBucketAcl", BUCKET, "PUT", "acl"),
    Operation("GetBucketCors", BUCKET, "GET", "cors", "s3:GetBucketCORS"),
    Operation("PutBucketCors", BUCKET, "PUT", "cors", "s3:PutBucketCORS"),
    Operation("DeleteBucketCors", BUCKET, "DELETE", "cors", "s3:PutBucketCORS"),
    Operation("GetBucketEncryption", BUCKET, "GET", "encryption", "s3:GetEncryptionConfiguration"),
    Operation("PutBucketEncryption", BUCKET, "PUT", "encryption", "s3:PutEncryptionConfiguration"),
    Operation("DeleteBucketEncryption", BUCKET, "DELETE", "encryption", "s3:PutEncryptionConfiguration"),
    Operation("GetBucketNotificationConfiguration", BUCKET, "GET", "notification", "s3:GetBucketNotification"),
    Operation("PutBucketNotificationConfiguration", BUCKET, "PUT", "notification", "s3:PutBucketNotification"),
    Operation("GetObjectLockConfiguration", BUCKET, "GET", "object-lock", "s3:GetBucketObjectLockConfiguration"),
    Operation("PutObjectLockConfiguration", BUCKET, "PUT", "object-lock", "s3:PutBucketObjectLockConfiguration"),
    Operation("GetBucketLifecycleConfiguration", BUCKET, "GET", "lifecycle", "s3:GetLifecycleConfiguration"),
    Operation("PutBucketLifecycleConfiguration", BUCKET, "PUT", "lifecycle", "s3:PutLifecycleConfiguration"),
    Operation("DeleteBucketLifecycle", BUCKET, "DELETE", "lifecycle", "s3:PutLifecycleConfiguration"),
    Operation("GetBucketWebsite", BUCKET, "GET", "website"),
    Operation("PutBucketWebsite", BUCKET, "PUT", "website"),
    Operation("DeleteBucketWebsite", BUCKET, "DELETE", "website"),
    Operation("GetBucketOwnershipControls", BUCKET, "GET", "ownershipControls"),
    Operation("PutBucketOwnershipControls", BUCKET, "PUT", "ownershipControls"),
    Operation("DeleteBucketOwnershipControls", BUCKET, "DELETE", "ownershipControls", "s3:PutBucketOwnershipControls"),
    Operation("GetPublicAccessBlock", BUCKET, "GET", "publicAccessBlock", "s3:GetBucketPublicAccessBlock"),
    Operation("PutPublicAccessBlock", BUCKET, "PUT", "publicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    Operation("DeletePublicAccessBlock", BUCKET, "DELETE", "publicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    # S4 lacks these: what reads them answers as S3 does where they were never set, what sets them is NotImplemented
    Operation("GetBucketAbac", BUCKET, "GET", "abac", unset=True),
    Operation(
        "GetBucketAccelerateConfiguration", BUCKET, "GET", "accelerate", "s3:GetAccelerateConfiguration", unset=True
    ),
    Operation("GetBucketLogging", BUCKET, "GET", "logging", unset=True),
    Operation(
        "GetBucketMetadataConfiguration",
        BUCKET,
        "GET",
        "metadataConfiguration",
        "s3:GetBucketMetadataTableConfiguration",
        unset=True,
    ),
    Operation("GetBucketMetadataTableConfiguration", BUCKET, "GET", "metadataTable", unset=True),
    Operation("GetBucketReplication", BUCKET, "GET", "replication", "s3:GetReplicationConfiguration", unset=True),
    Operation("GetBucketRequestPayment", BUCKET, "GET", "requestPayment", unset=True),
    Operation(
        "ListBucketAnalyticsConfigurations", BUCKET, "GET", "analytics", "s3:GetAnalyticsConfiguration", unset=True
    ),
    Operation(
        "ListBucketIntelligentTieringConfigurations",
        BUCKET,
        "GET",
        "intelligent-tiering",
        "s3:GetIntelligentTieringConfiguration",
        unset=True,
    ),
    Operation(
        "ListBucketInventoryConfigurations", BUCKET, "GET", "inventory", "s3:GetInventoryConfiguration", unset=True
    ),
    Operation("ListBucketMetricsConfigurations", BUCKET, "GET", "metrics", "s3:GetMetricsConfiguration", unset=True),
    Operation("GetBucketAnalyticsConfiguration", BUCKET, action="s3:GetAnalyticsConfiguration", unset=True),
    Operation(
        "GetBucketIntelligentTieringConfiguration", BUCKET, action="s3:GetIntelligentTieringConfiguration", unset=True
    ),
    Operation("GetBucketInventoryConfiguration", BUCKET, action="s3:GetInventoryConfiguration", unset=True),
    Operation("GetBucketMetricsConfiguration", BUCKET, action="s3:GetMetricsConfiguration", unset=True),
    Operation("GetObject", OBJECT, "GET"),
    Operation("HeadObject", OBJECT, "HEAD", action="s3:GetObject"),
    Operation("PutObject", OBJECT, "PUT"),
    Operation("DeleteObject", OBJECT, "DELETE"),
    Operation("CopyObject", OBJECT, action="s3:PutObject"),
    Operation("PostObject", BUCKET, action="s3:PutObject", on=OBJECT),
    Operation("GetObjectTagging", OBJECT, "GET", "tagging"),
    Operation("PutObjectTagging", OBJECT, "PUT", "tagging"),
    Operation("DeleteObjectTagging", OBJECT, "DELETE", "tagging"),
    Operation("GetObjectAcl", OBJECT, "GET", "acl"),
    Operation("PutObjectAcl", OBJECT, "PUT", "acl"),
    Operation("GetObjectRetention", OBJECT, "GET", "retention"),
    Operation("PutObjectRetention", OBJECT, "PUT", "retention"),
    Operation("GetObjectLegalHold", OBJECT, "GET", "legal-hold"),
    Operation("PutObjectLegalHold", OBJECT, "PUT", "legal-hold"),
    Operation("GetObjectAttributes", OBJECT, "GET", "attributes", "s3:GetObject"),
    Operation("RenameObject", OBJECT, "PUT", "renameObject", "s3:PutObject"),
    Operation("CreateMultipartUpload", OBJECT, "POST", "uploads", "s3:PutObject"),
    Operation("ListParts", OBJECT, "GET", "uploadId", "s3:ListMultipartUploadParts"),
    Operation("UploadPart", OBJECT, "PUT", "uploadId partNumber", "s3:PutObject"),
    Operation("CompleteMultipartUpload", OBJECT, "POST", "uploadId", "s3:PutObject"),
    Operation("AbortMultipartUpload", OBJECT, "DELETE", "uploadId"),
    Operation("UploadPartCopy", OBJECT, action="s3:PutObject"),
    # of S3 Control (http/control.py)
    Operation("ListTagsForResource", BUCKET),
    Operation("TagResource", BUCKET),
    Operation("UntagResource", BUCKET),
)
