"""The door of ReceiptService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chappe.api.message.v1 import receipt_service_pb2, receipt_service_pb2_grpc
from chappe.runtime.principal import principal
from svc_message.model import MessageId, UserId
from svc_message.model.receipt import MessageName
from svc_message.rpc.conversation import named_conversation

if TYPE_CHECKING:
    from svc_message.model.receipt import Tally
    from svc_message.service.receipts import ReceiptReading


class ReceiptRpc(receipt_service_pb2_grpc.ReceiptServiceServicer):
    """Serves receipts to the senders of messages."""

    def __init__(self, reading: ReceiptReading) -> None:
        self._reading = reading

    async def BatchGetReceipts(
        self, request: receipt_service_pb2.BatchGetReceiptsRequest, context: Any
    ) -> receipt_service_pb2.BatchGetReceiptsResponse:
        """Counts for many of the caller's messages."""
        del context
        owner_id = UserId(principal().user_id)
        names = [_name(owner_id, query, f"queries[{n}]") for n, query in enumerate(request.queries)]
        tallies = await self._reading.counts(owner_id, names)
        counts = [_counts(name.message_id, tally) for name, tally in zip(names, tallies, strict=True)]
        return receipt_service_pb2.BatchGetReceiptsResponse(counts=counts)

    async def ListReceipts(
        self, request: receipt_service_pb2.ListReceiptsRequest, context: Any
    ) -> receipt_service_pb2.ListReceiptsResponse:
        """Returns who received one of the caller's messages."""
        del context
        owner_id = UserId(principal().user_id)
        name = _name(owner_id, request.message, "message")
        page = await self._reading.page(owner_id, name, request.page_size, request.page_token)
        receipts = [
            receipt_service_pb2.Receipt(
                user_id=receipt.user_id,
                state=int(receipt.state),  # type: ignore[arg-type]  # the numbers are the contract's
                delivered_ms=receipt.delivered_ms,
                read_ms=receipt.read_ms,
            )
            for receipt in page.receipts
        ]
        return receipt_service_pb2.ListReceiptsResponse(receipts=receipts, next_page_token=page.next_page_token)


def _name(owner_id: UserId, query: receipt_service_pb2.ReceiptQuery, field: str) -> MessageName:
    conversation_id = named_conversation(owner_id, query.peer_user_id, query.group_id, field)
    return MessageName(conversation_id, MessageId(query.message_id))


def _counts(message_id: bytes, tally: Tally | None) -> receipt_service_pb2.ReceiptCounts:
    if tally is None:
        return receipt_service_pb2.ReceiptCounts(message_id=message_id)
    return receipt_service_pb2.ReceiptCounts(
        message_id=message_id,
        is_found=True,
        recipient_count=tally.recipients,
        delivered_count=tally.delivered,
        read_count=tally.read,
    )
