"""The development authority and the names that certificates carry."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from chappe.runtime.pki import (
    DevelopmentCa,
    SpiffeIdError,
    TlsFiles,
    only_spiffe_id,
    parse_spiffe_id,
    spiffe_id,
)

EDGE = "spiffe://chappe.test/ns/chappe/sa/svc-edge"
START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def issued(folder: Path) -> TlsFiles:
    return DevelopmentCa.open(folder, now=lambda: START).issue("svc-edge", EDGE, ["svc-edge", "localhost"])


def test_a_spiffe_id_is_written_and_read_back() -> None:
    written = spiffe_id("chappe.test", "svc-edge")

    read = parse_spiffe_id(written, "chappe.test")

    assert written == EDGE
    assert (read.trust_domain, read.service, str(read)) == ("chappe.test", "svc-edge", EDGE)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://chappe.test/ns/chappe/sa/svc-edge",
        "SPIFFE://chappe.test/ns/chappe/sa/svc-edge",
        "spiffe://chappe.test:443/ns/chappe/sa/svc-edge",
        "spiffe://me@chappe.test/ns/chappe/sa/svc-edge",
        "spiffe://Chappe.test/ns/chappe/sa/svc-edge",
        "spiffe:///ns/chappe/sa/svc-edge",
        "spiffe://chappe.test/sa/svc-edge",
        "spiffe://chappe.test/ns/chappe/sa/",
        "spiffe://chappe.test/ns/chappe/sa/..",
        "spiffe://chappe.test/ns/chappe/sa/svc-edge/",
        "spiffe://chappe.test/ns/chappe/sa/svc-edge\n",
        "spiffe://chappe.test/ns/chappe/sa/svc-edge?x=1",
        "spiffe://chappe.test/ns/chappe/sa/svc-edge#x",
        "spiffe://chappe.test/ns/chappe/sa/svc%2Dedge",
    ],
)
def test_what_is_no_spiffe_id_is_refused(uri: str) -> None:
    with pytest.raises(SpiffeIdError, match=r"is no SPIFFE id; expected spiffe://chappe\.test"):
        parse_spiffe_id(uri, "chappe.test")


def test_another_trust_domain_is_refused_even_if_it_begins_the_same() -> None:
    with pytest.raises(SpiffeIdError, match=r"trust domain chappe\.test\.evil; only chappe\.test is trusted"):
        parse_spiffe_id("spiffe://chappe.test.evil/ns/chappe/sa/svc-edge", "chappe.test")


@pytest.mark.parametrize("uris", [[], [EDGE, "https://example.org"], [EDGE, EDGE]])
def test_a_certificate_names_exactly_one_uri(uris: list[str]) -> None:
    with pytest.raises(SpiffeIdError, match="exactly one URI"):
        only_spiffe_id(uris, "chappe.test")


def test_a_service_name_that_would_change_the_path_is_refused() -> None:
    with pytest.raises(SpiffeIdError):
        spiffe_id("chappe.test", "svc-edge/sa/svc-message")


def test_a_leaf_carries_its_identity_alone_and_critically(tmp_path: Path) -> None:
    leaf = certificate(issued(tmp_path).cert)

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert leaf.subject == x509.Name([])
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [EDGE]
    assert names.value.get_values_for_type(x509.DNSName) == ["svc-edge", "localhost"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_a_leaf_serves_and_calls_for_24_hours_and_signs_nothing(tmp_path: Path) -> None:
    leaf = certificate(issued(tmp_path).cert)

    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.not_valid_after_utc == START + dt.timedelta(hours=24)
    assert leaf.not_valid_before_utc <= START
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    files = issued(tmp_path / "pki")

    assert files.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "pki").iterdir()) == [
        "ca.crt",
        "ca.key",
        "svc-edge.crt",
        "svc-edge.key",
    ]


def test_openssl_verifies_the_chain(tmp_path: Path) -> None:
    files = DevelopmentCa.open(tmp_path).issue("svc-edge", EDGE)

    ran = subprocess.run(
        ("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", files.ca, files.cert),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.strip().endswith("OK"), ran.stderr


def test_opening_again_keeps_the_authority(tmp_path: Path) -> None:
    issued(tmp_path)
    first = (tmp_path / "ca.crt").read_bytes()

    issued(tmp_path)

    assert (tmp_path / "ca.crt").read_bytes() == first


def test_an_authority_about_to_expire_is_replaced(tmp_path: Path) -> None:
    issued(tmp_path)
    first = (tmp_path / "ca.crt").read_bytes()

    DevelopmentCa.open(tmp_path, now=lambda: START + dt.timedelta(days=89))

    assert (tmp_path / "ca.crt").read_bytes() != first


def test_a_damaged_or_foreign_key_brings_a_new_authority(tmp_path: Path) -> None:
    issued(tmp_path)
    issued(tmp_path / "other")
    first = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())

    DevelopmentCa.open(tmp_path, now=lambda: START)

    second = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "ca.key").write_text("damaged")
    DevelopmentCa.open(tmp_path, now=lambda: START)
    assert len({first, second, (tmp_path / "ca.crt").read_bytes()}) == 3


def test_a_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    authority = DevelopmentCa.open(tmp_path, now=lambda: START)

    files = authority.issue("svc-edge", EDGE, lifetime_s=365 * 24 * 3600)

    assert certificate(files.cert).not_valid_after_utc == certificate(files.ca).not_valid_after_utc


@pytest.mark.parametrize("name", ["ca", "", "../svc-edge", ".hidden", "a/b"])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name certificate files"):
        DevelopmentCa.open(tmp_path).issue(name, EDGE)
