import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chappe.api.type.v1 import principal_pb2
from chappe.runtime import errors, pki, principal, tls
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import ChappeError, UnavailableError, from_rpc_error
from chappe.runtime.health import SERVING, Health, add_health
from chappe.runtime.interceptors import ConformanceInterceptor, DoorInterceptor, Gate, Realm
from tests.runtime.probe import ALONE, METHODS, REALM, SERVICE, Probe, callable_of, serve

USER = principal_pb2.Principal(user_id=b"u" * 16, device_id=3, session_id=b"s" * 16)
SIGNED = (principal.PRINCIPAL_KEY, USER.SerializeToString())
FIVE = ["svc-edge", "svc-message", "svc-presence", "svc-identity", "svc-fanout"]
Call = Callable[..., Awaitable[Any]]
Ca = Callable[..., pki.TlsFiles]


@pytest.fixture(scope="session")
def issue(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    authority = pki.DevelopmentCa.open(tmp_path_factory.mktemp("ca"))
    made: dict[str, pki.TlsFiles] = {}

    def files(name: str, spiffe_id: str = "") -> pki.TlsFiles:
        if name not in made:
            spiffe_id = spiffe_id or f"spiffe://chappe.test/ns/chappe/sa/{name}"
            made[name] = authority.issue(name, spiffe_id, dns_names=[name])
        return made[name]

    return files


async def answer(request: Any, context: Any) -> Any:
    caller = principal.caller()
    device = "" if caller.principal is None else str(caller.principal.device_id)
    return Probe(value=f"{caller.service}/{device}")


def door(realm: Realm = REALM) -> DoorInterceptor:
    return DoorInterceptor(Gate(realm), lambda: "ab" * 16)


@pytest.fixture
async def call(issue: Ca) -> AsyncIterator[Call]:
    """Calls a method of a probe over mutual TLS as some service."""
    behaviours = {name: answer for name in METHODS if "Stream" not in name}
    conformance = ConformanceInterceptor()
    async with serve(behaviours, [conformance, door()], tls.server_credentials(issue("svc-probe"))) as served:
        channels: dict[str, grpc.aio.Channel] = {}

        async def make(service: str, method: str, *metadata: tuple[str, bytes], value: str = "") -> str:
            if service not in channels:
                credentials = tls.channel_credentials(issue(service))
                channels[service] = grpc.aio.secure_channel(
                    served.address, credentials, options=tls.target_options("svc-probe")
                )
            reply = await callable_of(channels[service], method)(Probe(value=value), metadata=metadata, timeout=30)
            return str(reply.value)

        yield make
        for channel in channels.values():
            await channel.close()
    conformance.check()


async def refusal(call: Awaitable[Any]) -> ChappeError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


ADMITTED = {
    ("svc-edge", "Edge"),
    ("svc-edge", "Open"),
    ("svc-edge", "OpenOrClient"),
    ("svc-message", "Message"),
    ("svc-presence", "Presence"),
    ("svc-identity", "Identity"),
    ("svc-fanout", "Fanout"),
    ("grafana", "Internal"),
    ("grafana", "ClientOrInternal"),
}
NEEDS_USER = {"Client", "ClientLoose", "ClientOrInternal"}


@pytest.mark.parametrize("service", [*FIVE, "svc-unknown", "grafana"])
async def test_who_may_call_what_is_exactly_what_the_contract_says(call: Call, service: str) -> None:
    for method in [name for name in METHODS if "Stream" not in name]:
        if (service, method) in ADMITTED:
            assert await call(service, method) == f"{service}/"
        elif service == "svc-edge" and method in NEEDS_USER:
            assert (await refusal(call(service, method))).reason == "INVALID_PRINCIPAL"
            assert await call(service, method, SIGNED) == "svc-edge/3"
        else:
            error = await refusal(call(service, method))
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED")
            assert error.metadata == {"method": f"/{SERVICE}/{method}", "caller": service}


@pytest.mark.parametrize("method", ["Edge", "Open", "OpenOrClient"])
async def test_the_edge_may_name_an_end_user_where_none_is_needed(call: Call, method: str) -> None:
    assert await call("svc-edge", method, SIGNED) == "svc-edge/3"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([USER.SerializeToString(), USER.SerializeToString()], "is there 2 times"),
        ([b""], "has 0 bytes"),
        ([USER.SerializeToString() + b"\x00" * 30], "has 68 bytes"),
        ([b"\x0a\xff"], "cannot be parsed"),
        ([principal_pb2.Principal(user_id=b"u", device_id=1).SerializeToString()], "user_id: has 1 bytes"),
        ([principal_pb2.Principal(user_id=b"u" * 16).SerializeToString()], "device_id: must be set"),
    ],
    ids=["two", "empty", "oversized", "unparsable", "short user", "no device"],
)
@pytest.mark.parametrize("method", ["Client", "Open", "Edge"])
async def test_a_bad_principal_is_refused(call: Call, method: str, values: list[bytes], why: str) -> None:
    metadata = [(principal.PRINCIPAL_KEY, value) for value in values]

    error = await refusal(call("svc-edge", method, *metadata))

    assert (error.code, error.reason) == ("UNAUTHENTICATED", "INVALID_PRINCIPAL")
    assert why in error.message


@pytest.mark.parametrize(("service", "method"), [("svc-presence", "Presence"), ("grafana", "ClientOrInternal")])
async def test_a_principal_from_another_than_the_edge_is_refused(call: Call, service: str, method: str) -> None:
    error = await refusal(call(service, method, SIGNED))

    assert (error.code, error.reason) == ("UNAUTHENTICATED", "INVALID_PRINCIPAL")
    assert f"{service} may not speak for an end user" in error.message


@pytest.mark.parametrize(
    ("name", "spiffe_id", "reason"),
    [
        ("other-domain", "spiffe://evil.test/ns/chappe/sa/svc-edge", "UNAUTHENTICATED_PEER"),
        ("no-spiffe", "https://chappe.test/svc-edge", "UNAUTHENTICATED_PEER"),
        ("other-namespace", "spiffe://chappe.test/ns/evil/sa/svc-edge", "CALLER_NOT_ALLOWED"),
    ],
)
async def test_a_certificate_of_somebody_else_is_refused(
    issue: Ca, call: Call, name: str, spiffe_id: str, reason: str
) -> None:
    issue(name, spiffe_id)

    error = await refusal(call(name, "Edge"))

    assert error.reason == reason


async def test_a_certificate_with_a_second_uri_is_refused(issue: Ca, call: Call, tmp_path: Path) -> None:
    files = with_two_uris(issue("svc-edge"), tmp_path)

    error = await call_with(issue, tls.channel_credentials(files))

    assert error.reason == "UNAUTHENTICATED_PEER"
    assert "exactly one URI" in error.message


async def test_an_expired_certificate_does_not_get_through(issue: Ca, tmp_path: Path) -> None:
    folder = issue("svc-edge").ca.parent
    late = pki.DevelopmentCa.open(folder).issue("late", "spiffe://chappe.test/ns/chappe/sa/svc-edge", lifetime_s=-1)

    assert isinstance(await call_with(issue, tls.channel_credentials(late)), UnavailableError)


async def test_a_caller_without_a_certificate_does_not_get_through(issue: Ca) -> None:
    bare = grpc.ssl_channel_credentials(issue("svc-probe").ca.read_bytes())

    assert isinstance(await call_with(issue, bare), UnavailableError)


async def call_with(issue: Ca, credentials: grpc.ChannelCredentials) -> ChappeError:
    """Returns how a probe refuses a caller with these credentials."""
    options = tls.target_options("svc-probe")
    async with (
        serve({"Edge": answer}, [door()], tls.server_credentials(issue("svc-probe"))) as served,
        grpc.aio.secure_channel(served.address, credentials, options=options) as channel,
    ):
        return await refusal(callable_of(channel, "Edge")(Probe(), timeout=30))


def with_two_uris(files: pki.TlsFiles, folder: Path) -> pki.TlsFiles:
    """Issues a certificate that names two services, with the key of the given one."""
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    signer = load_pem_private_key((files.ca.parent / "ca.key").read_bytes(), None)
    leaf = x509.load_pem_x509_certificate(files.cert.read_bytes())
    uris = [f"spiffe://chappe.test/ns/chappe/sa/{name}" for name in ("svc-edge", "svc-message")]
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=leaf.subject,
        public_key=leaf.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = builder.add_extension(names, critical=True).sign(signer, hashes.SHA256())
    path = folder / "two.crt"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return pki.TlsFiles(cert=path, key=files.key, ca=files.ca)


async def test_a_certificate_of_another_authority_does_not_get_through(issue: Ca, tmp_path: Path) -> None:
    stranger = pki.DevelopmentCa.open(tmp_path).issue("svc-edge", "spiffe://chappe.test/ns/chappe/sa/svc-edge")
    mixed = pki.TlsFiles(cert=stranger.cert, key=stranger.key, ca=issue("svc-probe").ca)

    assert isinstance(await call_with(issue, tls.channel_credentials(mixed)), UnavailableError)


async def test_a_call_without_tls_is_refused() -> None:
    async with serve({"Edge": answer}, [door()]) as served, grpc.aio.insecure_channel(served.address) as channel:
        error = await refusal(callable_of(channel, "Edge")(Probe(), timeout=30))

    assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED_PEER")


@pytest.mark.parametrize(
    ("allowed", "name", "is_let_in"),
    [
        (("*",), "grafana", True),
        (("*",), "svc-presence", False),
        (("*",), "other/grafana", False),
        ((), "grafana", False),
        (("reader",), "grafana", False),
        (("reader",), "reader", True),
        (("other/grafana",), "other/grafana", True),
        (("svc-presence",), "svc-presence", False),
    ],
)
def test_the_operator_decides_who_is_internal(allowed: tuple[str, ...], name: str, *, is_let_in: bool) -> None:
    assert REALM._replace(internal_callers=allowed).is_internal(name) == is_let_in


def as_edge(_: Any) -> pki.SpiffeId:
    return pki.SpiffeId(trust_domain="chappe.test", service="svc-edge")


class Probing:
    """Calls one behaviour over an insecure loopback channel as the edge."""

    def __init__(self) -> None:
        self.door = DoorInterceptor(Gate(REALM, as_edge), lambda: "ab" * 16)
        self.conformance = ConformanceInterceptor()

    async def call(self, method: str, behaviour: Callable[..., Any], request: Any = None) -> list[Any]:
        interceptors = [self.conformance, self.door]
        sent: Any = Probe() if request is None else request
        if method.startswith("Stream"):
            sent = _iterate([sent, sent])
        async with (
            serve({method: behaviour}, interceptors) as served,
            grpc.aio.insecure_channel(served.address) as channel,
        ):
            made = callable_of(channel, method)(sent, timeout=30)
            return [item async for item in made] if method.endswith("Stream") else [await made]


async def _iterate(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def raising(error: Exception, method: str, *, as_generator: bool = False) -> Callable[..., Any]:
    async def unary(request: Any, context: Any) -> Any:
        raise error

    async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Probe(value="first")
        raise error

    async def write(request: Any, context: Any) -> None:
        await context.write(Probe(value="first"))
        raise error

    if not method.endswith("Stream"):
        return unary
    return generate if as_generator else write


KINDS = [("Edge", False), ("UnaryStream", False), ("UnaryStream", True), ("StreamUnary", False)]
KINDS += [("StreamStream", False), ("StreamStream", True)]


@pytest.mark.parametrize(("method", "as_generator"), KINDS)
async def test_a_refusal_leaves_every_kind_of_handler_with_its_details(method: str, *, as_generator: bool) -> None:
    probing = Probing()
    behaviour = raising(UnavailableError("postgres", "gone"), method, as_generator=as_generator)

    error = await refusal(probing.call(method, behaviour))

    assert (error.code, error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    assert error.metadata == {"dependency": "postgres"}
    assert error.retry_after_ms == errors.DEFAULT_RETRY_MS
    assert probing.door.counters.refusals == {"DEPENDENCY_UNAVAILABLE": 1}
    # What a stream takes is how long it lives.
    assert len(probing.door.counters.seconds) == (not method.startswith("Stream"))
    assert all(seconds > 0 for seconds in probing.door.counters.seconds.values())
    probing.conformance.check()


async def test_what_a_dependency_said_goes_into_the_log_and_not_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    behaviour = raising(UnavailableError("redis", detail="10.0.0.7 is gone"), "Edge", as_generator=False)

    error = await refusal(Probing().call("Edge", behaviour))

    assert error.message == "redis: it does not answer; try again"
    assert "10.0.0.7 is gone" in caplog.text


@pytest.mark.parametrize(("method", "as_generator"), KINDS)
async def test_a_bug_leaves_as_internal_with_its_text_hidden(
    method: str, *, as_generator: bool, caplog: pytest.LogCaptureFixture
) -> None:
    probing = Probing()
    behaviour = raising(KeyError("canary-secret"), method, as_generator=as_generator)

    error = await refusal(probing.call(method, behaviour))

    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    assert error.metadata == {"trace_id": "ab" * 16}
    assert "canary" not in error.message
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert record.__dict__["trace_id"] == "ab" * 16
    assert probing.door.counters.bugs == 1
    probing.conformance.check()


@pytest.mark.parametrize("reason", ["CALLER_NOT_ALLOWED", "INTERNAL"])
async def test_a_peers_refusal_of_this_process_is_our_bug(reason: str) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="chappe")
    remote = errors.RemoteError("PERMISSION_DENIED", "no", info, 0)

    error = await refusal(Probing().call("Edge", raising(remote, "Edge")))

    assert error.code == "INTERNAL"


async def test_a_peers_refusal_of_the_request_is_passed_on() -> None:
    info = error_details_pb2.ErrorInfo(reason="USER_NOT_FOUND", domain="chappe")
    remote = errors.RemoteError("NOT_FOUND", "no such user", info, 0)

    error = await refusal(Probing().call("Edge", raising(remote, "Edge")))

    assert (error.code, error.reason) == ("NOT_FOUND", "USER_NOT_FOUND")


@pytest.mark.parametrize("method", ["Edge", "UnaryStream"])
async def test_a_request_beyond_its_limits_does_not_reach_the_handler(method: str) -> None:
    behaviour = raising(AssertionError("was called"), method)

    error = await refusal(Probing().call(method, behaviour, Probe(value="x" * 101)))

    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error.message == "value: has 101 characters, the most is 100"


@pytest.mark.parametrize(("method", "as_generator"), [kind for kind in KINDS if "Stream" in kind[0]])
async def test_streams_flow_both_ways(method: str, *, as_generator: bool) -> None:
    async def unary(requests: Any, context: Any) -> Any:
        return Probe(value=str(len([request async for request in requests])))

    async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Probe(value=principal.caller().service)

    async def write(request: Any, context: Any) -> None:
        await context.write(Probe(value=principal.caller().service))

    chosen: Any = unary if method == "StreamUnary" else generate if as_generator else write

    answers = await Probing().call(method, chosen)

    assert [item.value for item in answers] == ["2" if method == "StreamUnary" else "svc-edge"]


async def test_an_unknown_method_is_answered_by_grpc_itself() -> None:
    interceptors = [ConformanceInterceptor(), door()]
    async with serve({"Edge": answer}, interceptors) as served, grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await callable_of(channel, "Nothing")(Probe(), timeout=30)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_deadline_of_a_call_cancels_its_handler() -> None:
    ended = asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    probing = Probing()
    async with serve({"Edge": wait}, [probing.door]) as served, grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await callable_of(channel, "Edge")(Probe(), timeout=0.05)
        await asyncio.wait_for(ended.wait(), 5)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert probing.door.counters.bugs == 0


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        (lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "bare"), "without details"),
        (lambda context: context.abort(grpc.StatusCode.DATA_LOSS, "odd"), "without details"),
        (lambda context: context.set_code(grpc.StatusCode.NOT_FOUND), "set a code by hand"),
    ],
    ids=["bare", "odd code", "by hand"],
)
async def test_conformance_notices_an_answer_without_details(ending: Callable[[Any], Any], why: str) -> None:
    async def behave(request: Any, context: Any) -> Any:
        outcome = ending(context)
        if outcome is not None:
            await outcome
        return Probe()

    probing = Probing()
    with pytest.raises(grpc.aio.AioRpcError):
        await probing.call("Edge", behave)

    with pytest.raises(AssertionError, match=why):
        probing.conformance.check()


async def test_conformance_notices_a_code_that_no_service_may_use() -> None:
    status = errors.to_status(UnavailableError("postgres", "gone"))
    status.code = grpc.StatusCode.DATA_LOSS.value[0]
    foreign = errors.to_status(UnavailableError("postgres", "gone"))
    del foreign.details[:]

    async def behave(request: Any, context: Any) -> Any:
        sent = status if request.value else foreign
        details = ((errors.STATUS_KEY, sent.SerializeToString()),)
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone", details)

    probing = Probing()
    for value in ("odd code", ""):
        with pytest.raises(grpc.aio.AioRpcError):
            await probing.call("Edge", behave, Probe(value=value))

    assert "ended with DATA_LOSS, which no service may use" in probing.conformance.violations[0]
    assert "no ErrorInfo of the mesh" in probing.conformance.violations[1]


async def test_conformance_leaves_health_alone() -> None:
    conformance = ConformanceInterceptor()
    server = grpc.aio.server(interceptors=[conformance, door()], options=ALONE)
    add_health(Health({}, clock=SystemClock()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="live"), timeout=30
        )
    await server.stop(0)

    assert reply.status == SERVING
    conformance.check()


async def test_conformance_notices_what_would_leave_as_unknown() -> None:
    conformance = ConformanceInterceptor()
    behaviours = {"Edge": raising(ValueError("oops"), "Edge")}
    async with serve(behaviours, [conformance]) as served, grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await callable_of(channel, "Edge")(Probe(), timeout=30)

    with pytest.raises(AssertionError, match="raised ValueError"):
        conformance.check()
