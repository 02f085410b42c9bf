"""TLS from files, read again when they change: new connections get the new certificate, old ones go on."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from s4.crypto.pem import load_pair, validity

log = structlog.get_logger("s4.tls")

CHECK_S = 5.0


class Certificate:
    """A certificate chain and its key. `holds` is from when until when, in seconds since 1970. Raises OSError that names
    the file which cannot be used."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._loaded = self._stamp()
        load_pair(self.context, certificate, key)
        self.holds = validity(certificate)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (path.stat() for path in self._files))

    def reload(self) -> bool:
        """Load the files again if they changed; a pair that cannot be used leaves the old one in force."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return False
            probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            load_pair(probe, *self._files)
            load_pair(self.context, *self._files)
            self.holds = validity(self._files[0])
        except (OSError, ssl.SSLError) as error:
            log.error("the new certificate cannot be used", error=str(error))
            return False
        self._loaded = stamp
        log.info("certificate loaded again", certificate=str(self._files[0]))
        return True

    async def look(self) -> None:
        """Load the files again if they changed."""
        self.reload()
