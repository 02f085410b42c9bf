"""A certificate authority for the processes of one cluster (peer/trust.py), for those who have none.

Its own key stays in memory and is forgotten: who wants more members later makes a new authority for all of them, or
brings their own.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s4.peer import roles
from s4.storage.files import Files

DAYS = 3650
PUBLIC = 0o644


class Authority:
    """Writes `ca.pem`, and for each name `NAME.pem` and `NAME.key`, into a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.ca = directory, directory / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s4 cluster")])
        self._files = Files()
        self._files.replace(self.ca, self._signed("s4 cluster", self._key.public_key(), authority=True), PUBLIC)

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, *, authority: bool, role: str = "") -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name).public_key(key).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )  # fmt: skip
        if role:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(roles.uri(role))])
            built = built.add_extension(names, critical=False)
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, role: str = "") -> tuple[Path, Path, Path]:
        """(authority, certificate, key) of a member; its role is the one that its name tells where none is given."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        self._files.replace(
            certificate, self._signed(name, key.public_key(), authority=False, role=role or roles.by_name(name)), PUBLIC
        )
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self._files.replace(secret, key.private_bytes(*pem))
        return self.ca, certificate, secret
