"""How far a user's own messages have come: how many people have them and read them, and who, and when."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from chappe.api.message.v1 import receipt_service_pb2
from chappe.client.destination import Destination
from chappe.client.methods import BATCH_GET_RECEIPTS, LIST_RECEIPTS
from chappe.client.people import Calling
from chappe.client.showing import counts_of
from chappe.client.views import Counts, Message, Receipt, Tick

_BATCH = 256
_PAGE = 200


class Receipts:
    """Asks the ledger."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling

    async def counted(self, messages: Sequence[Message]) -> list[Message]:
        """Returns messages, the own ones to groups with how far they have come."""
        asked = [message for message in messages if message.is_mine and message.group_id]
        found: dict[bytes, Counts] = {}
        for message, counts in zip(asked, await self.counts(map(_query, asked)), strict=False):
            if counts is not None:
                found[message.message_id] = counts
        return [
            replace(message, counts=found[message.message_id], tick=found[message.message_id].tick)
            if message.message_id in found
            else message
            for message in messages
        ]

    async def counts(self, queries: Iterable[receipt_service_pb2.ReceiptQuery]) -> list[Counts | None]:
        """Returns how far messages have come, in order; None for what the user has not sent."""
        found: list[Counts | None] = []
        left = iter(queries)
        while part := list(islice(left, _BATCH)):
            request = receipt_service_pb2.BatchGetReceiptsRequest(queries=part)
            answer = await self._calling.call(BATCH_GET_RECEIPTS, request)
            found += [counts_of(one.delivered_count, one.read_count, one.recipient_count) for one in answer.counts]
        return found

    async def of(self, message: Message) -> list[Receipt]:
        """Returns who has an own message and who read it, the readers first, then by time.

        Raises:
            RefusedError: It is not an own message.
        """
        found: list[Receipt] = []
        token = ""
        while True:
            request = receipt_service_pb2.ListReceiptsRequest(
                message=_query(message), page_size=_PAGE, page_token=token
            )
            page = await self._calling.call(LIST_RECEIPTS, request)
            found += [
                Receipt(
                    user_id=one.user_id,
                    tick=Tick(min(one.state, Tick.READ)),
                    delivered_ms=one.delivered_ms,
                    read_ms=one.read_ms,
                )
                for one in page.receipts
            ]
            token = page.next_page_token
            if not token:
                return sorted(found, key=lambda one: (-one.tick, one.read_ms or one.delivered_ms, one.user_id))


def _query(message: Message) -> receipt_service_pb2.ReceiptQuery:
    where = Destination(message.conversation_id, message.peer_id)
    query = receipt_service_pb2.ReceiptQuery(message_id=message.message_id)
    if where.group_id:
        query.group_id = where.group_id
    else:
        query.peer_user_id = where.peer_id
    return query
