"""A contract with a method of every kind and for every caller, served for tests over a real loopback channel."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor

from chappe.api.type.v1 import access_pb2, rules_pb2
from chappe.runtime.interceptors import Realm

ALONE = (("grpc.so_reuseport", 0),)
"""Options of a server that shares its port with nobody: gRPC's would take one that another process listens on."""
REALM = Realm("chappe.test", "chappe", ("*",))
SERVICE = "chappe.probe.v1.ProbeService"
_USER = access_pb2.PRINCIPAL_REQUIREMENT_USER
_NONE = access_pb2.PRINCIPAL_REQUIREMENT_NONE
METHODS: dict[str, tuple[list[access_pb2.Caller.ValueType], access_pb2.PrincipalRequirement.ValueType]] = {
    "Edge": ([access_pb2.CALLER_EDGE], _NONE),
    "Message": ([access_pb2.CALLER_MESSAGE], _NONE),
    "Presence": ([access_pb2.CALLER_PRESENCE], _NONE),
    "Identity": ([access_pb2.CALLER_IDENTITY], _NONE),
    "Fanout": ([access_pb2.CALLER_FANOUT], _NONE),
    "Client": ([access_pb2.CALLER_CLIENT], _USER),
    "ClientLoose": ([access_pb2.CALLER_CLIENT], _NONE),
    "Open": ([access_pb2.CALLER_OPEN], _NONE),
    "OpenOrClient": ([access_pb2.CALLER_OPEN, access_pb2.CALLER_CLIENT], _NONE),
    "Internal": ([access_pb2.CALLER_INTERNAL], _NONE),
    "ClientOrInternal": ([access_pb2.CALLER_CLIENT, access_pb2.CALLER_INTERNAL], _USER),
    "UnaryStream": ([access_pb2.CALLER_EDGE], _NONE),
    "StreamUnary": ([access_pb2.CALLER_EDGE], _NONE),
    "StreamStream": ([access_pb2.CALLER_EDGE], _NONE),
}


def _make_file() -> FileDescriptor:
    file = descriptor_pb2.FileDescriptorProto(name="chappe/probe.proto", package="chappe.probe.v1", syntax="proto3")
    file.dependency.extend(["chappe/api/type/v1/access.proto", "chappe/api/type/v1/rules.proto"])
    probe = file.message_type.add(name="Probe")
    field = probe.field.add(name="value", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING)
    field.options.Extensions[rules_pb2.rules].max_len = 100
    service = file.service.add(name="ProbeService")
    for name, (callers, requirement) in METHODS.items():
        method = service.method.add(
            name=name, input_type=".chappe.probe.v1.Probe", output_type=".chappe.probe.v1.Probe"
        )
        method.client_streaming = name.startswith("Stream")
        method.server_streaming = name.endswith("Stream")
        method.options.Extensions[access_pb2.access].callers.extend(callers)
        method.options.Extensions[access_pb2.access].principal = requirement
        if name != "Message":
            method.options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
    pool = descriptor_pool.Default()
    try:
        return pool.FindFileByName(file.name)
    except KeyError:
        pool.AddSerializedFile(file.SerializeToString())
        return pool.FindFileByName(file.name)


FILE = _make_file()
Probe: Any = message_factory.GetMessageClass(FILE.message_types_by_name["Probe"])
MAKERS: dict[str, Any] = {
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


def method_handlers(behaviours: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """Returns a handler for each named method."""
    made: dict[str, Any] = {}
    for name, behaviour in behaviours.items():
        make = MAKERS.get(name, grpc.unary_unary_rpc_method_handler)
        made[name] = make(behaviour, Probe.FromString, Probe.SerializeToString)
    return made


def add_probe(behaviours: dict[str, Callable[..., Any]], server: Any) -> None:
    """Adds the service to a server, as a generated function would."""
    made = method_handlers(behaviours)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, made),))
    server.add_registered_method_handlers(SERVICE, made)


def callable_of(channel: grpc.aio.Channel, name: str) -> Any:
    """Returns the stub's callable of a method."""
    kinds: dict[str, Any] = {
        "UnaryStream": channel.unary_stream,
        "StreamUnary": channel.stream_unary,
        "StreamStream": channel.stream_stream,
    }
    make = kinds.get(name, channel.unary_unary)
    return make(f"/{SERVICE}/{name}", Probe.SerializeToString, Probe.FromString)


class Served(NamedTuple):
    """A probe service that answers."""

    address: str
    server: grpc.aio.Server


@contextlib.asynccontextmanager
async def serve(
    behaviours: dict[str, Callable[..., Any]],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    credentials: grpc.ServerCredentials | None = None,
    options: Any = (),
) -> AsyncIterator[Served]:
    """Serves the probe on a free port of the loopback interface."""
    server = grpc.aio.server(interceptors=list(interceptors), options=[*ALONE, *options])
    add_probe(behaviours, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Served(f"127.0.0.1:{port}", server)
    finally:
        await server.stop(0)
