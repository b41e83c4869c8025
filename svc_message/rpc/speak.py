"""Takes what bots say into the same flushes as what devices send, and waits for its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chappe.api.edge.v1 import send_pb2, server_frame_pb2
from chappe.api.message.v1 import message_service_pb2
from svc_message.model import SendGroupMessage
from svc_message.rpc.parse import Result, parse_send
from svc_message.rpc.submit import Flushes, Item

if TYPE_CHECKING:
    from svc_message.service.speak import Speaking

RESENDS = 1
"""Every request may be a retry: nobody can tell, so all are looked up before they are refused or accepted."""


class OneAnswer:
    """Waits for the answer to one item, in the place of a stream."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def answer(self, results: list[Result]) -> None:
        """Takes the answer; the caller may have gone."""
        if not self.result.done():
            self.result.set_result(results[0])


class Speech:
    """Sends messages of bots, each call one."""

    def __init__(self, flushes: Flushes, speaking: Speaking) -> None:
        self._flushes = flushes
        self._speaking = speaking

    async def send(self, spiffe_id: str, request: message_service_pb2.SendRequest) -> message_service_pb2.SendResponse:
        """Returns once the message is durable or refused; raises what `Speaking.speak` does."""
        user_id, device_id, message_id = await self._speaking.speak(spiffe_id, request.request_id)
        send = send_pb2.Send(message_id=message_id, attempt=1, message=request.message).SerializeToString()
        parsed = parse_send(user_id, device_id, send, RESENDS, None)
        if isinstance(parsed, Result):
            return _response(parsed)
        waiting = OneAnswer()
        item = Item(waiting, 1, parsed, len(send))
        if isinstance(parsed.action, SendGroupMessage):
            self._flushes.groups.add(item)
        else:
            self._flushes.messages.add(item)
        return _response(await waiting.result)


def _response(result: Result) -> message_service_pb2.SendResponse:
    frame = server_frame_pb2.ServerFrame.FromString(result.frame)
    if frame.HasField("send_ack"):
        return message_service_pb2.SendResponse(stored=frame.send_ack)
    return message_service_pb2.SendResponse(refused=frame.send_nack)
