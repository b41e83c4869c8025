"""The door of TraceService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chappe.api.message.v1 import trace_service_pb2, trace_service_pb2_grpc
from svc_message.model import ConversationId, MessageId
from svc_message.model.trace import TraceQuery

if TYPE_CHECKING:
    from svc_message.model.trace import MessageTrace
    from svc_message.service.trace import TraceReading


class TraceRpc(trace_service_pb2_grpc.TraceServiceServicer):
    """Serves operators."""

    def __init__(self, reading: TraceReading) -> None:
        self._reading = reading

    async def GetMessageTrace(
        self, request: trace_service_pb2.GetMessageTraceRequest, context: Any
    ) -> trace_service_pb2.GetMessageTraceResponse:
        """Returns what the ledger knows of one message."""
        del context
        query = TraceQuery(ConversationId(request.conversation_id), MessageId(request.message_id))
        return _response(await self._reading.read(query))


def _response(trace: MessageTrace) -> trace_service_pb2.GetMessageTraceResponse:
    return trace_service_pb2.GetMessageTraceResponse(
        kind=int(trace.kind),  # type: ignore[arg-type]  # the numbers are the contract's
        accepted_ms=trace.accepted_ms,
        sender_user_id=trace.sender_id,
        sender_device_id=trace.sender_device_id,
        recipient_user_id=trace.recipient_id,
        recipient_count=trace.recipient_count,
        is_withheld=trace.is_withheld,
        pointers=[
            trace_service_pb2.InboxPointer(user_id=pointer.user_id, position=pointer.position)
            for pointer in trace.pointers
        ],
        receipts=[
            trace_service_pb2.TracedReceipt(
                user_id=receipt.user_id,
                state=int(receipt.state),  # type: ignore[arg-type]  # the same
                delivered_ms=receipt.delivered_ms,
                read_ms=receipt.read_ms,
            )
            for receipt in trace.receipts
        ],
    )
