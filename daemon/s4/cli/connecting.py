"""Connections of commands to a port of S4, and what is said of one that does not come about."""

from __future__ import annotations

import http.client
import socket
import ssl

from s4.base.said import SaidError, words

CONNECT_S = 10.0
PEERS = "the port for peers (--peer-listen) asks for one, and is not the one that is meant here"
_TLS_ALERT = "\x15\x03"


class TrustError(SaidError):
    """An authority's file cannot be used."""


def trust(authority: str) -> ssl.SSLContext:
    """With `authority`, a file, whom it signed for, or who shows one of its certificates, whatever name that is for: a
    cluster's authority signs for nobody else. Without, whom this machine trusts. Raises TrustError."""
    try:
        context = ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        raise TrustError(f"the authority {authority} cannot be read: {error.strerror or error}") from error
    if authority:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def connection(where: str, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """To HOST:PORT; TLS with a context. It is not opened yet."""
    if context is None:
        return http.client.HTTPConnection(where, timeout=CONNECT_S)
    return http.client.HTTPSConnection(where, timeout=CONNECT_S, context=context)


def why(error: Exception, where: str, *, tls: bool, authority: str = "") -> str:
    """Why HOST:PORT gave no answer."""
    if isinstance(error, ssl.SSLError):
        return _why_no_tls(error, where, authority)
    if isinstance(error, http.client.BadStatusLine) and str(error.args[0] if error.args else "").startswith(_TLS_ALERT):
        return f"it speaks TLS: use https://{where}"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return f"it hangs up without an answer; {PEERS if tls else f'if it speaks TLS, use https://{where}'}"
    if isinstance(error, http.client.HTTPException):
        return f"what listens there answers, but not as S4 does ({type(error).__name__})"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {where}"
    if isinstance(error, socket.gaierror):
        return f"{where.rpartition(':')[0]} is no name that this machine knows"
    if isinstance(error, TimeoutError):
        return "no answer comes"
    return words(error)


def _why_no_tls(error: ssl.SSLError, where: str, authority: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        whose = f"the authority in {authority}" if authority else "any authority that this machine trusts"
        more = "" if authority else "; name its own with --authority FILE"
        return f"its certificate is not of {whose} ({error.verify_message}: certificate verify failed){more}"
    reason = (error.reason or "").upper()
    if isinstance(error, ssl.SSLEOFError) or "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"it takes no TLS without a certificate of the caller; {PEERS}"
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "HTTP_REQUEST" in reason:
        return f"it speaks no TLS: use http://{where}, without --authority"
    return f"TLS with it fails ({error.reason or error})"
