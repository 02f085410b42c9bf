"""The certificates of one cluster: an authority of its own, and what it signs. Pure but for random numbers.

An authority is renewed long before it ends; what trusts it then trusts the old and the new (`bundle`), and
leaves are signed by the new one. Leaves are signed again at two thirds of their time, or when the names that they are
for have changed. Daemons read the files again by themselves.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from s4.crypto.roles import GATEWAY, NODE, SCHEME, uri

AUTHORITY_S, LEAF_S = 10 * 365 * 86400, 90 * 86400
SLACK_S = 3600


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


def make(name: str, now_s: float, valid_s: float, hosts: list[str] | None = None, signer: Pair | None = None) -> Pair:
    """A certificate for a name, and for hosts; signed by an authority, or an authority itself. Among the hosts may be
    the role of a peer or of S3 (s4/crypto/roles.py): only a peer's certificate is good for who calls, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    issuer, signing = subject, key
    if signer is not None:
        issuer = x509.load_pem_x509_certificate(_first(signer.certificate)).subject
        signing = serialization.load_pem_private_key(signer.key.encode(), None)  # type: ignore[assignment]
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=min(SLACK_S, valid_s)))
        .not_valid_after(now + datetime.timedelta(seconds=valid_s))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if signer is None:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        built = built.add_extension(usage, critical=True)
    else:
        peer = any(host in (uri(NODE), uri(GATEWAY)) for host in hosts or [])
        kinds = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if peer else [])]
        built = built.add_extension(x509.ExtendedKeyUsage(kinds), critical=False)
    if hosts:
        built = built.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    pem = built.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(pem, secret.decode())


def _host(host: str) -> x509.GeneralName:
    if host.startswith(SCHEME):
        return x509.UniformResourceIdentifier(host)
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _first(bundle: str) -> bytes:
    end = "-----END CERTIFICATE-----"
    return (bundle.partition(end)[0] + end + "\n").encode()


def newest(bundle: str) -> str:
    """The first certificate of several."""
    return _first(bundle).decode()


def is_due(certificate: str, now_s: float, hosts: list[str] | None = None, authority: str = "") -> bool:
    """Whether a certificate is to be made again: past two thirds of its time, for other hosts, by another authority, or
    unreadable."""
    try:
        found = x509.load_pem_x509_certificate(_first(certificate))
        start, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        if hosts is not None:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if {str(name.value) for name in names} != set(hosts):
                return True
        if authority:
            found.verify_directly_issued_by(x509.load_pem_x509_certificate(_first(authority)))
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return True
    return now_s > start + (end - start) * 2 / 3


def ends_s(certificate: str) -> float:
    """When a certificate ends, in seconds since 1970."""
    return x509.load_pem_x509_certificate(_first(certificate)).not_valid_after_utc.timestamp()


def is_whole(certificate: str, key: str) -> bool:
    """Whether the key is the certificate's: people write into Secrets."""
    try:
        own = serialization.load_pem_private_key(key.encode(), None).public_key()
        return bool(own == x509.load_pem_x509_certificate(_first(certificate)).public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def bundle(new: str, old: str, now_s: float) -> str:
    """The new authority, and the one before while it is valid."""
    try:
        return new + (newest(old) if ends_s(old) > now_s else "")
    except ValueError:  # there was none, or nobody can read it
        return new
