"""TLS of the ports that are spoken to by HTTP."""

from __future__ import annotations

import ssl
from pathlib import Path

from s4.crypto.pem import CertificateFiles, load_pair


class Certificate(CertificateFiles):
    """A certificate chain and its key, and a context that shows it. Raises as CertificateFiles."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        super().__init__("certificate", certificate, key)

    def _load(self) -> None:
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):  # the first to try them
            load_pair(context, *self._files)
