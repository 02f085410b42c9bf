"""The registry of `x-amz-*` names: what each is, which operations take it, which values it may have. Pure.

A client says the same thing by a header, by a query parameter of a presigned URL (where JavaScript's and Java's SDKs
put it) or by a field of a form. `hoisted` makes one of the first two, the form's reader of the third; from then on
there are headers only. `check` then refuses what the operation does not take: whatever is said is obeyed or refused,
never lost.

- A name that nobody here knows, such as one of next year's SDK: NotImplemented, S3's word for "a header that you
  provided implies functionality that is not implemented".
- A name of another operation: InvalidArgument, as S3 says of x-amz-server-side-encryption where it does not belong.
- A value that would not be obeyed: InvalidArgument, or NotImplemented where S3 has it.

Rules for editors: a name stands at an operation only if the operation reads it, or it is in `NO_PROMISE`, with the
reason. Names that do not begin with x-amz- (amz-sdk-invocation-id, amz-sdk-request, x-amzn-trace-id, x-id) are not
S3's to obey. Source: botocore's model of S3; S3 API reference, "Common request headers".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from s4.metadata.classes import NAME as STORAGE_CLASS
from s4.s3 import acl, checksums, classes, encryption, lock, website
from s4.s3.errors import S3Error

META = "x-amz-meta-"
QUERY = "Query"  # stands for every operation of IAM and STS
_PREFIX = "x-amz-"
# Of the signature and of how the body is sent: headers, or (the first three) parameters of the signature of a presigned
# URL.
_SIGNED_WITH = ("x-amz-date", "x-amz-security-token", "x-amz-content-sha256")
TRANSFER = frozenset((*_SIGNED_WITH, "x-amz-decoded-content-length", "x-amz-trailer"))
_SIGNATURE = frozenset(
    (
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
        "x-amz-content-sha256",
    )
)

# What is taken and changes nothing, and why that is no silent loss.
NO_PROMISE = {
    "x-amz-user-agent": "a browser's SDK names itself, since scripts cannot set User-Agent",
    "x-amz-te": "an offer of Java's SDK: it looks whether the answer took it",
    "x-amz-api-version": "C++'s SDK names the API's only version",
    "x-amz-request-payer": "the requester agrees to pay, and nobody is charged",
    "x-amz-confirm-remove-self-bucket-access": "a consent: root can always change a policy",
    "x-amz-skip-destination-validation": "S4 sends no test events",
    "x-amz-optional-object-attributes": "RestoreStatus is of objects in an archive: there is none",
    "x-amz-client-token": "SDKs make one for each rename; a repeated rename meets NoSuchKey instead of being told the first answer",
}
EVERYWHERE = TRANSFER | {
    "x-amz-user-agent",
    "x-amz-te",
    "x-amz-api-version",
    "x-amz-request-payer",
    "x-amz-expected-bucket-owner",
}

# Names of S3's for what S4 has not, wherever they stand.
UNSUPPORTED = frozenset(
    (
        "x-amz-mfa",
        "x-amz-write-offset-bytes",
        "x-amz-bucket-namespace",
        "x-amz-bucket-object-lock-token",
        "x-amz-object-lock-event-hold",
        "x-amz-object-lock-event-hold-duration-days",
        "x-amz-object-lock-event-hold-duration-years",
        "x-amz-object-annotation-directive",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-size",
        "x-amz-if-match-initiated-time",
        "x-amz-create-session-mode",
        "x-amz-s3session-token",
    )
)

_SUM = frozenset(("x-amz-sdk-checksum-algorithm", *checksums.ALGORITHM_OF))  # of the body, whatever it is
_KEPT_SUM = frozenset(("x-amz-checksum-algorithm", "x-amz-checksum-type"))
_CUSTOMER = frozenset(encryption.CUSTOMER + name for name in ("algorithm", "key", "key-md5"))
_SOURCE = frozenset(
    (
        "x-amz-copy-source",
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-source-expected-bucket-owner",
        *(encryption.SOURCE + name for name in ("algorithm", "key", "key-md5")),
    )
)
# What a write says of the object to be. With these x-amz-meta-* may come.
_NEW = frozenset((STORAGE_CLASS, "x-amz-tagging", website.LOCATION)) | acl.ASKED | lock.ASKED | encryption.ASKED
_LISTING = frozenset(("x-amz-optional-object-attributes",))
_CONTROL = frozenset(("x-amz-account-id",))
_XML = (
    "PutBucketVersioning",
    "PutBucketTagging",
    "PutPublicAccessBlock",
    "PutBucketOwnershipControls",
    "PutBucketCors",
    "PutBucketWebsite",
    "PutBucketEncryption",
    "PutObjectLockConfiguration",
    "PutObjectLegalHold",
    "PutObjectTagging",
)

# operation -> the names that it takes besides those of every operation
_OWN: dict[str, frozenset[str]] = {
    **dict.fromkeys(_XML, _SUM),
    "CreateBucket": acl.ASKED | {lock.ENABLED, "x-amz-object-ownership"} | _SUM,
    "PutBucketPolicy": _SUM | {"x-amz-confirm-remove-self-bucket-access"},
    "PutBucketAcl": _SUM | acl.ASKED,
    "PutObjectAcl": _SUM | acl.ASKED,
    "PutBucketLifecycleConfiguration": _SUM | {"x-amz-transition-default-minimum-object-size"},
    "PutBucketNotificationConfiguration": _SUM | {"x-amz-skip-destination-validation"},
    "PutObjectRetention": _SUM | {lock.BYPASS},
    "ListObjects": _LISTING,
    "ListObjectsV2": _LISTING,
    "ListObjectVersions": _LISTING,
    "PutObject": _NEW | _SUM | _KEPT_SUM,
    "PostObject": _NEW | _SUM | _KEPT_SUM,
    "CopyObject": _NEW | _SOURCE | {"x-amz-checksum-algorithm", "x-amz-metadata-directive", "x-amz-tagging-directive"},
    "RenameObject": frozenset(
        (
            "x-amz-client-token",
            "x-amz-rename-source",
            "x-amz-rename-source-if-match",
            "x-amz-rename-source-if-none-match",
            "x-amz-rename-source-if-modified-since",
            "x-amz-rename-source-if-unmodified-since",
        )
    ),
    "GetObject": _CUSTOMER | {"x-amz-checksum-mode"},
    "HeadObject": _CUSTOMER | {"x-amz-checksum-mode"},
    "GetObjectAttributes": _CUSTOMER | {"x-amz-object-attributes", "x-amz-max-parts", "x-amz-part-number-marker"},
    "DeleteObject": frozenset((lock.BYPASS,)),
    "DeleteObjects": _SUM | {lock.BYPASS},
    "CreateMultipartUpload": _NEW | _KEPT_SUM,
    "UploadPart": encryption.ASKED | _SUM | _KEPT_SUM,
    "UploadPartCopy": _SOURCE | encryption.ASKED | {"x-amz-copy-source-range"},
    "CompleteMultipartUpload": encryption.ASKED
    | {"x-amz-checksum-type", "x-amz-mp-object-size", *checksums.ALGORITHM_OF},
    "ListParts": _CUSTOMER,
    "ListTagsForResource": _CONTROL,
    "TagResource": _CONTROL | _SUM,
    "UntagResource": _CONTROL,
}
NAMED = frozenset(("PutObject", "PostObject", "CopyObject", "CreateMultipartUpload"))  # take x-amz-meta-*
KNOWN = EVERYWHERE.union(UNSUPPORTED, *_OWN.values())


def taken(operation: str) -> frozenset[str]:
    """The names that an operation takes, but for x-amz-meta-*."""
    return _TAKEN.get(operation, EVERYWHERE)


_TAKEN = {operation: EVERYWHERE | own for operation, own in _OWN.items()}
_TAKEN[QUERY] = EVERYWHERE - {"x-amz-expected-bucket-owner"}


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_TRUTH = _one_of("true", "false")
_ISO = _one_of("2006-03-01")
# Names whose operation reads one value and would take all others for its absence. Values are compared in lower case.
_VALUES: dict[str, Callable[[str], bool]] = {
    "x-amz-api-version": _ISO,
    "x-amz-request-payer": _one_of("requester"),
    "x-amz-checksum-mode": _one_of("enabled"),
    "x-amz-confirm-remove-self-bucket-access": _TRUTH,
    "x-amz-skip-destination-validation": _TRUTH,
    lock.BYPASS: _TRUTH,
    lock.ENABLED: _TRUTH,
    encryption.BUCKET_KEY: _TRUTH,
    "x-amz-transition-default-minimum-object-size": _one_of("all_storage_classes_128k", "varies_by_storage_class"),
    "x-amz-optional-object-attributes": _one_of("restorestatus"),
}
_LOOKED_AT = frozenset(_VALUES) | {STORAGE_CLASS}
# What nearly every request has, and nothing else: no operation refuses any of it.
_PLAIN = frozenset(_SIGNED_WITH) | {
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "range",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
}
_TOKEN = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+").fullmatch


def check(operation: str, headers: Mapping[str, str]) -> None:
    """Raises S3Error for an x-amz- header that the operation would not obey."""
    if _PLAIN.issuperset(headers):
        return
    mine = _TAKEN.get(operation, EVERYWHERE)
    for name in headers:
        if name[:6] == _PREFIX and (name not in mine or name in _LOOKED_AT):
            _judge(operation, name, headers[name], mine)


def _judge(operation: str, name: str, value: str, mine: frozenset[str]) -> None:
    if name.startswith(META) and operation in NAMED:
        if not _TOKEN(name):
            raise S3Error(
                "InvalidArgument", "A name of metadata has characters that a header cannot have.", ArgumentName=name
            )
    elif name not in mine:
        if name in checksums.ALGORITHM_OF and value == checksums.of_nothing(name):
            return  # true of a request without a body: Java's SDK says it of the GETs of a download in parts
        known = name in KNOWN or name.startswith(META)
        if not known or name in UNSUPPORTED:
            raise S3Error("NotImplemented", f"S4 does not implement {name}.", Header=name)
        raise S3Error(
            "InvalidArgument",
            f"{name} is not supported for this operation ({operation or 'Unknown'}).",
            ArgumentName=name,
            ArgumentValue=value,
        )
    elif name == STORAGE_CLASS:
        classes.check(value)
    elif name in _VALUES and not _VALUES[name](value.lower()):
        raise S3Error("InvalidArgument", f"{value!r} is no value of {name}.", ArgumentName=name, ArgumentValue=value)


def hoisted(pairs: Iterable[tuple[str, str]], headers: dict[str, str], *, presigned: bool) -> dict[str, str]:
    """The headers of a request with those that stand in its query, decoded pairs which the signature covers if there
    is one. Raises S3Error where a name is said twice with different values, or has no business in a query."""
    found: dict[str, str] = {}
    signature: dict[str, str] = {}
    for written, value in pairs:
        if written[:6].lower() != _PREFIX:
            continue
        name = written.lower()
        if presigned and name in _SIGNATURE:
            if signature.setdefault(name, value) != value or headers.get(name, value) != value:
                raise _twice(name)
            continue
        if name in TRANSFER or name in _SIGNATURE:
            raise S3Error("InvalidArgument", f"{written} cannot be a parameter of this query.", ArgumentName=written)
        said = clean(name, value)
        if found.setdefault(name, said) != said or headers.get(name, said) != said:
            raise _twice(name)
    return {**headers, **found} if found else headers


def once(headers: Mapping[str, str], name: str, value: str) -> str:
    """The value, unless the headers have another one. Raises S3Error."""
    if headers.get(name, value) != value:
        raise _twice(name)
    return value


def clean(name: str, value: str) -> str:
    """A value as a header would have brought it. Raises S3Error for what no header can hold."""
    value = value.strip(" \t")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value.replace("\t", " ")) or not _TOKEN(name):
        raise S3Error(
            "InvalidArgument",
            f"The value or the name of {name} has characters that a header cannot have.",
            ArgumentName=name,
        )
    return value


def _twice(name: str) -> S3Error:
    return S3Error("InvalidArgument", f"{name} is given twice, with different values.", ArgumentName=name)
