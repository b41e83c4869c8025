"""Who may call what between services, by the list of attacks: every call of the contract, from everybody."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

import chappe.api
from chappe.api.type.v1 import access_pb2, principal_pb2
from chappe.cli.launcher import SERVICES, Mesh
from chappe.runtime.pki import DevelopmentCa, TlsFiles
from tests.runtime.test_interceptors import with_two_uris
from tests.system.bad_input.conftest import Dial, Issue
from tests.system.bad_input.people import Person

pytestmark = pytest.mark.system

PRINCIPAL = "chappe-principal-bin"
FIVE = {
    "svc-edge": access_pb2.CALLER_EDGE,
    "svc-message": access_pb2.CALLER_MESSAGE,
    "svc-presence": access_pb2.CALLER_PRESENCE,
    "svc-identity": access_pb2.CALLER_IDENTITY,
    "svc-fanout": access_pb2.CALLER_FANOUT,
}
OTHERS = {
    "tool": "",
    "svc-unknown": "",
    "svc-edge-of-elsewhere": "spiffe://chappe.test/ns/elsewhere/sa/svc-edge",
    "tool-of-elsewhere": "spiffe://chappe.test/ns/elsewhere/sa/tool",
}
LET_IN = "let in"
GET_PROFILE = "/chappe.api.identity.v1.ProfileService/GetProfile"


def contracts() -> Iterator[MethodDescriptor]:
    """Finds every method of every contract."""
    for found in pkgutil.walk_packages(chappe.api.__path__, "chappe.api."):
        if found.name.endswith("_service_pb2"):
            for service in importlib.import_module(found.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


METHODS = list(contracts())


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def domain_of(method: MethodDescriptor) -> str:
    """Returns the service that serves a method."""
    return str(method.full_name.split(".")[2])


def expected(name: str, method: MethodDescriptor, *, has_principal: bool) -> str:
    """Reads from the access table what a caller gets."""
    access = method.GetOptions().Extensions[access_pb2.access]
    if not access.callers:
        access = method.containing_service.GetOptions().Extensions[access_pb2.service_access]
    callers = set(access.callers)
    if name == "svc-edge":
        own_account = callers & {access_pb2.CALLER_EDGE, access_pb2.CALLER_OPEN}
        if not own_account and access_pb2.CALLER_CLIENT not in callers:
            return "PERMISSION_DENIED"
        needs_user = access.principal == access_pb2.PRINCIPAL_REQUIREMENT_USER or not own_account
        return "UNAUTHENTICATED" if needs_user and not has_principal else LET_IN
    if has_principal:
        return "UNAUTHENTICATED"
    is_tool = name == "tool" and access_pb2.CALLER_INTERNAL in callers
    return LET_IN if is_tool or FIVE.get(name) in callers else "PERMISSION_DENIED"


async def answer_to(
    channel: grpc.aio.Channel, method: MethodDescriptor, *metadata: tuple[str, bytes]
) -> tuple[grpc.StatusCode, str]:
    """Calls a method with nothing; returns the status and what was said."""
    answer = GetMessageClass(method.output_type).FromString
    call: Any
    if method.client_streaming:
        call = channel.stream_stream(path_of(method), bytes, answer)(metadata=metadata, timeout=10)
        # It may have been refused by now.
        with contextlib.suppress(grpc.aio.BaseError):
            await call.done_writing()
    else:
        call = channel.unary_unary(path_of(method), bytes, answer)(b"", metadata=metadata, timeout=10)
    return await call.code(), await call.details()


def verdict(code: grpc.StatusCode) -> str:
    """Says whether a status means that the door was shut."""
    assert code.name not in {"UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    return code.name if code.name in {"PERMISSION_DENIED", "UNAUTHENTICATED"} else LET_IN


def test_76_the_table_has_every_call_of_five_services() -> None:
    assert {domain_of(method) for method in METHODS} == set(SERVICES)
    assert len(METHODS) > 30


@pytest.mark.parametrize("has_principal", [False, True], ids=["for itself", "for a user"])
@pytest.mark.parametrize("name", [*FIVE, *OTHERS])
async def test_76_every_call_from_every_identity_is_as_the_contract_says(
    mesh: Mesh, dial: Dial, issue: Issue, resident: Person, name: str, *, has_principal: bool
) -> None:
    files = mesh.tls(name) if name in FIVE else issue(name, OTHERS[name])
    channels = {service: dial(service, files) for service in SERVICES}
    account = name.partition("-of-")[0]
    user = principal_pb2.Principal(user_id=resident.user_id, device_id=resident.device.device_id)
    metadata = [(PRINCIPAL, user.SerializeToString())] if has_principal else []

    answers = {m.full_name: await answer_to(channels[domain_of(m)], m, *metadata) for m in METHODS}

    assert {method: verdict(code) for method, (code, _) in answers.items()} == {
        method.full_name: expected(name, method, has_principal=has_principal) for method in METHODS
    }
    for code, said in answers.values():
        if code is grpc.StatusCode.PERMISSION_DENIED:
            assert f"{account} may not call /chappe.api." in said
        elif code is grpc.StatusCode.UNAUTHENTICATED:
            assert PRINCIPAL in said


@pytest.mark.parametrize(
    ("name", "is_open"), [("ListMessages", True), ("ListConversations", False), ("SyncInbox", False)]
)
async def test_76_a_tool_reads_the_chat_that_it_names_and_nothing_else(
    mesh: Mesh, dial: Dial, name: str, *, is_open: bool
) -> None:
    [method] = [method for method in METHODS if method.name == name]

    code, said = await answer_to(dial("message", mesh.tls()), method)

    if is_open:
        assert (code, said) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "owner_user_id: an internal caller must say whose view it reads",
        )
    else:
        assert (code, said.partition(":")[0]) == (
            grpc.StatusCode.PERMISSION_DENIED,
            f"tool may not call {path_of(method)}",
        )


def alien(folder: Path, issue: Issue) -> TlsFiles:
    """Issues an edge's certificate by an authority of one's own."""
    own = DevelopmentCa.open(folder).issue("svc-edge", "spiffe://chappe.test/ns/chappe/sa/svc-edge")
    return TlsFiles(cert=own.cert, key=own.key, ca=issue("svc-edge").ca)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ["none", "plain text", "expired", "other authority"])
async def test_77_without_a_certificate_that_holds_there_is_no_connection(
    mesh: Mesh, dial: Dial, issue: Issue, tmp_path: Path, service: str, kind: str
) -> None:
    if kind in {"none", "plain text"}:
        roots = grpc.ssl_channel_credentials(mesh.tls().ca.read_bytes())
        target, options = mesh.grpc[service][0], (("grpc.ssl_target_name_override", f"svc-{service}"),)
        is_plain = kind == "plain text"
        channel = grpc.aio.insecure_channel(target) if is_plain else grpc.aio.secure_channel(target, roots, options)
    else:
        files = alien(tmp_path, issue) if kind == "other authority" else issue("svc-edge", lifetime_s=-1)
        channel = dial(service, files)

    # Health asks for no right of its own, and even it is not answered.
    call = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=10)

    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert await call.details()
    await channel.close()


@pytest.mark.parametrize(
    ("name", "uri", "words"),
    [
        ("other-domain", "spiffe://evil.test/ns/chappe/sa/svc-edge", "only chappe.test is trusted here"),
        ("no-spiffe-id", "https://chappe.test/svc-edge", "is no SPIFFE id"),
        ("two-uris", "", "exactly one URI"),
    ],
)
async def test_77_a_certificate_that_names_nobody_of_ours_is_refused(
    dial: Dial, issue: Issue, tmp_path: Path, name: str, uri: str, words: str
) -> None:
    files = issue(name, uri) if uri else with_two_uris(issue("svc-edge"), tmp_path)
    for service in SERVICES:
        method = next(method for method in METHODS if domain_of(method) == service)

        code, said = await answer_to(dial(service, files), method)

        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert words in said


def principal_of(user_id: bytes, device_id: int = 1) -> bytes:
    return principal_pb2.Principal(user_id=user_id, device_id=device_id).SerializeToString()


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        pytest.param("svc-edge", [], "is made for an end user", id="a stolen certificate of the edge alone"),
        pytest.param("svc-edge", [principal_of(bytes(16))] * 2, "is there 2 times", id="two"),
        pytest.param("svc-edge", [b""], "has 0 bytes", id="empty"),
        pytest.param("svc-edge", [principal_of(bytes(16)) + bytes(60)], "has 80 bytes", id="oversized"),
        pytest.param("svc-edge", [b"\x0a\xff"], "cannot be parsed", id="unparsable"),
        pytest.param("svc-edge", [principal_of(b"u")], "user_id: has 1 bytes", id="short user"),
        pytest.param("svc-edge", [principal_of(bytes(16), 0)], "device_id: must be set", id="no device"),
        pytest.param("svc-edge", [principal_of(bytes(16), 40_000)], "device_id: is 40000", id="high device"),
        pytest.param("svc-presence", [principal_of(bytes(16))], "svc-presence may not speak", id="from svc-presence"),
    ],
)
async def test_78_an_end_user_that_is_not_named_properly_is_refused(
    mesh: Mesh, dial: Dial, name: str, values: list[bytes], words: str
) -> None:
    method = next(method for method in METHODS if path_of(method) == GET_PROFILE)
    metadata = [(PRINCIPAL, value) for value in values]

    code, said = await answer_to(dial("identity", mesh.tls(name)), method, *metadata)

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert words in said


async def test_79_a_message_of_5_mb_is_refused_compressed_or_not(mesh: Mesh, issue: Issue) -> None:
    for service in ("identity", "message", "presence"):
        method = next(one for one in METHODS if domain_of(one) == service and not one.client_streaming)
        door = dial_without_limits(mesh, service, issue("svc-edge"))

        for content, compression in (
            (bytes(5 * 1024 * 1024), None),
            (bytes(64 * 1024 * 1024), grpc.Compression.Gzip),
        ):
            call = door.unary_unary(path_of(method), bytes, bytes)(content, timeout=10, compression=compression)
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, (service, compression)

        health = door.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        assert await health(b"", timeout=10) is not None
        await door.close()


async def test_79_metadata_of_20_kb_is_refused(mesh: Mesh, issue: Issue) -> None:
    door = dial_without_limits(mesh, "identity", issue("svc-edge"))

    call = door.unary_unary(GET_PROFILE, bytes, bytes)(b"", timeout=10, metadata=[("x-long", "x" * 20_480)])

    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await door.close()


def dial_without_limits(mesh: Mesh, service: str, files: TlsFiles) -> grpc.aio.Channel:
    """Opens a channel of a client that keeps to no limit of its own."""
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes(), files.key.read_bytes(), files.cert.read_bytes())
    options = (
        ("grpc.ssl_target_name_override", f"svc-{service}"),
        ("grpc.max_send_message_length", -1),
        ("grpc.absolute_max_metadata_size", 1 << 20),
    )
    return grpc.aio.secure_channel(mesh.grpc[service][0], credentials, options)
