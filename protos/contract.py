"""Reads the contracts from the .proto files, with comments, access options and field rules."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple, cast

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "chappe.api."
_ACCESS = f"{PACKAGE}type.v1.access"
_SERVICE_ACCESS = f"{PACKAGE}type.v1.service_access"
_RULES = f"{PACKAGE}type.v1.rules"


class ContractError(Exception):
    """The contracts do not compile; protoc has said where on standard error."""


class Access(NamedTuple):
    """Who may call an RPC, in the words of the contract without their prefixes."""

    callers: tuple[str, ...]
    principal: str
    rate_class: str


class Value(NamedTuple):
    """One value of an enum."""

    name: str
    number: int
    comment: str


class Field(NamedTuple):
    """One field of a message; `rules` are (name, value) pairs in the order of their field numbers."""

    name: str
    type_name: str
    is_repeated: bool
    is_defined_here: bool
    oneof: str
    rules: tuple[tuple[str, str], ...]
    comment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageType:
    """One message, nested ones included."""

    name: str
    comment: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnumType:
    """One enum."""

    name: str
    comment: str
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rpc:
    """One call of a service."""

    name: str
    comment: str
    request: str
    response: str
    is_request_stream: bool
    is_response_stream: bool
    idempotency: str
    access: Access | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One service."""

    name: str
    comment: str
    rpcs: tuple[Rpc, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Everything that the contracts of the project define, in the order of files and of definitions."""

    services: tuple[Service, ...]
    messages: tuple[MessageType, ...]
    enums: tuple[EnumType, ...]
    files_with_services: frozenset[str]

    def packages(self) -> list[str]:
        """Returns the packages that define something, sorted."""
        names = [thing.name for things in (self.services, self.messages, self.enums) for thing in things]
        return sorted({package_of(name) for name in names})


def package_of(full_name: str) -> str:
    """Returns the package of a full name: everything up to and with the version."""
    return ".".join(full_name.split(".")[:4])


def proto_files() -> list[str]:
    """Returns the contract files, relative to `protos/`, sorted by bytes."""
    base = ROOT / "protos"
    return sorted(path.relative_to(base).as_posix() for path in base.rglob("*.proto"))


def compile_protos(options: Sequence[str]) -> None:
    """Runs protoc over all contracts with `options`.

    Raises:
        ContractError: protoc refused them.
    """
    well_known = str(resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *options, *proto_files()]
    if cast("int", protoc.main(arguments)) != 0:
        raise ContractError("protoc refused the contracts; see above for file and line")


def load() -> Contract:
    """Compiles the contracts and reads them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contract.binpb"
        compile_protos(descriptor_options(path))
        return read(path)


def descriptor_options(path: Path) -> list[str]:
    """Returns the options that make protoc write what `read` reads."""
    return [f"--descriptor_set_out={path}", "--include_source_info", "--include_imports"]


def read(path: Path) -> Contract:
    """Reads a descriptor set written with `descriptor_options`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file
    reader = _Reader(list(files))
    own = [file for file in files if file.package.startswith(PACKAGE)]
    return Contract(
        services=tuple(service for file in own for service in reader.services(file)),
        messages=tuple(message for file in own for message in reader.messages(file)),
        enums=tuple(enum for file in own for enum in reader.enums(file)),
        files_with_services=frozenset(file.name for file in own if file.service),
    )


class _Reader:
    """Turns descriptors into the model; knows the custom options and the comments."""

    def __init__(self, files: Sequence[descriptor_pb2.FileDescriptorProto]) -> None:
        self._pool = DescriptorPool()
        self._comments: dict[tuple[str, tuple[int, ...]], str] = {}
        for file in files:
            self._pool.AddSerializedFile(file.SerializeToString())
            for location in file.source_code_info.location:
                text = location.leading_comments or location.trailing_comments
                lines = [line.strip() for line in text.strip().splitlines()]
                self._comments[file.name, tuple(location.path)] = "\n".join(lines)

    def services(self, file: descriptor_pb2.FileDescriptorProto) -> Iterator[Service]:
        for index, service in enumerate(file.service):
            default = self._option("ServiceOptions", service.options, _SERVICE_ACCESS)
            yield Service(
                name=f"{file.package}.{service.name}",
                comment=self._comment(file, 6, index),
                rpcs=tuple(
                    self._rpc(rpc, default, self._comment(file, 6, index, 2, number))
                    for number, rpc in enumerate(service.method)
                ),
            )

    def messages(self, file: descriptor_pb2.FileDescriptorProto) -> Iterator[MessageType]:
        for index, message in enumerate(file.message_type):
            yield from self._message(file, message, file.package, (4, index))

    def enums(self, file: descriptor_pb2.FileDescriptorProto) -> Iterator[EnumType]:
        for index, enum in enumerate(file.enum_type):
            yield self._enum(file, enum, file.package, (5, index))
        for index, message in enumerate(file.message_type):
            for nested, enum in enumerate(message.enum_type):
                yield self._enum(file, enum, f"{file.package}.{message.name}", (4, index, 4, nested))

    def _enum(
        self,
        file: descriptor_pb2.FileDescriptorProto,
        enum: descriptor_pb2.EnumDescriptorProto,
        scope: str,
        path: tuple[int, ...],
    ) -> EnumType:
        return EnumType(
            name=f"{scope}.{enum.name}",
            comment=self._comment(file, *path),
            values=tuple(
                Value(value.name, value.number, self._comment(file, *path, 2, number))
                for number, value in enumerate(enum.value)
            ),
        )

    def _rpc(self, rpc: descriptor_pb2.MethodDescriptorProto, default: Message | None, comment: str) -> Rpc:
        option = self._option("MethodOptions", rpc.options, _ACCESS) or default
        idempotency = descriptor_pb2.MethodOptions.IdempotencyLevel.Name(rpc.options.idempotency_level)
        return Rpc(
            name=rpc.name,
            comment=comment,
            request=rpc.input_type.lstrip("."),
            response=rpc.output_type.lstrip("."),
            is_request_stream=rpc.client_streaming,
            is_response_stream=rpc.server_streaming,
            idempotency=idempotency,
            access=None if option is None else _access(option),
        )

    def _message(
        self,
        file: descriptor_pb2.FileDescriptorProto,
        message: descriptor_pb2.DescriptorProto,
        scope: str,
        path: tuple[int, ...],
    ) -> Iterator[MessageType]:
        name = f"{scope}.{message.name}"
        yield MessageType(
            name=name,
            comment=self._comment(file, *path),
            fields=tuple(
                self._field(message, field, self._comment(file, *path, 2, index))
                for index, field in enumerate(message.field)
            ),
        )
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self._message(file, nested, name, (*path, 3, index))

    def _field(
        self,
        message: descriptor_pb2.DescriptorProto,
        field: descriptor_pb2.FieldDescriptorProto,
        comment: str,
    ) -> Field:
        rules = self._option("FieldOptions", field.options, _RULES)
        scalar = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        is_in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        # Of a map; they have no section of their own.
        entries = {nested.name for nested in message.nested_type if nested.options.map_entry}
        is_entry = field.type_name.rpartition(".")[2] in entries
        return Field(
            name=field.name,
            type_name=field.type_name.lstrip(".") or scalar,
            is_repeated=field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
            is_defined_here=field.type_name.startswith(f".{PACKAGE}") and not is_entry,
            oneof=message.oneof_decl[field.oneof_index].name if is_in_oneof else "",
            rules=() if rules is None else tuple(_rules(rules)),
            comment=comment,
        )

    def _comment(self, file: descriptor_pb2.FileDescriptorProto, *path: int) -> str:
        return self._comments.get((file.name, path), "")

    def _option(self, kind: str, options: Message, name: str) -> Message | None:
        """Reads a custom option by its name, in the pool that defines it."""
        extension = self._pool.FindExtensionByName(name)
        options_type = self._pool.FindMessageTypeByName(f"google.protobuf.{kind}")
        parsed = message_factory.GetMessageClass(options_type).FromString(options.SerializeToString())
        for field, value in parsed.ListFields():
            if field.full_name == extension.full_name:
                return cast("Message", value)
        return None


def _access(option: Message) -> Access:
    words = {field.name: _word(field, value) for field, value in option.ListFields()}
    return Access(
        callers=tuple(words.get("callers", "").split()),
        principal=words.get("principal", "none"),
        rate_class=words.get("rate_class", "read"),
    )


def _rules(option: Message) -> Iterator[tuple[str, str]]:
    for field, value in option.ListFields():
        yield field.name, _word(field, value)


def _word(field: FieldDescriptor, value: object) -> str:
    """Writes an option's value: enum values lose the name of their enum, true says nothing."""
    if value is True:
        return ""
    if field.enum_type is None:
        return str(value)
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in field.enum_type.name).lstrip("_")
    numbers = cast("Sequence[int]", value) if field.is_repeated else [cast("int", value)]
    names = [field.enum_type.values_by_number[number].name for number in numbers]
    return " ".join(name.removeprefix(f"{prefix}_").lower() for name in names)
