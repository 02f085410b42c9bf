"""TLS between the processes of a cluster: both sides show a certificate that the cluster's own authority signed.

Names in certificates are not compared with addresses, which change with every pod: whom one means is said in
HELLO, by store id, to somebody who has proved to belong to this cluster. What else a certificate says, its role, is
what its calls go by (crypto/roles.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from s4.crypto.pem import CertificateFiles, PemError, load_authority, load_pair
from s4.crypto.roles import GRACE_S, SCHEME, CertificateRule


class PeerContext(ssl.SSLContext):
    """With the rule by which a verified certificate is a peer's."""

    rule: CertificateRule = CertificateRule()


class Credentials(CertificateFiles):
    """Files of the cluster's authority, and of this process's certificate and key, and the contexts that use them: of
    who listens, of who calls, and of the admin port, where a caller is known by its signature and shows no certificate.

    A new authority is trusted beside the old one until the process starts again, so that one can follow the other
    without a moment in which two processes do not trust each other. Raises as CertificateFiles.
    """

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self.server, self.client = PeerContext(ssl.PROTOCOL_TLS_SERVER), PeerContext(ssl.PROTOCOL_TLS_CLIENT)
        self.admin = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client.check_hostname = False
        self.server.verify_mode = self.client.verify_mode = ssl.CERT_REQUIRED
        for context in (self.server, self.client, self.admin):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        super().__init__("certificate for peers", certificate, key, authority)

    def _load(self) -> None:
        certificate, key, authority = self._files
        for context in (PeerContext(ssl.PROTOCOL_TLS_SERVER), self.server, self.client):  # the first to try them
            load_authority(context, authority)
            load_pair(context, certificate, key)
            context.rule = CertificateRule(_roleless_until(certificate))
        load_authority(self.admin, authority)  # with what is between it and the certificate, which callers may need
        load_pair(self.admin, certificate, key)


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
