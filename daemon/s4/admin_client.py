"""Calls on an admin port, and what is said when something else answers there, or nobody.

Whatever a client meets (another port of S4, a server of somebody else, TLS where it spoke none, an answer of another version)
becomes an AdminError here, and nowhere else: commands use the values as if they had all that they look for.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from s4.s3 import sigv4
from s4.said import SaidError

PORT = 9001
CONNECT_S, READ_S, WORK_S = 10.0, 60.0, 3600.0
PEERS = "the port for peers (--peer-listen) asks for one, and is not the one of --admin-listen"
_TLS_ALERT = "\x15\x03"


class AdminError(SaidError):
    """The server refused or cannot be reached; the message is for people."""


class Answered(dict[str, Any]):
    """An object of an answer. What is not in it is another version's to say."""

    def __missing__(self, name: str) -> Any:
        raise AdminError(
            f"the answer does not say {name}: the server is of another version; use the `s4 admin` of its own"
        )


class AdminClient:
    """Signed calls on an admin endpoint. Over https it must show a certificate of `authority`, a file, whatever name it is for:
    a cluster's authority signs for nobody else. Without one, a certificate that this machine trusts. Raises AdminError."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, region: str, authority: str = "") -> None:
        self._scheme, self._where = _parsed(endpoint, "https" if authority else "http")
        self._access, self._secret, self._region = access_key, secret_key, region
        self._authority = authority
        self._trust = _trust(authority) if self._scheme == "https" else None

    def call(self, method: str, path: str, body: Any = None, query: str = "") -> Iterator[dict[str, Any]]:
        """The answer's JSON lines as they come."""
        raw = json.dumps(body).encode() if body is not None else b""
        target = "/admin/v1" + quote(path) + (f"?{query}" if query else "")
        headers = self._headers(method, target, raw)
        connection = (
            http.client.HTTPSConnection(self._where, timeout=CONNECT_S, context=self._trust)
            if self._trust is not None
            else http.client.HTTPConnection(self._where, timeout=CONNECT_S)
        )
        try:
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(READ_S if method == "GET" else WORK_S)
            connection.request(method, target, raw, headers)
            response = connection.getresponse()
            for line in response:
                if line.strip():
                    yield self._value(response, line)
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"cannot reach the server's admin port at {self._where}: {self._why(error)}") from error
        finally:
            connection.close()

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

    def _why(self, error: Exception) -> str:
        """Why there was no answer."""
        if isinstance(error, ssl.SSLError):
            return self._why_no_tls(error)
        if isinstance(error, http.client.BadStatusLine) and str(error.args[0] if error.args else "").startswith(
            _TLS_ALERT
        ):
            return f"it speaks TLS: use https://{self._where}"
        if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
            tls = PEERS if self._trust is not None else f"if it speaks TLS, use https://{self._where}"
            return f"it hangs up without an answer; {tls}"
        if isinstance(error, http.client.HTTPException):
            return f"what listens there answers, but not as S4's admin port does ({type(error).__name__})"
        if isinstance(error, ConnectionRefusedError):
            return f"nobody listens at {self._where}; is `s4 server` running, and is this its --admin-listen?"
        if isinstance(error, socket.gaierror):
            return f"{self._where.rpartition(':')[0]} is no name that this machine knows"
        if isinstance(error, TimeoutError):
            return "no answer comes; is `s4 server` running, and is this its --admin-listen?"
        return str(getattr(error, "strerror", "") or error)

    def _why_no_tls(self, error: ssl.SSLError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            whose = (
                f"the authority in {self._authority}" if self._authority else "any authority that this machine trusts"
            )
            more = "" if self._authority else "; name its own with --authority FILE"
            return f"its certificate is not of {whose} ({error.verify_message}: certificate verify failed){more}"
        reason = (error.reason or "").upper()
        if isinstance(error, ssl.SSLEOFError) or "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
            return f"it takes no TLS without a certificate of the caller; {PEERS}"
        if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "HTTP_REQUEST" in reason:
            return f"it speaks no TLS: use http://{self._where}, without --authority"
        return f"TLS with it fails ({error.reason or error})"

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


def _trust(authority: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        raise AdminError(f"the authority {authority} cannot be read: {error.strerror or error}") from error
    context.check_hostname = not authority
    return context
