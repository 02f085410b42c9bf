"""What each S3 operation needs: the actions of IAM, and on what. Pure.

Source: Amazon S3 user guide, "Required permissions for Amazon S3 API operations".
"""

from __future__ import annotations

SERVICE, BUCKET, OBJECT = "service", "bucket", "object"

# operation -> (action, what it is on); a read of a named version needs the action of versions
NEEDS: dict[str, tuple[str, str]] = {
    "ListBuckets": ("s3:ListAllMyBuckets", SERVICE),
    "CreateBucket": ("s3:CreateBucket", BUCKET),
    "DeleteBucket": ("s3:DeleteBucket", BUCKET),
    "HeadBucket": ("s3:ListBucket", BUCKET),
    "GetBucketLocation": ("s3:GetBucketLocation", BUCKET),
    "GetBucketVersioning": ("s3:GetBucketVersioning", BUCKET),
    "PutBucketVersioning": ("s3:PutBucketVersioning", BUCKET),
    "GetBucketTagging": ("s3:GetBucketTagging", BUCKET),
    "PutBucketTagging": ("s3:PutBucketTagging", BUCKET),
    "DeleteBucketTagging": ("s3:PutBucketTagging", BUCKET),
    "GetBucketPolicy": ("s3:GetBucketPolicy", BUCKET),
    "PutBucketPolicy": ("s3:PutBucketPolicy", BUCKET),
    "DeleteBucketPolicy": ("s3:DeleteBucketPolicy", BUCKET),
    "GetBucketPolicyStatus": ("s3:GetBucketPolicyStatus", BUCKET),
    "GetBucketAcl": ("s3:GetBucketAcl", BUCKET),
    "PutBucketAcl": ("s3:PutBucketAcl", BUCKET),
    "GetBucketCors": ("s3:GetBucketCORS", BUCKET),
    "PutBucketCors": ("s3:PutBucketCORS", BUCKET),
    "GetBucketAccelerateConfiguration": ("s3:GetAccelerateConfiguration", BUCKET),
    "GetBucketLogging": ("s3:GetBucketLogging", BUCKET),
    "GetBucketReplication": ("s3:GetReplicationConfiguration", BUCKET),
    "GetBucketRequestPayment": ("s3:GetBucketRequestPayment", BUCKET),
    "DeleteBucketCors": ("s3:PutBucketCORS", BUCKET),
    "GetBucketWebsite": ("s3:GetBucketWebsite", BUCKET),
    "PutBucketWebsite": ("s3:PutBucketWebsite", BUCKET),
    "DeleteBucketWebsite": ("s3:DeleteBucketWebsite", BUCKET),
    "GetBucketOwnershipControls": ("s3:GetBucketOwnershipControls", BUCKET),
    "PutBucketOwnershipControls": ("s3:PutBucketOwnershipControls", BUCKET),
    "DeleteBucketOwnershipControls": ("s3:PutBucketOwnershipControls", BUCKET),
    "GetPublicAccessBlock": ("s3:GetBucketPublicAccessBlock", BUCKET),
    "PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock", BUCKET),
    "DeletePublicAccessBlock": ("s3:PutBucketPublicAccessBlock", BUCKET),
    "GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration", BUCKET),
    "PutBucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration", BUCKET),
    "DeleteBucketLifecycle": ("s3:PutLifecycleConfiguration", BUCKET),
    "GetBucketNotificationConfiguration": ("s3:GetBucketNotification", BUCKET),
    "PutBucketNotificationConfiguration": ("s3:PutBucketNotification", BUCKET),
    "GetBucketEncryption": ("s3:GetEncryptionConfiguration", BUCKET),
    "PutBucketEncryption": ("s3:PutEncryptionConfiguration", BUCKET),
    "DeleteBucketEncryption": ("s3:PutEncryptionConfiguration", BUCKET),
    "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration", BUCKET),
    "PutObjectLockConfiguration": ("s3:PutBucketObjectLockConfiguration", BUCKET),
    "GetObjectRetention": ("s3:GetObjectRetention", OBJECT),
    "PutObjectRetention": ("s3:PutObjectRetention", OBJECT),
    "GetObjectLegalHold": ("s3:GetObjectLegalHold", OBJECT),
    "PutObjectLegalHold": ("s3:PutObjectLegalHold", OBJECT),
    "ListObjects": ("s3:ListBucket", BUCKET),
    "ListObjectsV2": ("s3:ListBucket", BUCKET),
    "ListObjectVersions": ("s3:ListBucketVersions", BUCKET),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads", BUCKET),
    "GetObject": ("s3:GetObject", OBJECT),
    "HeadObject": ("s3:GetObject", OBJECT),
    "GetObjectAttributes": ("s3:GetObject", OBJECT),
    "ListParts": ("s3:ListMultipartUploadParts", OBJECT),
    "PutObject": ("s3:PutObject", OBJECT),
    "CopyObject": ("s3:PutObject", OBJECT),
    "RenameObject": ("s3:PutObject", OBJECT),
    "PostObject": ("s3:PutObject", OBJECT),
    "CreateMultipartUpload": ("s3:PutObject", OBJECT),
    "UploadPart": ("s3:PutObject", OBJECT),
    "UploadPartCopy": ("s3:PutObject", OBJECT),
    "CompleteMultipartUpload": ("s3:PutObject", OBJECT),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload", OBJECT),
    "DeleteObject": ("s3:DeleteObject", OBJECT),
    "GetObjectTagging": ("s3:GetObjectTagging", OBJECT),
    "PutObjectTagging": ("s3:PutObjectTagging", OBJECT),
    "DeleteObjectTagging": ("s3:DeleteObjectTagging", OBJECT),
    "GetObjectAcl": ("s3:GetObjectAcl", OBJECT),
    "PutObjectAcl": ("s3:PutObjectAcl", OBJECT),
    "DeleteObjects": ("s3:DeleteObject", OBJECT),  # of each key that it names, in the operation
    "ListTagsForResource": ("s3:ListTagsForResource", BUCKET),
    "TagResource": ("s3:TagResource", BUCKET),
    "UntagResource": ("s3:UntagResource", BUCKET),  # these are of S3 Control
    "GetBucketAbac": ("s3:GetBucketAbac", BUCKET),
    **dict.fromkeys(
        ("GetBucketMetadataConfiguration", "GetBucketMetadataTableConfiguration"),
        ("s3:GetBucketMetadataTableConfiguration", BUCKET),
    ),
    **{
        f"{verb}Bucket{kind}Configuration{many}": (f"s3:Get{kind}Configuration", BUCKET)
        for kind in ("Analytics", "IntelligentTiering", "Inventory", "Metrics")
        for verb, many in (("Get", ""), ("List", "s"))
    },
}

_OF_VERSION = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
}

# Operations of IAM that are about one user, role, policy or provider, whose tags policies may go by.
ON: dict[str, tuple[str, ...]] = {
    "user": (
        "CreateUser",
        "GetUser",
        "UpdateUser",
        "DeleteUser",
        "CreateAccessKey",
        "ListAccessKeys",
        "UpdateAccessKey",
        "DeleteAccessKey",
        "ListGroupsForUser",
        "PutUserPolicy",
        "GetUserPolicy",
        "DeleteUserPolicy",
        "ListUserPolicies",
        "AttachUserPolicy",
        "DetachUserPolicy",
        "ListAttachedUserPolicies",
        "PutUserPermissionsBoundary",
        "DeleteUserPermissionsBoundary",
        "TagUser",
        "UntagUser",
        "ListUserTags",
    ),
    "role": (
        "CreateRole",
        "GetRole",
        "UpdateRole",
        "UpdateAssumeRolePolicy",
        "DeleteRole",
        "PutRolePolicy",
        "GetRolePolicy",
        "DeleteRolePolicy",
        "ListRolePolicies",
        "AttachRolePolicy",
        "DetachRolePolicy",
        "ListAttachedRolePolicies",
        "PutRolePermissionsBoundary",
        "DeleteRolePermissionsBoundary",
        "TagRole",
        "UntagRole",
        "ListRoleTags",
    ),
    "policy": (
        "GetPolicy",
        "DeletePolicy",
        "CreatePolicyVersion",
        "GetPolicyVersion",
        "ListPolicyVersions",
        "DeletePolicyVersion",
        "SetDefaultPolicyVersion",
        "ListEntitiesForPolicy",
    ),
    "provider": (
        "GetOpenIDConnectProvider",
        "DeleteOpenIDConnectProvider",
        "AddClientIDToOpenIDConnectProvider",
        "RemoveClientIDFromOpenIDConnectProvider",
        "UpdateOpenIDConnectProviderThumbprint",
    ),
}

# Operations that change something: they are audited.
WRITES = frozenset(name for name in NEEDS if not name.startswith(("Get", "Head", "List")))


def of_version(action: str, version: str) -> str:
    """The action on a named version, where S3 has one of its own."""
    return _OF_VERSION.get(action, action) if version else action


def bucket_arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def object_arn(bucket: str, key: bytes) -> str:
    return f"arn:aws:s3:::{bucket}/{key.decode('utf-8', 'replace')}"
