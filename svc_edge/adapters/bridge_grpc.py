"""The `Bridge` port: unary methods of the other services, as opaque bytes, where the contract opens them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import pkgutil
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from chappe.runtime import contract
from chappe.runtime.errors import MalformedError, MethodNotAllowedError, TooLargeError, UnavailableError, from_rpc_error
from chappe.runtime.principal import ADDRESS_KEY, Principal, principal_metadata
from svc_edge.model import RateClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import FileDescriptor

    from svc_edge.model import Member

CALL_TIMEOUT_S = 10.0
READY_WITHIN_S = 1.0
"""How long a call waits for a service that is being dialled: twice as long as a channel waits between two dials."""
MAX_REQUEST_BYTES = 256 * 1024
_PACKAGE_DEPTH = 2

_log = logging.getLogger(__name__)


@functools.cache
def contract_files(service: str) -> tuple[FileDescriptor, ...]:
    """Imports the contracts of a service and returns them, so that a new method needs no change here."""
    package = importlib.import_module(f"chappe.api.{service}.v1")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name.endswith("_pb2")]
    return tuple(importlib.import_module(f"{package.__name__}.{name}").DESCRIPTOR for name in names)


class GrpcBridge:
    """Forwards the calls of clients with metadata that is made from scratch."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        """Prepares.

        Args:
            channels: The channel to each service by its name in the contract, like "message".
        """
        for service in channels:
            contract_files(service)
        self._channels = channels
        self._methods: dict[str, Any] = {}

    def rate_class(self, method: str) -> RateClass:
        """Returns the budget that the contract charges a call to; that of reads for a method that nobody has."""
        try:
            return RateClass(contract.access_of("/" + method.removeprefix("/")).rate_class)
        except contract.ContractError:
            return RateClass.READ

    async def call(self, method: str, payload: bytes, member: Member | None, address: str) -> bytes:
        """Forwards a call and returns the serialised response; raises what the contract or the service refuses with."""
        path = "/" + method.removeprefix("/")
        channel = self._channel(path, is_signed_in=member is not None)
        self._check(path, payload)
        metadata: list[tuple[str, str | bytes]] = []
        if member is not None:
            metadata.append(principal_metadata(Principal(member.user_id, member.device_id, member.sign_in_id)))
        if address and contract.access_of(path).is_open:
            # Also for a user: what is budgeted by address would be free to everybody who has an account.
            metadata.append((ADDRESS_KEY, address))
        # A service that has just started is no longer away, even if it was when it was last dialled.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await channel.channel_ready()
        try:
            response: bytes = await self._stub(path, channel)(payload, metadata=metadata, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc_error(error, dependency=f"svc_{_service_of(path)}")
            if isinstance(refusal, UnavailableError):
                _log.warning("%s got no answer: %s", path, refusal)
            raise refusal from error
        return response

    def _channel(self, path: str, *, is_signed_in: bool) -> grpc.aio.Channel:
        """Returns the channel to the service of a method; raises unless the contract opens the method to the caller."""
        try:
            access = contract.access_of(path)
            descriptor = contract.method_descriptor(path)
        except contract.ContractError:
            raise MethodNotAllowedError(path.removeprefix("/")) from None
        is_allowed = access.is_open or (is_signed_in and access.is_for_clients)
        channel = self._channels.get(_service_of(path))
        if not is_allowed or channel is None or descriptor.client_streaming or descriptor.server_streaming:
            raise MethodNotAllowedError(path.removeprefix("/"))
        return channel

    def _stub(self, path: str, channel: grpc.aio.Channel) -> Any:
        if path not in self._methods:
            self._methods[path] = channel.unary_unary(path)
        return self._methods[path]

    def _check(self, path: str, payload: bytes) -> None:
        if len(payload) > MAX_REQUEST_BYTES:
            message = f"call.payload has {len(payload)} bytes, the most is {MAX_REQUEST_BYTES}"
            raise TooLargeError(message, limit=MAX_REQUEST_BYTES)
        request_type = message_factory.GetMessageClass(contract.method_descriptor(path).input_type)
        try:
            contract.validate(request_type.FromString(payload))
        except DecodeError:
            raise MalformedError(f"call.payload is not a {request_type.DESCRIPTOR.full_name}") from None


def _service_of(path: str) -> str:
    parts = path.removeprefix("/").split(".")
    return parts[_PACKAGE_DEPTH] if len(parts) > _PACKAGE_DEPTH else ""
