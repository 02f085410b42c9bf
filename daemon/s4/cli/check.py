"""A first object through the front door: makes a bucket, puts, gets back, compares, cleans up.

Run by `s4 server --check` and `s4 admin check`, to see that a server does its work and not only that it is up.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
from urllib.parse import SplitResult, urlsplit

from s4.base.said import SaidError
from s4.cli.connecting import connection, trust, why
from s4.s3 import sigv4

BUCKET = "s4-check"
READ_S = 30.0


class CheckError(SaidError):
    """The server did not do what it should; the message says what."""


def signed_request(
    endpoint: str, access: str, secret: str, region: str, method: str, path: str, body: bytes = b"", authority: str = ""
) -> tuple[int, bytes]:
    """(status, body) of one signed request. Raises CheckError where the server cannot be reached."""
    parts = _parsed(endpoint)
    if parts is None:
        raise CheckError(f"{endpoint!r} is no address of an S3 port: write http://HOST:PORT or https://HOST:PORT")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": parts.netloc, "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), "x-amz-date": stamp}
    headers["authorization"] = sigv4.authorization(access, secret, region, method, path, headers)
    context = trust(authority) if parts.scheme == "https" else None
    opened = connection(parts.netloc, context)
    try:
        opened.connect()
        opened.sock.settimeout(READ_S)
        opened.request(method, path, body, headers)
        response = opened.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = why(error, parts.netloc, tls=context is not None, authority=authority)
        raise CheckError(f"cannot reach {endpoint}: {reason}") from error
    finally:
        opened.close()


def _parsed(endpoint: str) -> SplitResult | None:
    """None where it is no address."""
    try:
        parts: SplitResult = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # a port that is no number, brackets that do not close, a name that is none
        return None
    return parts if good and re.fullmatch(r"[\w.:%\[\]-]+", parts.netloc) else None


def check(endpoint: str, access: str, secret: str, region: str, authority: str = "") -> float:
    """Put an object and get it back; returns the milliseconds that the two took. Raises CheckError."""

    def call(method: str, path: str, body: bytes = b"", accept: tuple[int, ...] = (200, 204)) -> bytes:
        status, answer = signed_request(endpoint, access, secret, region, method, path, body, authority)
        if status not in accept:
            raise CheckError(f"{method} {path} was answered {status}: {answer.decode(errors='replace')[:500]}")
        return answer

    key, data = f"/{BUCKET}/{os.urandom(8).hex()}", os.urandom(10_000)
    call("PUT", f"/{BUCKET}", accept=(200, 409))
    started = time.perf_counter()
    call("PUT", key, data)
    if call("GET", key) != data:
        raise CheckError("the object that came back is not the one that was put")
    took = (time.perf_counter() - started) * 1000
    call("DELETE", key)
    call("DELETE", f"/{BUCKET}", accept=(204, 404, 409))
    return took
