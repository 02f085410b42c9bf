"""Calls on an admin port, and what is said when something else answers there, or nobody.

Whatever a client meets (another port of S4, a server of somebody else, TLS where it spoke none, an answer of another
version) becomes an AdminError here, and nowhere else: commands use the values as if they had all that they look for.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from s4.base.said import SaidError
from s4.cli.connecting import connection, trust, why
from s4.s3 import sigv4

PORT = 9001
READ_S, WORK_S = 60.0, 3600.0
HINT = "; is `s4 server` running, and is this its --admin-listen?"

Call = Callable[..., Iterator[dict[str, Any]]]


class AdminError(SaidError):
    """The server refused or cannot be reached; the message is for people."""


class Answered(dict[str, Any]):
    """An object of an answer. What is not in it is another version's to say."""

    def __missing__(self, name: str) -> Any:
        raise AdminError(
            f"the answer does not say {name}: the server is of another version; use the `s4 admin` of its own"
        )


class AdminClient:
    """Signed calls on an admin endpoint. Over https it must show a certificate of `authority`, a file, whatever name
    it is for: a cluster's authority signs for nobody else. Without one, a certificate that this machine trusts. Raises
    AdminError."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, region: str, authority: str = "") -> None:
        self._scheme, self._where = _parsed(endpoint, "https" if authority else "http")
        self._access, self._secret, self._region = access_key, secret_key, region
        self._authority = authority
        self._trust = trust(authority) if self._scheme == "https" else None

    def call(self, method: str, path: str, body: Any = None, query: str = "") -> Iterator[dict[str, Any]]:
        """The answer's JSON lines as they come."""
        raw = json.dumps(body).encode() if body is not None else b""
        target = "/admin/v1" + quote(path) + (f"?{query}" if query else "")
        headers = self._headers(method, target, raw)
        opened = connection(self._where, self._trust)
        try:
            opened.connect()
            if opened.sock is not None:
                opened.sock.settimeout(READ_S if method == "GET" else WORK_S)
            opened.request(method, target, raw, headers)
            response = opened.getresponse()
            for line in response:
                if line.strip():
                    yield self._value(response, line)
        except (OSError, http.client.HTTPException) as error:
            reason = why(error, self._where, tls=self._trust is not None, authority=self._authority)
            hint = HINT if isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror) else ""
            raise AdminError(f"cannot reach the server's admin port at {self._where}: {reason}{hint}") from error
        finally:
            opened.close()

    def _value(self, response: http.client.HTTPResponse, line: bytes) -> Answered:
        """One line of an answer. Raises AdminError."""
        try:
            value = json.loads(line, object_hook=Answered)
        except ValueError:
            raise AdminError(self._stranger(response.status, line)) from None
        refused = response.status >= 400
        if not isinstance(value, Answered) or (refused and not isinstance(value.get("error"), str)):
            raise AdminError(self._stranger(response.status, line))
        if value.get("error") == "AuthorizationHeaderMalformed" and 'must be "s3"' in value.get("message", ""):
            raise AdminError(
                "the server is older than 0.8, which signs calls otherwise: use the `s4 admin` of its own version"
            )
        if refused:
            raise AdminError(f"{value.get('message', '')} ({value['error']})")
        return value

    def _stranger(self, status: int, line: bytes) -> str:
        """Who answers there, when it is no admin port."""
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("<?xml") or "<Error>" in text:
            return f"{self._where} is an S3 port; the admin port is the one of --admin-listen, {PORT} unless told"
        if text == "404: Not Found":  # of versions before 0.8
            return f"the server at {self._where} has no such call: it is of another version, or of another kind"
        return f"{self._where} answers, but not as S4's admin port does ({status}, {text[:60]!r}); is this its --admin-listen?"

    def _headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        stamp, digest = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), hashlib.sha256(body).hexdigest()
        headers = {"host": self._where, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        headers["authorization"] = sigv4.authorization(
            self._access, self._secret, self._region, method, target, headers, sigv4.ADMIN
        )
        if not headers["authorization"].isascii() or not headers["authorization"].isprintable():
            raise AdminError("the access key or the region has characters that no request can carry")
        return headers


def _parsed(endpoint: str, scheme: str) -> tuple[str, str]:
    """(scheme, HOST:PORT). Raises AdminError."""
    try:
        parts: SplitResult = urlsplit(endpoint if "//" in endpoint else f"{scheme}://{endpoint}")
        host, port = parts.hostname or "", PORT if parts.port is None else parts.port
        host.encode("idna")
    except ValueError:  # a port that is no number, brackets that do not close, a name that is none
        host, port = "", 0
    if not re.fullmatch(r"[\w.:%-]+", host) or parts.scheme not in ("http", "https") or parts.path.strip("/"):
        raise AdminError(f"{endpoint!r} is no address of an admin port: write [https://]HOST:PORT")
    return parts.scheme, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
