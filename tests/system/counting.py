"""Asks how far messages to a group have come, and lets the client show it like counts that were pushed."""

from collections.abc import Sequence
from contextlib import suppress

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import receipt_service_pb2
from chappe.client.errors import ChappeClientError
from chappe.client.lean import LeanClient
from chappe.client.methods import Method

MOST_ASKED = 256
COUNT = Method(
    "chappe.api.message.v1.ReceiptService/BatchGetReceipts",
    receipt_service_pb2.BatchGetReceiptsRequest,
    receipt_service_pb2.BatchGetReceiptsResponse,
)


async def count(client: LeanClient, group_id: bytes, message_ids: Sequence[bytes]) -> bool:
    """Asks for the last of some messages; returns whether there was an answer."""
    asked = message_ids[-MOST_ASKED:]
    if not asked:
        return True
    queries = [receipt_service_pb2.ReceiptQuery(group_id=group_id, message_id=message_id) for message_id in asked]
    with suppress(ChappeClientError):
        answer = await client.call(COUNT, receipt_service_pb2.BatchGetReceiptsRequest(queries=queries))
        found = [counts for counts in answer.counts if counts.is_found]
        receipt = item_pb2.GroupReceiptEvent(
            group_id=group_id,
            message_ids=[counts.message_id for counts in found],
            delivered_counts=[counts.delivered_count for counts in found],
            read_counts=[counts.read_count for counts in found],
            recipient_counts=[counts.recipient_count for counts in found],
        )
        client.engine.core.outbox.batch.items.append(item_pb2.Item(group_receipt=receipt))
        client.engine.wake()
        return True
    return False
