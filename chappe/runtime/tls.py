"""Mutual TLS between services: credentials that follow rotated files, and who the peer is.

gRPC for Python has no setting for the lowest TLS version and accepts 1.2. Two locks make it 1.3:

* ``peer_spiffe_id`` refuses a call that came over anything older, always;
* ``HANDSHAKE_ENVIRONMENT``, present when a process imports ``grpc``, makes the handshake itself fail, for
  servers and clients alike. It leaves TLS 1.2 only a cipher suite that needs a pre-shared key, and nobody
  has one; TLS 1.3 has suites of its own, which the setting does not touch. gRPC reads it at import, so it
  belongs in the environment that starts the process: the launcher's, the image's or the manifest's.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chappe.runtime.pki import SpiffeId, SpiffeIdError, TlsFiles, only_spiffe_id

__all__ = [
    "HANDSHAKE_ENVIRONMENT",
    "HasAuthContext",
    "PeerIdentityError",
    "RotatingFiles",
    "TlsFiles",
    "TlsFilesError",
    "channel_credentials",
    "peer_spiffe_id",
    "server_credentials",
    "target_options",
]

_Made = TypeVar("_Made")

HANDSHAKE_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-AES128-CBC-SHA"}
)
"""Environment in which gRPC's handshakes refuse TLS 1.2."""


class TlsFilesError(Exception):
    """Certificate files that cannot be used; the message says which and what to do."""


class PeerIdentityError(Exception):
    """A caller that did not prove who it is."""


class HasAuthContext(Protocol):
    """The part of a servicer context that knows the peer."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the transport learned of the peer."""
        ...


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Makes credentials that demand a certificate of every client and follow replaced files.

    Each handshake compares the files' times; changed ones are served from that handshake on. Files that do not
    fit together, as in the middle of a rotation, are passed over until they do.

    Raises:
        TlsFilesError: if the files cannot be used at start.
    """
    source = RotatingFiles(files, _configuration)
    # gRPC takes None for "unchanged"; its stubs do not know.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", source.changed)
    return grpc.dynamic_ssl_server_credentials(source.made, fetch, require_client_authentication=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Reads the files now; `RotatingChannel` follows them.

    Raises:
        TlsFilesError: if the files cannot be used.
    """
    ca, key, cert = _read(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def target_options(service: str) -> tuple[tuple[str, str], ...]:
    """Makes a channel insist that the server's certificate carries this DNS name, whatever address is dialled."""
    return (("grpc.ssl_target_name_override", service),)


def peer_spiffe_id(context: HasAuthContext, trust_domain: str) -> SpiffeId:
    """Reads who calls, from the certificate that the transport has verified.

    Raises:
        PeerIdentityError: if the call came without a certificate, below TLS 1.3, or with a certificate that
            names no service, several URIs or another trust domain.
    """
    known = context.auth_context()
    uris = [uri.decode(errors="replace") for uri in known.get("peer_uri", ())]
    if list(known.get("transport_security_type", ())) != [b"ssl"]:
        raise PeerIdentityError("the call came without TLS; dial with channel_credentials")
    version = b",".join(known.get("ssl_tls_version", ())).decode()
    if version != "TLSv1.3":
        raise PeerIdentityError(f"the call came over {version or 'an unknown TLS version'}; TLSv1.3 is the lowest")
    try:
        return only_spiffe_id(uris, trust_domain)
    except SpiffeIdError as error:
        raise PeerIdentityError(str(error)) from error


class RotatingFiles(Generic[_Made]):
    """What is made of certificate files, and made again when they change; any thread may ask."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], _Made]) -> None:
        """Makes it for the first time.

        Raises:
            TlsFilesError: if the files cannot be used.
        """
        self._files = files
        self._make = make
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self.made = make(files)

    def changed(self) -> _Made | None:
        """Gives what is made of the new files once after each change that makes sense, else ``None``."""
        with self._lock:
            try:
                stamp = _stamp(self._files)
                if stamp == self._stamp:
                    return None
                made = self._make(self._files)
                if _stamp(self._files) != stamp:
                    return None
            except TlsFilesError:
                return None
            self._stamp, self.made = stamp, made
            return made


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    try:
        found = [path.stat() for path in (files.ca, files.key, files.cert)]
    except OSError as error:
        raise _unusable(error.filename, error) from error
    return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    ca, key, cert = _read(files)
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    try:
        ca, key, cert = files.ca.read_bytes(), files.key.read_bytes(), files.cert.read_bytes()
        x509.load_pem_x509_certificates(ca)
        is_pair = x509.load_pem_x509_certificate(cert).public_key() == load_pem_private_key(key, None).public_key()
    except (OSError, ValueError) as error:
        raise _unusable(files.cert.parent, error) from error
    if not is_pair:
        raise TlsFilesError(f"{files.cert} and {files.key} do not belong together; issue both again")
    return ca, key, cert


def _unusable(where: Path | str, error: Exception) -> TlsFilesError:
    return TlsFilesError(f"no usable certificate in {where} ({error}); issue one, or mend the configured paths")
