"""When certificates are made again, and that a new authority leaves no gap."""

from __future__ import annotations

import pytest
from cryptography import x509

from s4_operator.certificates import bundle, ends_s, is_due, make

NOW, HOUR = 1_800_000_000.0, 3600.0


def test_a_leaf_is_made_again_at_two_thirds_of_its_time() -> None:
    authority = make("authority", NOW, 10 * HOUR)
    leaf = make("c", NOW, 2 * HOUR, ["a.example"], authority)
    assert ends_s(leaf.certificate) == NOW + 2 * HOUR
    assert not is_due(leaf.certificate, NOW, ["a.example"], authority.certificate)
    assert not is_due(leaf.certificate, NOW + 0.9 * HOUR, ["a.example"], authority.certificate)
    assert is_due(leaf.certificate, NOW + 1.1 * HOUR, ["a.example"], authority.certificate)


@pytest.mark.parametrize(
    "certificate", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_cannot_be_read_is_made_again(certificate: str) -> None:
    assert is_due(certificate, NOW)


def test_other_hosts_or_another_authority_make_it_due() -> None:
    one, two = make("authority", NOW, 10 * HOUR), make("authority", NOW, 10 * HOUR)
    leaf = make("c", NOW, 2 * HOUR, ["a.example", "10.0.0.1"], one)
    assert not is_due(leaf.certificate, NOW, ["10.0.0.1", "a.example"], one.certificate)
    assert is_due(leaf.certificate, NOW, ["a.example"], one.certificate)
    assert is_due(leaf.certificate, NOW, ["10.0.0.1", "a.example"], two.certificate)


def test_a_bundle_has_the_new_authority_first_and_the_old_one_while_it_is_valid() -> None:
    old, new = make("authority", NOW, HOUR), make("authority", NOW, 10 * HOUR)
    both = x509.load_pem_x509_certificates(bundle(new.certificate, old.certificate, NOW).encode())
    assert [one.serial_number for one in both] == [
        x509.load_pem_x509_certificate(one.certificate.encode()).serial_number for one in (new, old)
    ]
    assert len(x509.load_pem_x509_certificates(bundle(new.certificate, old.certificate, NOW + 2 * HOUR).encode())) == 1
    leaf = make("c", NOW, HOUR, ["a"], new)
    assert not is_due(leaf.certificate, NOW, ["a"], bundle(new.certificate, old.certificate, NOW))


def test_a_role_is_among_the_names_and_makes_older_certificates_due() -> None:
    """Those of 0.7 have none: they are made again when the operator of 0.8 starts. That of S3 is not good for who
    calls."""
    authority = make("authority", NOW, 10 * HOUR)
    for role, calls in (("node", True), ("gateway", True), ("s3", False)):
        hosts = ["a.example", f"s4:{role}"]
        made = make("c", NOW, HOUR, hosts, authority)
        assert not is_due(made.certificate, NOW, hosts, authority.certificate)
        assert is_due(make("c", NOW, HOUR, ["a.example"], authority).certificate, NOW, hosts, authority.certificate)
        found = x509.load_pem_x509_certificate(made.certificate.encode()).extensions
        assert found.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        ) == [f"s4:{role}"]
        assert (
            x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH in found.get_extension_for_class(x509.ExtendedKeyUsage).value
        ) == calls
