"""S3 errors: code, HTTP status and default message.

Source: Amazon S3 API reference, "Error responses", and per operation where its page names more. The body is
the XML that SDKs parse; HEAD answers have the status and headers only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.sax.saxutils import escape as _escape

STATUS: dict[str, tuple[int, str]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "Error parsing the query parameters of the presigned request."),
    "BadRequest": (400, "Bad Request"),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BucketAlreadyExists": (
        409,
        "The requested bucket name is not available. Please select a different name and try again.",
    ),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
    "EntityAlreadyExists": (409, "The entity exists already."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalVersioningConfigurationException": (
        400,
        "The versioning configuration specified in the request is not valid.",
    ),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InternalError": (500, "An internal error occurred. Try again."),
    "InvalidAccessKeyId": (403, "The AWS access key ID that you provided does not exist in our records."),
    "InvalidEncryptionAlgorithmError": (
        400,
        "The Encryption request you specified is not valid. Supported value: AES256.",
    ),
    "TooManyConfigurations": (
        400,
        "You are attempting to create a new configuration but have already reached the 100-configuration limit.",
    ),
    "KMS.NotFoundException": (400, "The key does not exist."),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The server side encryption configuration was not found"),
    "InvalidArgument": (400, "Invalid argument"),
    "InvalidBucketAclWithObjectOwnership": (
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    ),
    "InvalidBucketOwnerAWSAccountID": (
        400,
        "The value of the expected bucket owner parameter must be an AWS account ID",
    ),
    "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidChunkSizeError": (403, "Only the last chunk is allowed to have a size less than 8192 bytes"),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts list must be specified in order by part number.",
    ),
    "InvalidPolicyDocument": (
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRedirectLocation": (
        400,
        "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
    ),
    "InvalidRequest": (400, "Invalid request"),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidURI": (400, "The specified URI couldn't be parsed."),
    "InvalidToken": (400, "The provided token is malformed or otherwise not valid."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedACLError": (
        400,
        "The ACL that you provided was not well formed or did not validate against our published schema.",
    ),
    "MalformedPolicy": (400, "Policies must be valid JSON and the first byte must be '{'"),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    "MalformedXML": (
        400,
        "The XML that you provided was not well formed or did not validate against our published schema.",
    ),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MaxMessageLengthExceeded": (400, "Your request was too large."),
    "MaxPostPreDataLengthExceeded": (400, "Your POST request fields preceding the upload file were too large."),
    "MetadataConfigurationNotFound": (404, "The metadata configuration was not found"),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingSecurityHeader": (400, "Your request is missing a required header."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchEntity": (404, "There is no such entity."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have a ObjectLock configuration"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket"),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found"),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found"),
    "NoSuchUpload": (
        404,
        "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart upload might have been aborted or completed.",
    ),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration"),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NotImplemented": (501, "A header or query that you provided implies functionality that is not implemented."),
    "NotModified": (304, "Not Modified"),
    "OperationAborted": (
        409,
        "A conflicting conditional operation is currently in progress against this resource. Try again.",
    ),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
    "QuotaExceeded": (403, "The bucket holds as many bytes as it may: delete something, or have its quota raised."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "SignatureDoesNotMatch": (
        403,
        "The request signature that the server calculated does not match the signature that you provided. Check your secret access key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "ServiceUnavailable": (503, "Service is unable to handle request. Try again."),
    "StorageFull": (
        507,
        "The disks have no room for more: delete something, or have some added or made larger (docs/single-server.md, Growing).",
    ),
    "TooManyBuckets": (400, "You have attempted to create more buckets than are allowed."),
    "TooManyEntities": (409, "There are as many as are allowed."),
    "UnresolvableGrantByEmailAddress": (400, "The e-mail address you provided does not match any account on record."),
    "UnexpectedContent": (400, "This request contains unsupported content."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}


_SPECIAL = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]").search
_CLEAN = str.maketrans(dict.fromkeys((*range(9), 11, 12, *range(14, 32), 65534, 65535), "�"))


def text(value: str) -> str:
    """Escaped for XML. What XML 1.0 cannot hold is replaced; clients that need it ask for encoding-type=url."""
    if _SPECIAL(value) is None:
        return value
    return _escape(value.translate(_CLEAN)).replace("\r", "&#13;")


class S3Error(Exception):
    """An answer other than success. `fields` become elements of the XML body, `headers` of the response. `told`: it
    was judged already whether its receiver may know it."""

    def __init__(self, code: str, message: str = "", *, headers: dict[str, str] | None = None, **fields: str) -> None:
        self.status, default = STATUS.get(code, (500, code))
        self.code, self.message = code, message or default
        self.headers, self.fields = headers or {}, fields
        self.told = False
        self.why: Callable[[], str] | None = None  # for the log: what decided so
        super().__init__(f"{code}: {self.message}")

    def element(self, resource: str, *more: tuple[str, str]) -> str:
        """The error as XML, `more` behind it."""
        said = (*self.fields.items(), ("Resource", resource), *more)
        told = "".join(f"<{name}>{text(value)}</{name}>" for name, value in said)
        return f"<Error><Code>{self.code}</Code><Message>{text(self.message)}</Message>{told}</Error>"

    def xml(self, resource: str, request_id: str) -> bytes:
        found = self.element(resource, ("RequestId", request_id), ("HostId", request_id))
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{found}'.encode("utf-8", "replace")
