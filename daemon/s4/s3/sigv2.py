"""AWS Signature Version 2 for S3, which SDKs still presign addresses with where nobody says otherwise.

Source: Amazon S3 developer guide, "Signing and authenticating REST requests" and "Browser-based uploads using POST (AWS
signature version 2)"; botocore's `HmacV1Auth`. Pure, and off the way of requests of version 4: `sigv4.parse` raises
OldSignatureError, and only then this module is asked. What is read becomes a Claim as there.

Rules for editors: this version signs little, so that what it does not sign is refused. Every x-amz-* header,
Content-Type and Content-MD5 are in what is signed, whether headers or parameters say them; of other parameters those
in `COVERED`. Besides there are those that say what part of a listing is wanted, as on S3: who has the address of a
listing may ask for any part of it. A presigned request that lists nothing has none of them.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from time import gmtime, strftime

import msgspec

from s4.s3 import amz, sigv4
from s4.s3.errors import S3Error
from s4.s3.names import number, time_of
from s4.s3.sigv4 import Claim, Request

MODES = ("query", "all", "off")  # where it is taken: in presigned addresses, in headers and forms too, nowhere
ALGORITHM = "AWS"  # as policies know it by s3:signatureversion
_OWN = ("AWSAccessKeyId", "Expires", "Signature")
_AS_HEADERS = frozenset(("content-type", "content-md5"))
# As botocore signs them; the guide's own list is a part of it.
COVERED = frozenset(
    (
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "defaultObjectAcl",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "select",
        "select-type",
        "storageClass",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    )
)
_OF_LISTINGS = frozenset(
    (
        "bucket-region",
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "list-type",
        "marker",
        "max-buckets",
        "max-keys",
        "max-parts",
        "max-uploads",
        "part-number-marker",
        "prefix",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
    )
)
_EPOCH = "19700101T000000Z"


class OldClaim(msgspec.Struct, frozen=True):
    """`claim` is as one of version 4, but its timestamp of an address: it says no time, and to a policy it is as old
    as can be. One of `texts` is what was signed. `ends_s` is when an address ends, 0 for none. `headers` are those
    that count."""

    claim: Claim
    texts: tuple[str, ...]
    ends_s: int
    headers: dict[str, str]


def parse(request: Request, virtual: str, mode: str, region: str) -> OldClaim:
    """The claim of a request that sigv4 left alone. `virtual` is the bucket that its Host names, empty where the path
    does. Raises S3Error."""
    header = request.headers.get("authorization")
    if header is not None:
        _allowed(mode, "all")
        return _of_header(request, header, virtual, region)
    _allowed(mode, "query")
    return _of_address(request, virtual, region)


def _allowed(mode: str, needed: str) -> None:
    if mode not in ("all", needed):
        raise sigv4.OldSignatureError(f"Signature version 2 is taken there by a server with --signature-v2 {needed}.")


def _of_header(request: Request, header: str, virtual: str, region: str) -> OldClaim:
    access_key, colon, signature = header[4:].rpartition(":")
    if not colon or not access_key:
        raise S3Error("InvalidArgument", "AWS authorization header is invalid. Expected AwsAccessKeyId:signature")
    headers = dict(request.headers)
    told = headers.get("x-amz-date")
    sent = told or headers.get("date", "")
    if not sent:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    timestamp = strftime("%Y%m%dT%H%M%SZ", gmtime(_parse_date(sent)))
    _covered(request, _OF_LISTINGS)
    payload = headers.get("x-amz-content-sha256", sigv4.UNSIGNED)
    if payload in (sigv4.STREAMING, sigv4.STREAMING_TRAILER):
        raise S3Error("InvalidRequest", "Signature version 2 signs no chunks.")
    claim = Claim(
        access_key,
        "",
        region,
        timestamp,
        (),
        signature,
        sigv4.unsigned_payload(headers),
        False,
        token=headers.get("x-amz-security-token", ""),
        algorithm=ALGORITHM,
    )
    return OldClaim(claim, _texts(request, headers, "" if told else sent, virtual), 0, headers)


def _of_address(request: Request, virtual: str, region: str) -> OldClaim:
    fields = dict(request.query)
    if any(name not in fields for name in _OWN):
        raise S3Error("AccessDenied", f"Query-string authentication requires the {', '.join(_OWN)} parameters")
    if len([name for name, _ in request.query if name in _OWN]) != len(_OWN):
        raise S3Error("AccessDenied", "A parameter of the signature is given twice.")
    ends_s = number(fields["Expires"], 0, 10**11)
    if ends_s is None:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {fields['Expires']}")
    _covered(request, _OF_LISTINGS.union(_OWN) if _lists(request, virtual) else frozenset(_OWN))
    headers = dict(request.headers)
    for written, value in request.query:
        name = written.lower()
        if name in _AS_HEADERS or name.startswith("x-amz-"):
            said = amz.clean(name, value)
            headers[name] = amz.once(headers, name, said)
    payload = headers.get("x-amz-content-sha256", sigv4.UNSIGNED)
    if payload in sigv4.STREAMING_MODES:
        raise S3Error("InvalidRequest", "A presigned request cannot have a chunk-signed payload.")
    claim = Claim(
        fields["AWSAccessKeyId"],
        "",
        region,
        _EPOCH,
        (),
        fields["Signature"],
        sigv4.checked_payload(payload),
        True,
        token=headers.get("x-amz-security-token", ""),
        algorithm=ALGORITHM,
    )
    return OldClaim(claim, _texts(request, headers, fields["Expires"], virtual), ends_s, headers)


def _covered(request: Request, more: frozenset[str]) -> None:
    """Refuse parameters that this version would let anybody add."""
    for name, _ in request.query:
        if name not in COVERED and name not in more and name.lower() not in _AS_HEADERS and not _is_amz(name):
            raise S3Error(
                "AccessDenied",
                f"Signature version 2 does not cover the parameter {name}. Please use AWS4-HMAC-SHA256 for it.",
                ParametersNotSigned=name,
            )


def _lists(request: Request, virtual: str) -> bool:
    """Whether it reads what is in a bucket or an upload, or which buckets there are."""
    of_key = "/" in request.path.strip("/") if not virtual else request.path.strip("/") != ""
    return request.method == "GET" and (not of_key or any(name == "uploadId" for name, _ in request.query))


def _is_amz(name: str) -> bool:
    return name[:6].lower() == "x-amz-"


def _parse_date(text: str) -> int:
    """Seconds since 1970. Raises S3Error."""
    seconds = time_of(text)
    if seconds is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return seconds


def _texts(request: Request, headers: Mapping[str, str], date: str, virtual: str) -> tuple[str, ...]:
    """What the signer may have signed: the path as it was sent, as it is spelled canonically where that differs, a
    bucket's with the slash that botocore signs and does not send, and the path of its model of ListObjectsV2, which
    botocore of 2022 (Debian 12) signs whole."""
    lines = [f"{name}:{headers[name].strip()}\n" for name in sorted(headers) if name.startswith("x-amz-")]
    standard = [headers.get(name, "").strip() for name in ("content-md5", "content-type")]
    front = "\n".join((request.method, *standard, date, "")) + "".join(lines) + (f"/{virtual}" if virtual else "")
    pairs = sorted((pair for pair in request.query if pair[0] in COVERED), key=lambda pair: pair[0])
    query = "&".join([f"{name}={value}" if value else name for name, value in pairs])
    spelled = dict.fromkeys((request.path, sigv4.canonical_path(request.path)))
    if not virtual and request.path.count("/") == 1 and request.path != "/":
        spelled[f"{request.path}/"] = None
        if not query and ("list-type", "2") in request.query:
            spelled[f"{request.path}?list-type=2"] = None
    return tuple(f"{front}{path}{'?' if query else ''}{query}" for path in spelled)


def check(old: OldClaim, secret: str, now_s: float, skew_s: float, presign_s: int) -> None:
    """Verify a claim. An address that ends later than `presign_s` from now was made for longer. Raises S3Error."""
    if old.claim.presigned:
        if now_s > old.ends_s:
            raise S3Error("AccessDenied", "Request has expired", Expires=str(old.ends_s))
        if old.ends_s > now_s + presign_s + skew_s:
            raise S3Error(
                "AccessDenied", f"Expires must be at most {presign_s} seconds from now", Expires=str(old.ends_s)
            )
    elif abs(now_s - sigv4.parse_time(old.claim.timestamp)) > skew_s:
        raise S3Error("RequestTimeTooSkewed")
    _compare(secret, old.texts, old.claim.signature)


def parse_form(fields: Mapping[str, str], mode: str, region: str) -> Claim:
    """The claim of a form that uploads, by its fields. Raises S3Error."""
    _allowed(mode, "all")
    token = fields.get("x-amz-security-token", "")
    return Claim(
        fields["awsaccesskeyid"],
        "",
        region,
        _EPOCH,
        (),
        fields.get("signature", ""),
        sigv4.UNSIGNED,
        False,
        token=token,
        algorithm=ALGORITHM,
    )


def check_form(claim: Claim, policy: str, secret: str) -> None:
    """Verify the signature of a form's policy. Raises S3Error; when it ends is the policy's to say."""
    _compare(secret, (policy,), claim.signature)


def _compare(secret: str, texts: tuple[str, ...], signature: str) -> None:
    """In constant time, whichever is right."""
    given = signature.encode("utf-8", "replace")
    matches = [hmac.compare_digest(sign(secret, text).encode(), given) for text in texts]
    if not any(matches):
        raise S3Error("SignatureDoesNotMatch")


def sign(secret: str, text: str) -> str:
    """The signature, 28 characters of base64."""
    return base64.b64encode(hmac.digest(secret.encode(), text.encode("utf-8", "surrogateescape"), "sha1")).decode()
