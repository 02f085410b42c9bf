"""A certificate authority for the processes of one cluster (peer/trust.py), for those who have none.

It is a directory: `ca.pem` is what every process trusts, `ca.key` (0600) signs, and each member has NAME.pem and
NAME.key. What is there is kept: a name is given once, and made again only by `renew`. An authority follows another in
three steps, between which files are brought to the machines, so that at no time two processes do not trust each other:

    replace   ca.pem has the new authority and, behind it, the old one; the old one's key becomes ca.old.key
    renew     members' certificates are the new one's
    forget    ca.pem has the new one only

Rules for editors: the first certificate in `ca.pem` is that of `ca.key`. Where the two differ, `replace` was cut off,
and is to be called again: it writes `ca.pem` last.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s4.crypto import roles
from s4.storage.files import Files

DAYS = 3650
PUBLIC = 0o644
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class AuthorityError(Exception):
    """What was asked cannot be done; the message says why and what to do."""


class Authority:
    """The one of a directory, which is made where there is none. Raises AuthorityError, OSError."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.ca, self._files = directory, directory / "ca.pem", Files()
        self._secret = directory / "ca.key"
        self._old = directory / "ca.old.pem", directory / "ca.old.key"
        if not self.ca.exists() and not self._secret.exists():
            self._key = self._new_key()
            self._files.replace(self.ca, self._own(), PUBLIC)
        elif self._secret.exists():
            self._key = _read_key(self._secret)

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        self._files.replace(self._secret, _pem(key))
        return key

    def _own(self) -> bytes:
        return self._signed("s4 cluster", self._key.public_key(), authority=True)

    def _check(self) -> None:
        """That something can be signed. Raises AuthorityError."""
        if not self._secret.exists():
            raise AuthorityError(
                f"{self._secret} is not there, so that {self.ca} signs nothing more (S4 kept no key until 0.7): "
                f"replace the authority, with `s4 admin cluster certificates {self.directory} --replace-authority`"
            )
        if self._is_cut_off():
            raise AuthorityError(
                f"the replacement of the authority in {self.directory} was cut off: call it again, with --replace-authority"
            )

    def _is_cut_off(self) -> bool:
        own = _read(self.ca)[0].public_key() if self.ca.exists() else None
        return own != self._key.public_key()

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, *, authority: bool, role: str = "") -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s4 cluster")]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if role:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(roles.uri(role))])
            built = built.add_extension(names, critical=False)
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _paths(self, name: str) -> tuple[Path, Path]:
        if not _NAME.fullmatch(name) or name in ("ca", "ca.old"):
            raise AuthorityError(f"{name!r} is no name of a process: letters, digits, dots and dashes, up to 63")
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def members(self) -> list[str]:
        """Who has a certificate here."""
        own = {self.ca, self._old[0]}
        return sorted(path.stem for path in self.directory.glob("*.pem") if path not in own)

    def add(self, names: list[str]) -> list[Path]:
        """Certificates for new members; all or none. Raises AuthorityError where a name is taken."""
        self._check()
        taken = [str(path) for name in names for path in self._paths(name) if path.exists()]
        if taken:
            raise AuthorityError(
                f"{', '.join(taken)}: there already, and nothing is overwritten; --renew makes it again"
            )
        return [self.issue(name)[1] for name in dict.fromkeys(names)]

    def renew(self, names: list[str]) -> list[Path]:
        """New certificates and keys for members, all where none is named. Raises AuthorityError for who is none."""
        self._check()
        unknown = [name for name in names if not self._paths(name)[0].exists()]
        if unknown:
            raise AuthorityError(f"{', '.join(unknown)}: there is no certificate to renew in {self.directory}")
        return [self.issue(name, _role_of(_read(self._paths(name)[0])[0]))[1] for name in names or self.members()]

    def issue(self, name: str, role: str = "") -> tuple[Path, Path, Path]:
        """(authority, certificate, key) of a member; its role is the one that its name tells where none is given."""
        self._check()
        key, (certificate, secret) = ec.generate_private_key(ec.SECP256R1()), self._paths(name)
        signed = self._signed(name, key.public_key(), authority=False, role=role or roles.by_name(name))
        self._files.replace(secret, _pem(key))
        self._files.replace(certificate, signed, PUBLIC)
        return self.ca, certificate, secret

    def replace(self) -> None:
        """Make another authority, trusted beside the one that is there. Raises AuthorityError."""
        there = _read(self.ca)
        if self._old[0].exists() and there[0] != _read(self._old[0])[0]:
            if len(there) > 1:
                raise AuthorityError(
                    f"{self._old[0]} is there: an authority is being replaced already; renew the members' certificates (--renew), "
                    "bring them to the machines, and forget the old one (--forget-authority)"
                )
            self._drop_old()
        if not self._old[0].exists():
            if self._secret.exists():
                self._files.replace(self._old[1], self._secret.read_bytes())
            self._files.replace(self._old[0], _text(there[0]), PUBLIC)
        old = _read(self._old[0])[0]
        if not self._secret.exists() or self._key.public_key() == old.public_key():
            self._key = self._new_key()
        self._files.replace(self.ca, self._own() + _text(old), PUBLIC)

    def forget(self) -> None:
        """Trust the new authority only. Raises AuthorityError where a member's certificate is the old one's."""
        self._check()
        if not self._old[0].exists():
            raise AuthorityError(f"no authority is being replaced in {self.directory}")
        own = _read(self.ca)[0]
        behind = [name for name in self.members() if not _is_of(own, _read(self._paths(name)[0])[0])]
        if behind:
            raise AuthorityError(f"{', '.join(behind)}: of the old authority still; --renew first")
        self._files.replace(self.ca, _text(own), PUBLIC)
        self._drop_old()

    def _drop_old(self) -> None:
        for path in reversed(self._old):
            path.unlink(missing_ok=True)
        self._files.sync_directory(self.directory)


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise AuthorityError(f"{path} is no certificate: {error}") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{path} is no key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{path} is not a key that S4 made; sign certificates with what made it")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*kinds)


def _text(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _is_of(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _role_of(certificate: x509.Certificate) -> str:
    """The role that a certificate says; empty for one of 0.7."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((one.removeprefix(roles.SCHEME) for one in uris if one.startswith(roles.SCHEME)), "")
