"""Names services by SPIFFE id, and makes short-lived certificates for development.

In production cert-manager's csi-driver-spiffe or SPIRE issues the same kind of certificate; nothing but
``chappe up`` and tests uses the authority here.
"""

import datetime as dt
import ipaddress
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_S: Final = 24 * 3600.0
"""Seconds that a service's certificate lives."""
TRUST_DOMAIN: Final = "chappe.test"
"""The trust domain of development."""

_AUTHORITY_S: Final = 90 * 24 * 3600.0
_CLOCK_SKEW_S: Final = 60.0
_SPIFFE_ID: Final = re.compile(
    r"spiffe://(?P<domain>[a-z0-9._-]{1,255})/ns/(?P<namespace>[A-Za-z0-9-]{1,63})/sa/(?P<service>[A-Za-z0-9-]{1,63})"
)
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SpiffeIdError(ValueError):
    """Names that identify no service of ours; the message says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpiffeId:
    """The identity of one service, as certificates carry it."""

    trust_domain: str
    """Who vouches, for example ``chappe.test``."""
    service: str
    """The service account, for example ``svc-edge``."""
    namespace: str = "chappe"
    """The Kubernetes namespace."""

    def __str__(self) -> str:
        """The URI, for example ``spiffe://chappe.test/ns/chappe/sa/svc-edge``."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """Where a process finds its own certificate and whom it trusts; files may be replaced while it runs."""

    cert: Path
    """PEM certificate chain, leaf first."""
    key: Path
    """PEM private key of the leaf."""
    ca: Path
    """PEM certificates of the authorities that vouch for peers."""


def spiffe_id(trust_domain: str, service: str) -> str:
    """Writes the SPIFFE id of a service.

    Raises:
        SpiffeIdError: if either part cannot stand in one.
    """
    written = str(SpiffeId(trust_domain=trust_domain, service=service))
    return str(parse_spiffe_id(written, trust_domain))


def parse_spiffe_id(uri: str, trust_domain: str) -> SpiffeId:
    """Reads a SPIFFE id and insists on its trust domain.

    Raises:
        SpiffeIdError: if it has another form or another domain.
    """
    found = _SPIFFE_ID.fullmatch(uri)
    if found is None:
        raise SpiffeIdError(f"{uri!r} is no SPIFFE id; expected spiffe://{trust_domain}/ns/<namespace>/sa/<service>")
    if found["domain"] != trust_domain:
        raise SpiffeIdError(f"{uri!r} is of the trust domain {found['domain']}; only {trust_domain} is trusted here")
    return SpiffeId(trust_domain=found["domain"], namespace=found["namespace"], service=found["service"])


def only_spiffe_id(uris: Sequence[str], trust_domain: str) -> SpiffeId:
    """Reads the one SPIFFE id of a certificate.

    Raises:
        SpiffeIdError: if there is none, or any other URI beside it: which of two names counts is a trap.
    """
    if len(uris) != 1:
        listed = ", ".join(uris) or "none"
        raise SpiffeIdError(f"a certificate must name exactly one URI, its SPIFFE id; found {listed}")
    return parse_spiffe_id(uris[0], trust_domain)


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class DevelopmentCa:
    """A certificate authority in a folder; whoever reads its key can be any service, so keep it at home."""

    def __init__(
        self,
        folder: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Wraps an authority; ``open`` is how to get one."""
        self._folder = folder
        self._key = key
        self._certificate = certificate
        self._now = now

    @classmethod
    def open(cls, folder: Path, *, now: Callable[[], dt.datetime] = _utc_now) -> Self:
        """Reads the authority of a folder, or makes one when it is missing, damaged or about to expire.

        A new authority makes every certificate of the old one worthless: issue them again.

        Args:
            folder: holds ``ca.crt`` and ``ca.key``; made when missing, for its owner only.
            now: the clock, in UTC.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _read_authority(folder)
        is_fresh = found is not None and found[1].not_valid_after_utc > now() + dt.timedelta(seconds=2 * LEAF_S)
        if found is None or not is_fresh:
            found = _new_authority(now())
            _write(folder / "ca.key", _key_pem(found[0]), 0o600)
            _write(folder / "ca.crt", found[1].public_bytes(Encoding.PEM), 0o644)
        return cls(folder, found[0], found[1], now)

    def issue(
        self,
        name: str,
        spiffe_id: str,
        dns_names: Iterable[str] = ("localhost",),
        ips: Iterable[str] = ("127.0.0.1", "::1"),
        lifetime_s: float = LEAF_S,
    ) -> TlsFiles:
        """Writes ``<name>.crt`` and ``<name>.key`` beside ``ca.crt``, replacing earlier ones one by one.

        Args:
            name: the stem of the files.
            spiffe_id: the identity, the only URI of the certificate.
            dns_names: names under which clients dial the service.
            ips: addresses under which clients dial the service.
            lifetime_s: seconds from now; at most the authority's own life.

        Raises:
            ValueError: if ``name`` is no plain file name.
        """
        if not _FILE_NAME.fullmatch(name) or name == "ca":
            raise ValueError(f"{name!r} cannot name certificate files; use letters, digits and -, and not 'ca'")
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
        names += [x509.DNSName(dns_name) for dns_name in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        leaf = self._leaf(key, names, lifetime_s)
        files = TlsFiles(
            cert=self._folder / f"{name}.crt", key=self._folder / f"{name}.key", ca=self._folder / "ca.crt"
        )
        _write(files.key, _key_pem(key), 0o600)
        _write(files.cert, leaf.public_bytes(Encoding.PEM), 0o644)
        return files

    def _leaf(
        self, key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], lifetime_s: float
    ) -> x509.Certificate:
        authority = self._certificate
        expiry = min(self._now() + dt.timedelta(seconds=lifetime_s), authority.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - dt.timedelta(seconds=_CLOCK_SKEW_S))
            .not_valid_after(expiry)
            # Critical, because the subject is empty: whoever ignores the names must not trust the rest.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _new_authority(now: dt.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Chappe development authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=_CLOCK_SKEW_S))
        .not_valid_after(now + dt.timedelta(seconds=_AUTHORITY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read_authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    try:
        key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    is_pair = key.public_key() == certificate.public_key()
    return (key, certificate) if is_pair and isinstance(key, ec.EllipticCurvePrivateKey) else None


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replaces a file in one step; at no moment can anybody read a key who should not."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    Path(draft).replace(path)
