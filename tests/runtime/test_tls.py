"""Mutual TLS over real loopback sockets."""

import asyncio
import datetime as dt
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from chappe.runtime.channels import channel
from chappe.runtime.pki import DevelopmentCa, TlsFiles, spiffe_id
from chappe.runtime.rotating_channel import RotatingChannel
from chappe.runtime.tls import (
    HANDSHAKE_ENVIRONMENT,
    PeerIdentityError,
    TlsFilesError,
    channel_credentials,
    peer_spiffe_id,
    server_credentials,
    target_options,
)
from tests.runtime.probe import ALONE

WHO = "/chappe.test.Who/Ask"
ECHO = "/chappe.test.Who/Echo"
CALL_S = 5.0

HANDSHAKE_SERVER = """
import asyncio, sys
from pathlib import Path
import grpc
from chappe.runtime.tls import TlsFiles, server_credentials

async def main():
    cert, key, ca = map(Path, sys.argv[1:])
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    print(server.add_secure_port("127.0.0.1:0", server_credentials(TlsFiles(cert=cert, key=key, ca=ca))), flush=True)
    await server.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Context:
    """What a servicer context says, made up."""

    def __init__(self, **known: list[bytes]) -> None:
        self._known = {"transport_security_type": [b"ssl"], "ssl_tls_version": [b"TLSv1.3"]} | known

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._known


@pytest.fixture
def authority(tmp_path: Path) -> DevelopmentCa:
    return DevelopmentCa.open(tmp_path / "pki")


@pytest.fixture
def message(authority: DevelopmentCa) -> TlsFiles:
    return issue(authority, "svc-message")


@pytest.fixture
def edge(authority: DevelopmentCa) -> TlsFiles:
    return issue(authority, "svc-edge")


def issue(authority: DevelopmentCa, service: str, name: str = "") -> TlsFiles:
    return authority.issue(name or service, spiffe_id("chappe.test", service), [service, "localhost"])


async def who(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    try:
        return str(peer_spiffe_id(context, "chappe.test")).encode()
    except PeerIdentityError as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))


async def echo(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[int]:
    server = grpc.aio.server(options=ALONE)
    handlers: Any = {
        "Ask": grpc.unary_unary_rpc_method_handler(who),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("chappe.test.Who", handlers),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def ask(port: int, credentials: grpc.ChannelCredentials, name: str = "svc-message") -> bytes:
    # A pool of its own, or the global one would lend this call a connection that another test opened.
    options = (*target_options(name), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        call: Any = channel.unary_unary(WHO)
        return bytes(await call(b"", timeout=CALL_S))


def tls_client(files: TlsFiles, highest: ssl.TLSVersion) -> ssl.SSLContext:
    client = ssl.create_default_context(cafile=str(files.ca))
    client.load_cert_chain(files.cert, files.key)
    client.set_alpn_protocols(["h2"])
    client.maximum_version = highest
    return client


async def shake_hands(port: int, client: ssl.SSLContext) -> tuple[str | None, int]:
    """Gives the TLS version and the server certificate's serial number."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="svc-message")
    shaken: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = shaken.getpeercert(binary_form=True)
    assert shown is not None
    writer.transport.abort()
    return shaken.version(), x509.load_der_x509_certificate(shown).serial_number


async def refused(port: int, credentials: grpc.ChannelCredentials, name: str = "svc-message") -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, credentials, name)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_peer_with_a_certificate_is_known_by_its_spiffe_id(message: TlsFiles, edge: TlsFiles) -> None:
    async with serving(message) as port:
        answer = await ask(port, channel_credentials(edge))

    assert answer == b"spiffe://chappe.test/ns/chappe/sa/svc-edge"


async def test_a_client_without_a_certificate_is_refused(message: TlsFiles) -> None:
    nameless = grpc.ssl_channel_credentials(root_certificates=message.ca.read_bytes())

    async with serving(message) as port:
        assert await refused(port, nameless)


async def test_a_client_of_another_authority_is_refused(message: TlsFiles, tmp_path: Path) -> None:
    stranger = issue(DevelopmentCa.open(tmp_path / "other"), "svc-edge")

    async with serving(message) as port:
        assert await refused(port, channel_credentials(replace(stranger, ca=message.ca)))


async def test_a_client_with_an_expired_certificate_is_refused(
    message: TlsFiles, edge: TlsFiles, tmp_path: Path
) -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(hours=25)
    expired = issue(DevelopmentCa.open(tmp_path / "pki", now=lambda: yesterday), "svc-late")

    async with serving(message) as port:
        assert await refused(port, channel_credentials(expired))
        assert await ask(port, channel_credentials(edge))


async def test_a_server_of_another_authority_is_refused_by_the_client(
    message: TlsFiles, edge: TlsFiles, tmp_path: Path
) -> None:
    impostor = issue(DevelopmentCa.open(tmp_path / "other"), "svc-message")

    async with serving(replace(impostor, ca=message.ca)) as port:
        assert await refused(port, channel_credentials(edge))


async def test_a_server_that_is_another_service_is_refused_by_the_client(message: TlsFiles, edge: TlsFiles) -> None:
    async with serving(message) as port:
        assert await refused(port, channel_credentials(edge), "svc-identity")


async def test_a_certificate_with_a_foreign_trust_domain_is_unauthenticated(
    authority: DevelopmentCa, message: TlsFiles
) -> None:
    foreign = authority.issue("foreign", "spiffe://other.test/ns/chappe/sa/svc-edge")

    async with serving(message) as port:
        with pytest.raises(grpc.aio.AioRpcError, match=r"only chappe\.test is trusted") as caught:
            await ask(port, channel_credentials(foreign))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_rotated_certificate_is_served_on_the_next_handshake(
    authority: DevelopmentCa, message: TlsFiles, edge: TlsFiles
) -> None:
    client = tls_client(edge, ssl.TLSVersion.TLSv1_3)
    async with serving(message) as port:
        _, before = await shake_hands(port, client)
        issue(authority, "svc-message")

        _, after = await shake_hands(port, client)
        _, again = await shake_hands(port, client)

    served = x509.load_pem_x509_certificate(message.cert.read_bytes()).serial_number
    assert before != after
    assert after == again == served


async def test_a_rotated_authority_is_trusted_on_the_next_handshake(message: TlsFiles, tmp_path: Path) -> None:
    successor = issue(DevelopmentCa.open(tmp_path / "next"), "svc-edge")
    credentials = channel_credentials(replace(successor, ca=message.ca))
    async with serving(message) as port:
        assert await refused(port, credentials)
        message.ca.write_bytes(message.ca.read_bytes() + successor.ca.read_bytes())

        assert await ask(port, credentials)


async def test_a_rotated_certificate_is_shown_by_the_next_call(
    authority: DevelopmentCa, message: TlsFiles, tmp_path: Path
) -> None:
    mine = issue(authority, "svc-edge", "mine")
    successor = issue(authority, "svc-fanout", "next")
    async with serving(message) as port, channel(f"127.0.0.1:{port}", mine, server_name="svc-message") as dialled:
        call: Any = dialled.unary_unary(WHO)
        before = bytes(await call(b"", timeout=CALL_S))
        successor.key.replace(mine.key)
        torn = bytes(await call(b"", timeout=CALL_S))
        successor.cert.replace(mine.cert)

        after = bytes(await call(b"", timeout=CALL_S))

    assert before == torn != after
    assert after.endswith(b"/svc-fanout")


async def test_a_stream_outlives_the_certificate_under_which_it_began(
    authority: DevelopmentCa, message: TlsFiles
) -> None:
    mine = issue(authority, "svc-edge")
    async with serving(message) as port, channel(f"127.0.0.1:{port}", mine, server_name="svc-message") as dialled:
        stream: Any = dialled.stream_stream(ECHO)()
        await stream.write(b"before")
        before = await stream.read()
        issue(authority, "svc-edge")
        call: Any = dialled.unary_unary(WHO)
        await call(b"", timeout=CALL_S)

        await stream.write(b"after")
        assert (before, await stream.read()) == (b"before", b"after")


class WatchedChannel:
    """A channel that says when it was closed."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.unary_unary, self.stream_stream = channel.unary_unary, channel.stream_stream
        self._channel = channel
        self.closed = asyncio.Event()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)
        self.closed.set()


async def test_the_channel_of_an_earlier_certificate_is_closed_once_its_streams_have_ended(
    authority: DevelopmentCa, message: TlsFiles
) -> None:
    mine = issue(authority, "svc-edge")
    dialled: list[WatchedChannel] = []
    async with serving(message) as port:

        def dial(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
            options = target_options("svc-message")
            dialled.append(WatchedChannel(grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)))
            return cast("grpc.aio.Channel", dialled[-1])

        async with RotatingChannel(mine, dial) as rotating:
            stream: Any = rotating.stream_stream(ECHO)()
            await stream.write(b"before")
            await stream.read()
            issue(authority, "svc-edge")
            call: Any = rotating.unary_unary(WHO)
            await call(b"", timeout=CALL_S)
            await stream.write(b"after")
            assert await stream.read() == b"after"
            assert not dialled[0].closed.is_set()

            await stream.done_writing()
            await stream.code()
            async with asyncio.timeout(CALL_S):
                await dialled[0].closed.wait()

            assert bytes(await call(b"", timeout=CALL_S)).endswith(b"/svc-edge")
            assert [channel.closed.is_set() for channel in dialled] == [True, False]


async def test_a_channel_that_is_closed_ends_what_began_under_earlier_certificates(
    authority: DevelopmentCa, message: TlsFiles
) -> None:
    mine = issue(authority, "svc-edge")
    async with serving(message) as port:
        async with channel(f"127.0.0.1:{port}", mine, server_name="svc-message") as dialled:
            stream: Any = dialled.stream_stream(ECHO)()
            await stream.write(b"before")
            await stream.read()
            issue(authority, "svc-edge")
            call: Any = dialled.unary_unary(WHO)
            await call(b"", timeout=CALL_S)

        assert await stream.code() is grpc.StatusCode.CANCELLED


async def test_a_half_finished_rotation_keeps_the_old_certificate(
    message: TlsFiles, edge: TlsFiles, tmp_path: Path
) -> None:
    client = tls_client(edge, ssl.TLSVersion.TLSv1_3)
    successor = issue(DevelopmentCa.open(tmp_path / "pki"), "svc-message", "next")
    async with serving(message) as port:
        _, before = await shake_hands(port, client)
        successor.key.replace(message.key)
        _, torn = await shake_hands(port, client)
        successor.cert.replace(message.cert)

        _, after = await shake_hands(port, client)

    assert torn == before
    assert after != before


async def test_a_vanished_file_keeps_the_old_certificate(message: TlsFiles, edge: TlsFiles) -> None:
    credentials = channel_credentials(edge)
    async with serving(message) as port:
        message.cert.unlink()

        assert await ask(port, credentials)


async def test_a_tls_1_2_client_fails_in_the_handshake(message: TlsFiles, edge: TlsFiles) -> None:
    command = (sys.executable, "-c", HANDSHAKE_SERVER, message.cert, message.key, message.ca)
    environment = os.environ | dict(HANDSHAKE_ENVIRONMENT)
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        assert (await shake_hands(port, tls_client(edge, ssl.TLSVersion.TLSv1_3)))[0] == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await shake_hands(port, tls_client(edge, ssl.TLSVersion.TLSv1_2))
    finally:
        server.kill()
        await server.wait()


def test_a_call_over_tls_1_2_is_refused_whatever_the_environment() -> None:
    context = Context(ssl_tls_version=[b"TLSv1.2"], peer_uri=[b"spiffe://chappe.test/ns/chappe/sa/svc-edge"])

    with pytest.raises(PeerIdentityError, match=r"came over TLSv1\.2; TLSv1\.3 is the lowest"):
        peer_spiffe_id(context, "chappe.test")


def test_a_call_without_tls_is_refused() -> None:
    with pytest.raises(PeerIdentityError, match="without TLS; dial with channel_credentials"):
        peer_spiffe_id(Context(transport_security_type=[b"insecure"]), "chappe.test")


def test_a_certificate_with_several_uris_is_refused() -> None:
    uris = [b"spiffe://chappe.test/ns/chappe/sa/svc-edge", b"spiffe://chappe.test/ns/chappe/sa/svc-message"]

    with pytest.raises(PeerIdentityError, match="exactly one URI"):
        peer_spiffe_id(Context(peer_uri=uris), "chappe.test")


async def test_a_certificate_with_a_second_uri_is_refused_over_a_real_socket(
    authority: DevelopmentCa, message: TlsFiles, edge: TlsFiles
) -> None:
    key = load_pem_private_key(edge.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    uris = [spiffe_id("chappe.test", "svc-edge"), "https://example.org"]
    leaf = authority._leaf(key, [x509.UniformResourceIdentifier(uri) for uri in uris], 60.0)
    edge.cert.write_bytes(leaf.public_bytes(Encoding.PEM))

    async with serving(message) as port:
        with pytest.raises(grpc.aio.AioRpcError, match="exactly one URI"):
            await ask(port, channel_credentials(edge))


def test_files_that_are_missing_or_no_pair_are_refused_at_start(
    message: TlsFiles, edge: TlsFiles, tmp_path: Path
) -> None:
    with pytest.raises(TlsFilesError, match=r"no usable certificate in .*nowhere"):
        server_credentials(replace(message, cert=tmp_path / "nowhere"))
    with pytest.raises(TlsFilesError, match="do not belong together; issue both again"):
        channel_credentials(replace(message, key=edge.key))
