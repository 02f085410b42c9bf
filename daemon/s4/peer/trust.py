"""TLS between the processes of a cluster: both sides show a certificate that the cluster's own authority signed.

Names in certificates are not compared with addresses, which change with every pod: whom one means is said in
HELLO, by store id, to somebody who has proved to belong to this cluster.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For who listens. Raises OSError, ssl.SSLError."""
    return _trusting(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority, certificate, key)


def client_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For who calls. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _trusting(context, authority, certificate, key)


def _trusting(context: ssl.SSLContext, authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context
