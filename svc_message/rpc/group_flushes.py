"""The group commits of what goes to groups: beside those of direct messages, which wait for none of it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher

if TYPE_CHECKING:
    from chappe.runtime.tasks import Tasks
    from svc_message.rpc.submit import Flushes, Item
    from svc_message.service.accept_group import GroupAccepting

PARALLEL_FLUSHES = 2
"""How many flushes of messages are in flight: while one commits, the next gathers."""

_SIZE = operator.attrgetter("size")
_MESSAGE_ID = operator.attrgetter("request.message_id")


class GroupFlushes:
    """Messages to groups, in batches of what all edges sent."""

    def __init__(self, accepting: GroupAccepting, flushes: Flushes, tasks: Tasks) -> None:
        """Makes the batchers.

        Args:
            accepting: The rules.
            flushes: Those of everything else, which send the answers.
            tasks: Owns the flushers.
        """
        self._accepting = accepting
        self._flushes = flushes
        self.messages: Batcher[Item] = Batcher(
            self._flush_messages, tasks, name="accept for groups", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.unsure: Batcher[Item] = Batcher(
            self._flush_unsure, tasks, name="look up for groups", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.messages.on_failure = self.unsure.on_failure = flushes.refuse

    async def drain(self) -> None:
        """Returns once everything that was taken has been answered."""
        await self.messages.drain()
        await self.unsure.drain()

    async def _flush_messages(self, items: list[Item]) -> None:
        with self._flushes.traces.flush("ledger.flush", map(_MESSAGE_ID, items), len(items)) as batch:
            answers = await self._accepting.accept([item.request for item in items])
        unsure = [item for item, answer in zip(items, answers, strict=True) if answer is None]
        if unsure:
            self.unsure.extend(unsure)
        self._flushes.tell(items, answers, batch)

    async def _flush_unsure(self, items: list[Item]) -> None:
        await self._flushes.answer(items, "ledger.look_up", self._accepting.accept_after_looking)
