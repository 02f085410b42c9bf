"""TLS between the processes of a cluster: both sides show a certificate that the cluster's own authority signed.

Names in certificates are not compared with addresses, which change with every pod: whom one means is said in
HELLO, by store id, to somebody who has proved to belong to this cluster. What else a certificate says, its role, is
what its calls go by (crypto/roles.py).
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cryptography import x509

from s4.crypto.pem import PemError, load_authority, load_pair, validity
from s4.crypto.roles import GRACE_S, SCHEME, CertificateRule

log = logging.getLogger(__name__)

CHECK_S = 5.0


class Credentials:
    """Files of the cluster's authority, and of this process's certificate and key, read again when they change.

    A new authority is trusted beside the old one until the process starts again, so that one can follow the other
    without a moment in which two processes do not trust each other. `holds` is from when until when the certificate
    does, in seconds since 1970. Raises OSError, ssl.SSLError.
    """

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self._files = (authority, certificate, key)
        self._loaded = self._stamp()
        self.server = server_context(*self._files)
        self.client = client_context(*self._files)
        self.admin = admin_context(*self._files)
        self.holds = validity(certificate)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (path.stat() for path in self._files))

    def reload(self) -> bool:
        """Use the files as they are now for new connections; files that cannot be used leave the old ones in force."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return False
            server_context(*self._files)
            for context in (self.server, self.client):
                _trusting(context, *self._files)
            for context in (self.server, self.client):
                context.rule = CertificateRule(_roleless_until(self._files[1]))
            self.admin.load_cert_chain(*self._files[1:])
            self.holds = validity(self._files[1])
        except (OSError, ssl.SSLError) as error:
            log.error("the new certificate for peers cannot be used: %s", error)
            return False
        self._loaded = stamp
        log.info("the certificate for peers was loaded again")
        return True

    async def look(self) -> None:
        """Use the files as they are now."""
        self.reload()


class PeerContext(ssl.SSLContext):
    """With the rule by which a verified certificate is a peer's."""

    rule: CertificateRule = CertificateRule()


def server_context(authority: Path, certificate: Path, key: Path) -> PeerContext:
    """For who listens. Raises OSError, ssl.SSLError."""
    context = PeerContext(ssl.PROTOCOL_TLS_SERVER)
    _trusting(context, authority, certificate, key)
    context.rule = CertificateRule(_roleless_until(certificate))
    return context


def _roleless_until(certificate: Path) -> float:
    """Raises OSError, ssl.SSLError."""
    try:
        own = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return float("inf")
    except ValueError as error:
        raise PemError(f"the certificate {certificate} cannot be read: {error}") from error
    has_role = any(one.startswith(SCHEME) for one in uris)
    return own.not_valid_before_utc.timestamp() + GRACE_S if has_role else float("inf")


def admin_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For the admin port, where a caller is known by its signature and shows no certificate. Raises OSError,
    ssl.SSLError."""
    context = _trusting(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority, certificate, key)
    context.verify_mode = ssl.CERT_NONE
    return context


def client_context(authority: Path, certificate: Path, key: Path) -> PeerContext:
    """For who calls. Raises OSError, ssl.SSLError."""
    context = PeerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _trusting(context, authority, certificate, key)
    context.rule = CertificateRule(_roleless_until(certificate))
    return context


def _trusting(context: ssl.SSLContext, authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_authority(context, authority)
    load_pair(context, certificate, key)
    return context
