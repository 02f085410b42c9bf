"""Certificates, keys and authorities from files, with errors that name the file: OpenSSL's own name none.

A key that needs a passphrase is refused: nobody is there to type it when a server starts again.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from pathlib import Path

import structlog
from cryptography import x509

from s4.base.said import SaidError

log = structlog.get_logger("s4.tls")

CHECK_S = 5.0


class PemError(SaidError, OSError):
    """A file that TLS cannot use; the message names it."""


class CertificateFiles(ABC):
    """A certificate, its key, and what else goes with them, read again when they change: new connections get the new
    ones, old ones go on. `what` is whose they are, for the log. `holds` is from when until when the certificate does,
    in seconds since 1970. Raises OSError that names the file which cannot be used, ssl.SSLError."""

    def __init__(self, what: str, certificate: Path, key: Path, *others: Path) -> None:
        self._what, self._certificate, self._files = what, certificate, (certificate, key, *others)
        self._loaded = self._stamp()
        self._load()
        self.holds = validity(certificate)

    @abstractmethod
    def _load(self) -> None:
        """Use the files as they are now, all or, where it raises, none."""

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (path.stat() for path in self._files))

    def reload(self) -> bool:
        """Load the files again if they changed; ones that cannot be used leave the old ones in force."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return False
            self._load()
            self.holds = validity(self._certificate)
        except (OSError, ssl.SSLError) as error:
            log.error(f"the new {self._what} cannot be used", error=str(error))
            return False
        self._loaded = stamp
        log.info(f"the {self._what} was loaded again", certificate=str(self._certificate))
        return True

    async def look(self) -> None:
        """Load the files again if they changed."""
        self.reload()


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
