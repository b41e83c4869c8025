"""Tells senders how far their messages to groups have come: counts while they watch, and a word in their inboxes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from svc_message.model import GroupReceiptEvent
from svc_message.model.receipt import MessageName
from svc_message.protocol import LedgerClock
from svc_message.service.giving import is_known_giver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from svc_message.model import ConversationId, MessageId, UserId
    from svc_message.model.receipt import Came, Tally
    from svc_message.ports import Directory, Dispatcher
    from svc_message.ports.receipt import ReceiptStore

EVENT_MESSAGES = 40
"""How many messages one event counts."""
MAX_COUNTED = 2000
"""How many messages are counted in one turn; the rest has its turn later."""
MAX_REMEMBERED = 400
"""How many messages of one sender to one group wait for their turn; of more the oldest are left out."""
CLAIM_MS = 10_000
"""For how long news that are being told are passed over by others."""

_Pair = tuple["UserId", "ConversationId"]


class Telling:
    """Gathers what came further, and tells of it when its worker says so, once in a second."""

    def __init__(self, store: ReceiptStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._waiting: dict[_Pair, dict[MessageId, None]] = {}

    def note(self, came: Iterable[Came]) -> None:
        """Remembers messages whose senders are to be told new counts."""
        for sender_id, group_id, message_id in came:
            waiting = self._waiting.setdefault((sender_id, group_id), {})
            waiting[message_id] = None
            if len(waiting) > MAX_REMEMBERED:
                del waiting[min(waiting)]

    async def tell_counts(self) -> None:
        """Tells every sender the counts of its newest messages that came further; raises `ChappeError`.

        A hint, nothing more: what is not told is in the store, and the sender's inbox says so within a minute.
        """
        turns = list(self._turns())
        names = [MessageName(group_id, message_id) for (_, group_id), ids in turns for message_id in ids]
        if not names:
            return
        tallies = iter(await self._store.tally(names))
        for (sender_id, group_id), ids in turns:
            found = [(message_id, tally) for message_id in ids if (tally := next(tallies)) is not None]
            if found:
                self._dispatch(sender_id, group_id, found)

    async def tell_news(self) -> None:
        """Says in the inboxes of senders that something came further, where that is due; raises `ChappeError`.

        What took too long to be relied on is told again, by whoever finds it due.
        """
        stamp = self._clock.mint()
        told = await self._store.claim_news(stamp.position, stamp.wall_ms, stamp.wall_ms + CLAIM_MS)
        for news in told:
            event = GroupReceiptEvent(stamp.position, news.group_id, (), (), (), (), stamp.wall_ms)
            self._dispatcher.dispatch(event, (news.sender_id,), 0, wants_receipt=False)
        if told and self._clock.is_fresh(stamp):
            await self._store.settle_news(told, stamp.wall_ms)

    def _turns(self) -> Iterator[tuple[_Pair, list[MessageId]]]:
        """Takes for each sender and group what one event can hold, until a turn is full."""
        left = MAX_COUNTED
        for pair in list(islice(self._waiting, MAX_COUNTED)):
            waiting = self._waiting.pop(pair)
            ids = sorted(waiting, reverse=True)[:EVENT_MESSAGES]
            left -= len(ids)
            if left < 0:
                self._waiting[pair] = waiting
                return
            if len(waiting) > len(ids):
                # At the end, so that everybody has its turn.
                self._waiting[pair] = dict.fromkeys(sorted(waiting)[: -len(ids)])
            yield pair, ids

    def _dispatch(self, sender_id: UserId, group_id: ConversationId, found: list[tuple[MessageId, Tally]]) -> None:
        # Who shows nobody what it has read sees that of nobody; whoever is not known by heart sees it a little later.
        sees_reads = is_known_giver(self._directory, sender_id)
        stamp = self._clock.mint()
        event = GroupReceiptEvent(
            stamp.position,
            group_id,
            tuple(message_id for message_id, _ in found),
            tuple(tally.delivered for _, tally in found),
            tuple(tally.read if sees_reads else 0 for _, tally in found),
            tuple(tally.recipients for _, tally in found),
            stamp.wall_ms,
        )
        self._dispatcher.dispatch(event, (sender_id,), 0, wants_receipt=False)
