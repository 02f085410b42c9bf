"""AWS Signature Version 4 for S3: header and presigned requests, and the chain of chunk signatures.

Source: Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)". Pure: the caller gives
the request as values, the secret and the time. `parse` reads the claim, `check` compares in constant time.

What is kept between requests is kept once its signature was found right, never before: else whoever has no key fills
the memory. What is not known yet is bounded before anything is made of it.

Rules for editors: a request is signed either by header or by query, never both; on a presigned request every x-amz-*
header and every query parameter must be covered by the signature. Version 2 is another module's (s4/s3/sigv2.py), and
costs requests of this version nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from time import gmtime, strftime, strptime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from s4.s3.errors import S3Error
from s4.s3.names import number, time_of

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING_MODES = (STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER)
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_SAFE = "-_.~"
_UNRESERVED = re.compile(r"[A-Za-z0-9\-_.~/]*").fullmatch
_RUNS = re.compile("  +")
_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch
SIGNED_HEADERS = 128  # as many headers as a request may have (limits.headers)
KEPT = 1024  # of each kind
Front = tuple[str, str, str, str, tuple[str, ...], frozenset[str]]
_fronts: dict[str, Front] = {}  # of Authorization headers that were right
_keys: dict[tuple[str, str, str, str], bytes] = {}  # signing keys that something was signed with
_PRESIGN = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)
# What nearly every request has and need not sign; nothing of S3's own is among it.
_NEED_NOT = frozenset(
    (
        "accept",
        "accept-encoding",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    )
)
_OF_VERSION_2 = frozenset(("Signature", "AWSAccessKeyId"))
_IN_QUERY = _OF_VERSION_2 | {"X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential"}


class Claim(msgspec.Struct, frozen=True):
    """Who a request says it is from, and the signature that should prove it."""

    access_key: str
    date: str
    region: str
    timestamp: str
    signed_headers: tuple[str, ...]
    signature: str
    payload_hash: str
    presigned: bool
    expires_s: int = 0
    service: str = "s3"
    token: str = ""  # of a session's temporary credentials
    front: str = ""  # of its Authorization header, what comes before the signature
    algorithm: str = ALGORITHM

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class Request(msgspec.Struct, frozen=True):
    """What is signed. `path` is as it was sent; `query` are decoded pairs; header names are lower case."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]


def parse_query(raw: str) -> list[tuple[str, str]]:
    """Decoded pairs of a query string, in order; `?x` is ("x", ""). Raises S3Error InvalidURI."""
    pairs = []
    try:
        for piece in raw.split("&") if raw else ():
            if piece:
                name, _, value = piece.partition("=")
                pairs.append((_decode(name), _decode(value)))
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "The query string is not valid UTF-8.") from None
    return pairs


def _decode(text: str) -> str:
    if "%" in text or "+" in text or not text.isascii():
        return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")).decode()
    return text


def parse(request: Request) -> Claim | None:
    """The claim of a request, None for an anonymous one. Raises S3Error where it is malformed."""
    header = request.headers.get("authorization")
    in_query = bool(request.query) and any(name in _IN_QUERY for name, _ in request.query)
    if header is not None and in_query:
        raise S3Error(
            "InvalidArgument", "Only one auth mechanism allowed; use the Authorization header or the query string."
        )
    if header is not None:
        return _parse_header(request, header)
    if not in_query:
        return None
    found = _IN_QUERY.intersection(name for name, _ in request.query)
    if not found & _OF_VERSION_2:
        return _parse_presigned(request)
    if found - _OF_VERSION_2:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed; the query has those of two versions.")
    raise OldSignatureError


class OldSignatureError(S3Error):
    """A request is signed by version 2, of which this module knows nothing."""

    def __init__(self, why: str = "") -> None:
        said = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        super().__init__("InvalidRequest", f"{said} {why}".rstrip())


def _parse_header(request: Request, header: str) -> Claim:
    if not header.startswith(ALGORITHM):
        if header.startswith("AWS "):
            raise OldSignatureError
        raise S3Error("InvalidArgument", "Unsupported Authorization Type")
    front, comma, signature = header.rpartition("Signature=")
    if not comma:
        raise S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed; it has no Signature.")
    access_key, date, region, service, names, covered = _fronts.get(front) or _authorization_front(front)
    payload = request.headers.get("x-amz-content-sha256")
    if service in ("iam", "sts"):
        payload = EMPTY_SHA256  # of a body that the caller must hash
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    checked_payload(payload)
    if service == ADMIN and (payload == UNSIGNED or payload in STREAMING_MODES):
        raise S3Error("InvalidArgument", "On the admin port x-amz-content-sha256 is the SHA-256 of the body.")
    timestamp = request.headers.get("x-amz-date") or _date(request.headers.get("date", ""))
    if not timestamp:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    if timestamp[:8] != date:
        raise S3Error("SignatureDoesNotMatch", "The date in the credential scope is not that of x-amz-date.")
    if "host" not in names:
        raise S3Error(
            "AccessDenied", "There were headers present in the request which were not signed", HeadersNotSigned="host"
        )
    if not covered.issuperset(request.headers):
        unsigned = [name for name in request.headers if name.startswith("x-amz-") and name not in names]
        if unsigned:
            raise S3Error(
                "AccessDenied",
                "There were headers present in the request which were not signed",
                HeadersNotSigned=", ".join(unsigned),
            )
    token = request.headers.get("x-amz-security-token", "")
    return Claim(
        access_key, date, region, timestamp, names, signature, payload, False, service=service, token=token, front=front
    )


def _date(text: str) -> str:
    """The timestamp that a Date header stands for, empty where it is none: it is in what is signed, whatever names say
    so."""
    seconds = time_of(text)
    return strftime("%Y%m%dT%H%M%SZ", gmtime(seconds)) if seconds is not None else ""


def _authorization_front(front: str) -> Front:
    """(access key, date, region, service, signed headers, these and what need not be signed) of what comes before the
    signature."""
    if front.count(";") >= SIGNED_HEADERS:
        raise S3Error("AuthorizationHeaderMalformed", f"SignedHeaders names at most {SIGNED_HEADERS} headers.")
    fields: dict[str, str] = {}
    for piece in front[len(ALGORITHM) :].split(","):
        name, _, value = piece.strip().partition("=")
        fields[name] = value
    for name in ("Credential", "SignedHeaders"):
        if name not in fields:
            raise S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; it has no {name}.")
    credential = _credential(fields["Credential"], "AuthorizationHeaderMalformed")
    names = tuple(fields["SignedHeaders"].split(";"))
    return *credential, names, _NEED_NOT.union(names)


def _parse_presigned(request: Request) -> Claim:
    fields = dict(request.query)
    missing = [name for name in _PRESIGN if name not in fields]
    if missing:
        raise S3Error(
            "AuthorizationQueryParametersError",
            f"Query-string authentication version 4 requires the {', '.join(missing)} parameters.",
        )
    if len([name for name, _ in request.query if name in _PRESIGN]) != len(_PRESIGN):
        raise S3Error("AuthorizationQueryParametersError", "A parameter of the signature is given twice.")
    if fields["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error("AuthorizationQueryParametersError", f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    expires = fields["X-Amz-Expires"]
    if number(expires, 0, 10**9) is None:
        raise S3Error("AuthorizationQueryParametersError", "X-Amz-Expires should be a number")
    access_key, date, region, service = _credential(fields["X-Amz-Credential"], "AuthorizationQueryParametersError")
    if service != "s3":
        raise S3Error("AuthorizationQueryParametersError", "Only requests of S3 can be presigned.")
    timestamp = fields["X-Amz-Date"]
    if timestamp[:8] != date:
        raise S3Error(
            "AuthorizationQueryParametersError", "Invalid credential date. This date is not the same as X-Amz-Date."
        )
    if fields["X-Amz-SignedHeaders"].count(";") >= SIGNED_HEADERS:
        raise S3Error(
            "AuthorizationQueryParametersError", f"X-Amz-SignedHeaders names at most {SIGNED_HEADERS} headers."
        )
    names = tuple(fields["X-Amz-SignedHeaders"].split(";"))
    if "host" not in names:
        raise S3Error("AuthorizationQueryParametersError", "X-Amz-SignedHeaders must include host")
    unsigned = [name for name in request.headers if name.startswith("x-amz-") and name not in names]
    if unsigned:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(unsigned),
        )
    given = {name.lower(): value for name, value in request.query}  # SDKs spell these two in several ways
    payload = request.headers.get("x-amz-content-sha256", given.get("x-amz-content-sha256", UNSIGNED))
    if payload in STREAMING_MODES:
        raise S3Error("InvalidRequest", "A presigned request cannot have a chunk-signed payload.")
    checked_payload(payload)
    token = given.get("x-amz-security-token", "")
    return Claim(
        access_key, date, region, timestamp, names, fields["X-Amz-Signature"], payload, True, int(expires), token=token
    )


def parse_form(fields: Mapping[str, str]) -> Claim:
    """The claim of a form that uploads, by its fields: its policy is what is signed. Raises S3Error."""
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise S3Error("InvalidArgument", f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    access_key, date, region, service = _credential(fields["x-amz-credential"], "InvalidArgument")
    timestamp = fields["x-amz-date"]
    if timestamp[:8] != date or service != "s3":
        raise S3Error("InvalidArgument", "The credential must be of S3 and of the day of x-amz-date.")
    token = fields.get("x-amz-security-token", "")
    return Claim(access_key, date, region, timestamp, (), fields["x-amz-signature"], UNSIGNED, False, token=token)


def check_form(claim: Claim, policy: str, secret: str, region: str) -> None:
    """Verify the signature of a form's policy. Raises S3Error; when it ends is the policy's to say."""
    if claim.region != region:
        raise S3Error("InvalidArgument", f"The region '{claim.region}' is wrong; expecting '{region}'", Region=region)
    name = secret, claim.date, claim.region, claim.service
    key = _keys.get(name) or signing_key(*name)
    if not hmac.compare_digest(sign(key, policy).encode(), claim.signature.encode("utf-8", "replace")):
        raise S3Error("SignatureDoesNotMatch")
    _keep(name, claim, key)


def unsigned_payload(headers: Mapping[str, str]) -> str:
    """What a request that nobody signed says of its body: a hash, or how it is sent. Raises S3Error."""
    payload = headers.get("x-amz-content-sha256")
    if payload is None:  # botocore leaves it to the signer, and the body may be in chunks all the same
        encodings = [piece.strip().lower() for piece in headers.get("content-encoding", "").split(",")]
        chunked = "aws-chunked" in encodings and "x-amz-decoded-content-length" in headers
        return STREAMING_UNSIGNED_TRAILER if chunked else UNSIGNED
    if payload in (STREAMING, STREAMING_TRAILER):
        raise S3Error(
            "InvalidRequest",
            "Anonymous requests don't support this x-amz-content-sha256 value. Please use UNSIGNED-PAYLOAD or STREAMING-UNSIGNED-PAYLOAD-TRAILER.",
        )
    return checked_payload(payload)


def checked_payload(payload: str) -> str:
    """What a request says of its body, if it is one of what S3 knows. Raises S3Error."""
    if payload != UNSIGNED and payload not in STREAMING_MODES and not _SHA256(payload):
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD (or one of its kind) or a valid sha256 value.",
        )
    return payload


ADMIN = "s4-admin"  # of calls on the admin port: no signature for S3 is one of them
SERVICES = ("s3", "iam", "sts", ADMIN)


def _credential(text: str, code: str) -> tuple[str, str, str, str]:
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise S3Error(
            code, 'The Credential is malformed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        )
    access_key, date, region, service, terminal = parts
    if service not in SERVICES or terminal != "aws4_request":
        raise S3Error(code, 'The Credential is malformed; the service must be "s3" and the end "aws4_request".')
    return access_key, date, region, service


@lru_cache(maxsize=1024)
def parse_time(timestamp: str) -> int:
    """Seconds since 1970 of 20130524T000000Z. Raises S3Error."""
    try:
        return timegm(strptime(timestamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise S3Error(
            "AccessDenied", "The request date must be in the ISO 8601 basic format YYYYMMDDTHHMMSSZ"
        ) from None


def _iso(seconds: float) -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))


def check(
    claim: Claim, request: Request, secret: str, region: str, now_s: float, skew_s: float, presign_s: int
) -> bytes:
    """Verify a claim; returns the signing key, which chunk signatures go on with. Raises S3Error."""
    if claim.region != region and not (claim.service != "s3" and claim.region == "us-east-1"):  # where IAM is for AWS
        code = "AuthorizationQueryParametersError" if claim.presigned else "AuthorizationHeaderMalformed"
        raise S3Error(code, f"The region '{claim.region}' is wrong; expecting '{region}'", Region=region)
    sent = parse_time(claim.timestamp)
    if claim.presigned:
        if claim.expires_s < 1 or claim.expires_s > presign_s:
            raise S3Error(
                "AuthorizationQueryParametersError", f"X-Amz-Expires must be between 1 and {presign_s} seconds"
            )
        if now_s > sent + claim.expires_s:
            error = S3Error(
                "AccessDenied", "Request has expired", Expires=_iso(sent + claim.expires_s), ServerTime=_iso(now_s)
            )
            error.fields["X-Amz-Expires"] = str(claim.expires_s)
            raise error
        if now_s < sent - skew_s:
            raise S3Error("AccessDenied", "Request is not valid yet")
    elif abs(now_s - sent) > skew_s:
        skew = str(int(skew_s * 1000))
        raise S3Error(
            "RequestTimeTooSkewed", RequestTime=claim.timestamp, ServerTime=_iso(now_s), MaxAllowedSkewMilliseconds=skew
        )
    name = secret, claim.date, claim.region, claim.service
    kept = _keys.get(name)
    key = kept or signing_key(*name)  # four HMACs, where it is not kept
    if not _proves(key, claim, request):
        raise S3Error("SignatureDoesNotMatch")
    if kept is None or claim.front not in _fronts:
        _keep(name, claim, key)
    return key


def _proves(key: bytes, claim: Claim, request: Request) -> bool:
    """Whether the signature is that of the key: of headers with one of the ways of folding white space, of which there
    are two where there is any but spaces."""
    given = claim.signature.encode("utf-8", "replace")
    if hmac.compare_digest(sign(key, string_to_sign(claim, request)).encode(), given):
        return True
    said = "".join([request.headers.get(name, "") for name in claim.signed_headers])
    return not said.isprintable() and hmac.compare_digest(
        sign(key, string_to_sign(claim, request, _white)).encode(), given
    )


def _keep(name: tuple[str, str, str, str], claim: Claim, key: bytes) -> None:
    """What the next request of a signer that was right asks for again."""
    if name not in _keys:
        if len(_keys) >= KEPT:
            _keys.clear()
        _keys[name] = key
    if claim.front and claim.front not in _fronts:
        if len(_fronts) >= KEPT:
            _fronts.clear()
        _fronts[claim.front] = _authorization_front(claim.front)


def sign(key: bytes, text: str) -> str:
    """The signature, 64 hexadecimal digits."""
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def authorization(
    access: str, secret: str, region: str, method: str, target: str, headers: Mapping[str, str], service: str = "s3"
) -> str:
    """The Authorization header of a request of ours, over all of `headers` (lower-case names)."""
    path, _, query = target.partition("?")
    stamp, names = headers["x-amz-date"], tuple(sorted(headers))
    payload = headers["x-amz-content-sha256"]
    claim = Claim(access, stamp[:8], region, stamp, names, "", payload, presigned=False, service=service)
    request = Request(method, path, parse_query(query), headers)
    signature = sign(signing_key(secret, claim.date, region, service), string_to_sign(claim, request))
    return f"{ALGORITHM} Credential={access}/{claim.scope},SignedHeaders={';'.join(names)},Signature={signature}"


def string_to_sign(claim: Claim, request: Request, fold: Callable[[str], str] | None = None) -> str:
    # What is no UTF-8 in a header comes as surrogates, which stand for the bytes that the client signed.
    canonical = hashlib.sha256(
        canonical_request(claim, request, fold or _spaces).encode("utf-8", "surrogateescape")
    ).hexdigest()
    return f"{ALGORITHM}\n{claim.timestamp}\n{claim.scope}\n{canonical}"


def canonical_request(claim: Claim, request: Request, fold: Callable[[str], str] | None = None) -> str:
    headers, fold = request.headers, fold or _spaces
    try:
        lines = "".join([f"{name}:{headers[name]}\n" for name in claim.signed_headers])
        if fold is not _spaces or "  " in lines or ": " in lines or " \n" in lines or "\t" in lines:
            lines = "".join([f"{name}:{fold(headers[name])}\n" for name in claim.signed_headers])
    except KeyError as missing:
        raise S3Error("SignatureDoesNotMatch", f"The signed header {missing.args[0]} was not sent.") from None
    query = canonical_query(request.query, claim.presigned) if request.query else ""
    return f"{request.method}\n{canonical_path(request.path)}\n{query}\n{lines}\n{';'.join(claim.signed_headers)}\n{claim.payload_hash}"


def _spaces(value: str) -> str:
    """White space of a signed header as Go's SDK and others fold it: runs of spaces."""
    value = value.strip(" \t")
    return _RUNS.sub(" ", value) if "  " in value else value


def _white(value: str) -> str:
    """As botocore folds it: runs of whatever is white."""
    return " ".join(value.split())


def canonical_path(path: str) -> str:
    """The path with every byte encoded but unreserved ones and `/`, whatever way it was sent."""
    if _UNRESERVED(path):
        return path
    return quote_from_bytes(unquote_to_bytes(path.encode("utf-8", "surrogateescape")), safe=_SAFE + "/")


def canonical_query(pairs: Iterable[tuple[str, str]], presigned: bool) -> str:
    encoded = sorted(
        (quote_from_bytes(name.encode(), safe=_SAFE), quote_from_bytes(value.encode(), safe=_SAFE))
        for name, value in pairs
        if not (presigned and name == "X-Amz-Signature")
    )
    return "&".join([f"{name}={value}" for name, value in encoded])


def signing_key(secret: str, date: str, region: str, service: str = "s3") -> bytes:
    """The key of one day."""
    key = ("AWS4" + secret).encode()
    for piece in (date, region, service, "aws4_request"):
        key = hmac.digest(key, piece.encode(), "sha256")
    return key


class ChunkSigner:
    """The chain of signatures in an aws-chunked body: each covers the one before it."""

    def __init__(self, key: bytes, claim: Claim) -> None:
        self._key, self._previous = key, claim.signature
        self._head = f"{claim.timestamp}\n{claim.scope}\n"

    def chunk(self, payload_sha256: str, signature: str) -> bool:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._head}{self._previous}\n{EMPTY_SHA256}\n{payload_sha256}"
        return self._check(text, signature)

    def trailer(self, lines: bytes, signature: str) -> bool:
        text = f"AWS4-HMAC-SHA256-TRAILER\n{self._head}{self._previous}\n{hashlib.sha256(lines).hexdigest()}"
        return self._check(text, signature)

    def _check(self, text: str, signature: str) -> bool:
        expected = hmac.digest(self._key, text.encode(), "sha256").hex()
        self._previous = expected
        return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
