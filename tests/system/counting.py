"""Asks how far messages to a group have come, and lets the client show it like counts that were pushed."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import receipt_service_pb2
from chappe.client.errors import ChappeClientError
from chappe.client.lean import LeanClient
from chappe.client.methods import Method
from chappe.client.recounting import QUIET_PAGES, RECOUNTED, RESTS

Shown = Mapping[bytes, tuple[int, int]]
"""How many have a message and have read it, as far as a device shows."""
COUNT = Method(
    "chappe.api.message.v1.ReceiptService/BatchGetReceipts",
    receipt_service_pb2.BatchGetReceiptsRequest,
    receipt_service_pb2.BatchGetReceiptsResponse,
)


async def count(client: LeanClient, group_id: bytes, message_ids: Sequence[bytes], shown: Shown | None = None) -> bool:
    """Asks for the last messages; returns whether there were answers.

    Where it is known what is shown, older ones are asked for, too, as far back as the SDK does, and with its rests.
    """
    quiet_pages = 0
    for end in range(len(message_ids), 0, -RECOUNTED):
        asked = message_ids[max(end - RECOUNTED, 0) : end]
        queries = [receipt_service_pb2.ReceiptQuery(group_id=group_id, message_id=message_id) for message_id in asked]
        start_s = time.monotonic()
        try:
            answer = await client.call(COUNT, receipt_service_pb2.BatchGetReceiptsRequest(queries=queries))
        except ChappeClientError:
            return False
        took_s = time.monotonic() - start_s
        news = [
            counts
            for counts in answer.counts
            if counts.is_found
            and (counts.delivered_count, counts.read_count) != (shown or {}).get(counts.message_id, (0, 0))
        ]
        receipt = item_pb2.GroupReceiptEvent(
            group_id=group_id,
            message_ids=[counts.message_id for counts in news],
            delivered_counts=[counts.delivered_count for counts in news],
            read_counts=[counts.read_count for counts in news],
            recipient_counts=[counts.recipient_count for counts in news],
        )
        client.engine.core.outbox.batch.items.append(item_pb2.Item(group_receipt=receipt))
        client.engine.wake()
        quiet_pages = 0 if news else quiet_pages + 1
        if shown is None or quiet_pages == QUIET_PAGES:
            break
        await asyncio.sleep(RESTS * took_s)
    return True
