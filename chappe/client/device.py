"""A device and its key: the credential of everything that it does."""

import hashlib
from typing import NamedTuple, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.identity.v1 import session_service_pb2
from chappe.client.errors import ProfileError
from chappe.client.frames import PROTOCOL

NONCE_BYTES = 16


class DeviceKey:
    """An Ed25519 key that signs what the contracts name."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        """The public half, 32 bytes."""

    @classmethod
    def generate(cls) -> Self:
        """Returns a new key from the kernel's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Returns the key in a PEM file.

        Raises:
            ProfileError: It is not an Ed25519 key.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except ValueError as error:
            raise ProfileError(f"the device key is damaged: {error}; restore it or register again") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ProfileError("the device key is not an Ed25519 key; restore it or register again")
        return cls(key)

    def to_pem(self) -> bytes:
        """Returns the key as PKCS #8 in PEM, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def registration_proof(self, token: bytes) -> bytes:
        """Signs a registration token."""
        return self._key.sign(b"chappe-register/1\0" + token)

    def link_proof(self, code: str) -> bytes:
        """Signs a link code; as it was typed or as it was shown, the signature is the same."""
        return self._key.sign(b"chappe-link/1\0" + plain_code(code).encode("ascii", "replace"))

    def sign(self, data: bytes) -> bytes:
        """Signs anything else that a contract names."""
        return self._key.sign(data)


def plain_code(code: str) -> str:
    """Returns a link code as it is signed, however it was typed."""
    return "".join(letter for letter in code.upper() if letter.isalnum())


class Device(NamedTuple):
    """One device of one user, able to sign in."""

    user_id: bytes
    device_id: int
    key: DeviceKey

    def session_request(self, server_ms: int, nonce: bytes) -> session_service_pb2.CreateSessionRequest:
        """Returns the signed request for an access token."""
        signed = b"".join(
            (
                b"chappe-session/1\0",
                self.user_id,
                self.device_id.to_bytes(4, "big"),
                server_ms.to_bytes(8, "big"),
                nonce,
            )
        )
        return session_service_pb2.CreateSessionRequest(
            user_id=self.user_id,
            device_id=self.device_id,
            timestamp_ms=server_ms,
            nonce=nonce,
            signature=self.key.sign(signed),
        )

    def hello(self, token: str, server_ms: int, nonce: bytes, host: str) -> client_frame_pb2.SignedHello:
        """Returns the proof that the device of the token is the one that connects to this host."""
        signed = b"".join(
            (
                b"chappe-hello/1\0",
                hashlib.sha256(token.encode()).digest(),
                server_ms.to_bytes(8, "big"),
                nonce,
                host.encode(),
            )
        )
        return client_frame_pb2.SignedHello(
            access_token=token, timestamp_ms=server_ms, nonce=nonce, host=host, signature=self.key.sign(signed)
        )


def signed_hello(proof: client_frame_pb2.SignedHello, *, cursor: bytes, receive_window: int, user_agent: str) -> bytes:
    """Returns the frame that opens the session of a device, to resume at a cursor."""
    hello = client_frame_pb2.Hello(
        protocol=PROTOCOL, signed=proof, cursor=cursor, receive_window=receive_window, user_agent=user_agent
    )
    return client_frame_pb2.ClientFrame(hello=hello).SerializeToString()
