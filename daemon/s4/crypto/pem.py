"""Certificates, keys and authorities from files, with errors that name the file: OpenSSL's own name none.

A key that needs a passphrase is refused: nobody is there to type it when a server starts again.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from s4.base.said import SaidError


class PemError(SaidError, OSError):
    """A file that TLS cannot use; the message names it."""


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a context show a certificate. Raises PemError, OSError with the file's name."""
    for path in (certificate, key):
        path.read_bytes()

    def refuse() -> str:
        raise PemError(f"{key} needs a passphrase; give a key without one")

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise PemError(f"{key} is not the key of {certificate}") from error
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, "certificate")
        raise PemError(f"{key} holds no key of a certificate (PEM)") from error


def validity(certificate: Path) -> tuple[float, float]:
    """From when until when the first certificate of a file holds, in seconds since 1970; (0, 0) of one that OpenSSL
    takes and this cannot read. Raises OSError."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except ValueError:
        return 0.0, 0.0
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def load_authority(context: ssl.SSLContext, authority: Path) -> None:
    """Have a context trust whom an authority signed for. Raises PemError, OSError with the file's name."""
    authority.read_bytes()
    _trust(context, authority, "certificate of an authority")


def _trust(context: ssl.SSLContext, path: Path, what: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise PemError(f"{path} holds no {what} (PEM)") from error
