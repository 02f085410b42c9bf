"""What signers do differently and S3 takes all the same: white space in signed headers, and the header that tells the
time."""

from __future__ import annotations

import hashlib

import pytest

from s4.s3 import sigv4
from s4.s3.errors import S3Error
from s4.s3.sigv4 import Claim, Request

SECRET, REGION, NOW = "secret", "us-east-1", 1_369_353_600  # 20130524T000000Z
STAMP = "20130524T000000Z"


def signed(sent: dict[str, str], folded: dict[str, str], stamp: str = STAMP) -> Request:
    """A request with the headers `sent`, whose signer signed them as `folded`, written here from AWS's description."""
    names = tuple(sorted(sent))
    lines = "".join(f"{name}:{folded.get(name, sent[name])}\n" for name in names)
    claim = Claim("access", stamp[:8], REGION, stamp, names, "", sent["x-amz-content-sha256"], False)
    canonical = hashlib.sha256(f"PUT\n/b/k\n\n{lines}\n{';'.join(names)}\n{claim.payload_hash}".encode()).hexdigest()
    text = f"{sigv4.ALGORITHM}\n{stamp}\n{claim.scope}\n{canonical}"
    signature = sigv4.sign(sigv4.signing_key(SECRET, stamp[:8], REGION), text)
    authorization = (
        f"{sigv4.ALGORITHM} Credential=access/{claim.scope},SignedHeaders={';'.join(names)},Signature={signature}"
    )
    return Request("PUT", "/b/k", [], {**sent, "authorization": authorization})


def verify(request: Request) -> None:
    claim = sigv4.parse(request)
    assert claim is not None
    sigv4.check(claim, request, SECRET, REGION, NOW, 900, 604_800)


HEADERS = {"host": "h", "x-amz-content-sha256": sigv4.UNSIGNED, "x-amz-date": STAMP}


@pytest.mark.parametrize(
    ("value", "botocore", "go"),
    [
        ("a b", "a b", "a b"),
        (" a  b ", "a b", "a b"),
        ("a\tb", "a b", "a\tb"),
        ("a  b\t c", "a b c", "a b\t c"),
        ("a \t b", "a b", "a \t b"),
        ("a\u00a0b", "a b", "a\u00a0b"),
        ("a   b c", "a b c", "a b c"),
    ],
)
def test_white_space_folds_as_either_kind_of_signer_folds_it(value: str, botocore: str, go: str) -> None:
    assert " ".join(value.split()) == botocore  # botocore.auth's own line
    for folded in (botocore, go):
        verify(signed({**HEADERS, "x-amz-meta-a": value}, {"x-amz-meta-a": folded}))
    for wrong in (value.replace("a", "x"), "ab", "a", ""):
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            verify(signed({**HEADERS, "x-amz-meta-a": value}, {"x-amz-meta-a": wrong}))


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 24 May 2013 00:00:00 GMT",
        STAMP,
        "Fri, 24 May 2013 00:00:00 +0000",
        "Fri, 24 May 2013 00:00:00 -0000",
        "Fri, 24 May 2013 02:00:00 +0200",
        "Friday, 24-May-13 00:00:00 GMT",
        "Fri May 24 00:00:00 2013",
    ],
)
def test_a_date_stands_for_x_amz_date(date: str) -> None:
    headers = {"host": "h", "x-amz-content-sha256": sigv4.UNSIGNED, "date": date}
    verify(signed(headers, {}))
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(signed({**headers, "date": "Fri, 24 May 2013 00:00:01 GMT"}, {}))
    # where both are there, x-amz-date is the one that counts
    verify(signed({**HEADERS, "date": "Thu, 01 Jan 1970 00:00:00 GMT"}, {}))


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "2013-05-24",
        "Fri, 24 May 2013 00:00:00",
        "Fri, 24 May 2013 00:00:00 XYZ",
        "Thu, 32 May 2013 00:00:00 GMT",
    ],
)
def test_a_date_that_is_none_is_refused(date: str) -> None:
    with pytest.raises(S3Error, match="AccessDenied"):
        verify(signed({"host": "h", "x-amz-content-sha256": sigv4.UNSIGNED, "date": date}, {}))
