"""The door of MessageService."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from chappe.api.message.v1 import message_service_pb2, message_service_pb2_grpc
from chappe.runtime.errors import DrainingError
from chappe.runtime.principal import caller
from chappe.runtime.streams import Identity, StreamServer
from svc_message.model import NO_POSITION, ForeignAppend, UserId
from svc_message.rpc.speak import Speech
from svc_message.rpc.submit import CREDITS, Flushes, SubmitStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chappe.runtime.tasks import Tasks
    from svc_message.service.speak import Speaking
    from svc_message.service.sync import Syncing


class MessageRpc(message_service_pb2_grpc.MessageServiceServicer):
    """Serves Submit streams, Send and AppendEvents."""

    def __init__(
        self, flushes: Flushes, syncing: Syncing, speaking: Speaking, identity: Identity, *, tasks: Tasks
    ) -> None:
        self._flushes = flushes
        self._speech = Speech(flushes, speaking)
        self._syncing = syncing
        self._identity = identity
        self._tasks = tasks
        self._streams: dict[StreamServer[Any, Any, Any], None] = {}
        self._is_draining = False

    async def Submit(  # type: ignore[override]  # written with context.read and write
        self, request_iterator: AsyncIterator[message_service_pb2.SubmitRequest], context: Any
    ) -> None:
        """Serves one edge until it half-closes; raises `DrainingError` for a stream that comes too late."""
        del request_iterator
        if self._is_draining:
            raise DrainingError
        handler = SubmitStream(self._flushes, self._identity)
        stream = handler.server = StreamServer(context, handler, tasks=self._tasks, credits_=CREDITS, name="submit")
        self._streams[stream] = None
        try:
            await stream.serve()
        finally:
            self._streams.pop(stream, None)

    async def Send(self, request: message_service_pb2.SendRequest, context: Any) -> message_service_pb2.SendResponse:
        """Sends one message of a bot; raises `DrainingError` for one that comes too late."""
        del context
        if self._is_draining:
            raise DrainingError
        return await self._speech.send(caller().spiffe_id, request)

    async def AppendEvents(
        self, request: message_service_pb2.AppendEventsRequest, context: Any
    ) -> message_service_pb2.AppendEventsResponse:
        """Appends events of another service."""
        del context
        appends: list[ForeignAppend] = []
        for event in request.events:
            event.item.ClearField("position")
            user_ids = tuple(UserId(user_id) for user_id in event.user_ids)
            appends.append(ForeignAppend(event.change_id, user_ids, event.item.SerializeToString(), NO_POSITION))
        await self._syncing.append(appends)
        return message_service_pb2.AppendEventsResponse()

    async def drain(self) -> None:
        """Asks every edge to go elsewhere and answers what is left."""
        self._is_draining = True
        await asyncio.gather(*(stream.drain("the ledger stops") for stream in self._streams))
        await self._flushes.drain()
