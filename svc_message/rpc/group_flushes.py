"""The group commits of what belongs to groups: beside those of direct messages, which wait for none of it."""

from __future__ import annotations

import asyncio
import operator
from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.batching import LEISURELY, STEADY, Batcher
from svc_message.model import SendGroupMessage
from svc_message.model.action import SendGroupAction
from svc_message.protocol import KEY_BYTES, MessageKey, is_group
from svc_message.rpc.submit import AckItem, Flushes, Item, give_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.tasks import Tasks
    from svc_message.model import DeviceAck
    from svc_message.service.accept_group import GroupAccepting
    from svc_message.service.act import Acting
    from svc_message.service.record import Recording
    from svc_message.service.record_group import GroupRecording

PARALLEL_FLUSHES = 2
"""How many flushes of messages are in flight: while one commits, the next gathers."""

_SIZE = operator.attrgetter("size")
_MESSAGE_ID = operator.attrgetter("request.message_id")


class GroupRules(NamedTuple):
    """What decides."""

    accepting: GroupAccepting
    acting: Acting
    recording: GroupRecording
    direct: Recording
    """For the keys of direct messages in an acknowledgement that names both."""


class GroupFlushes:
    """Messages to groups, what is done to them, acknowledgements and reads, in batches of what all edges sent."""

    def __init__(self, rules: GroupRules, flushes: Flushes, tasks: Tasks) -> None:
        """Makes the batchers.

        Args:
            rules: Decide.
            flushes: Those of everything else, which send the answers.
            tasks: Owns the flushers.
        """
        self._rules = rules
        self._flushes = flushes
        self.messages: Batcher[Item] = Batcher(
            self._flush_messages, tasks, name="accept for groups", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.unsure: Batcher[Item] = Batcher(
            self._flush_unsure, tasks, name="look up for groups", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.reads: Batcher[Item] = Batcher(self._flush_reads, tasks, name="read in groups")
        self.actions: Batcher[Item] = Batcher(self._flush_actions, tasks, name="act in groups", weigh=_SIZE)
        self.acks: Batcher[AckItem] = Batcher(self._flush_acks, tasks, name="acknowledge in groups")
        for batcher in (self.messages, self.unsure, self.reads, self.actions):
            batcher.on_failure = flushes.refuse
        self.acks.on_failure = give_up
        self.messages.pace, self.acks.pace = STEADY, LEISURELY

    def add(self, item: Item) -> None:
        """Takes a message to a group, an action on one, or a read of one."""
        action = item.request.action
        if isinstance(action, SendGroupMessage):
            self.messages.add(item)
        elif isinstance(action, SendGroupAction):
            self.actions.add(item)
        else:
            self.reads.add(item)

    async def drain(self) -> None:
        """Returns once everything that was taken has been answered."""
        batchers = (self.reads, self.actions, self.acks)
        await asyncio.gather(self._drain_messages(), *(batcher.drain() for batcher in batchers))

    async def _drain_messages(self) -> None:
        await self.messages.drain()
        await self.unsure.drain()

    async def _flush_messages(self, items: list[Item]) -> None:
        with self._flushes.traces.flush("ledger.flush", map(_MESSAGE_ID, items), len(items)) as batch:
            answers = await self._rules.accepting.accept([item.request for item in items])
        unsure = [item for item, answer in zip(items, answers, strict=True) if answer is None]
        if unsure:
            self.unsure.extend(unsure)
        self._flushes.tell(items, answers, batch)

    async def _flush_unsure(self, items: list[Item]) -> None:
        await self._flushes.answer(items, "ledger.look_up", self._rules.accepting.accept_after_looking)

    async def _flush_reads(self, items: list[Item]) -> None:
        await self._flushes.mark(items, self._rules.recording.read, self.reads)

    async def _flush_actions(self, items: list[Item]) -> None:
        await self._flushes.answer(items, "ledger.act", self._rules.acting.act)

    async def _flush_acks(self, items: list[AckItem]) -> None:
        await self._flushes.confirm(items, self._record)

    async def _record(self, acks: Sequence[DeviceAck]) -> None:
        direct = [part for ack in acks if (part := _without_groups(ack)).keys]
        if direct:
            await self._rules.direct.acknowledge(direct)
        await self._rules.recording.acknowledge(acks)


def _without_groups(ack: DeviceAck) -> DeviceAck:
    """Returns what of an acknowledgement is of direct messages."""
    keys = [ack.keys[start : start + KEY_BYTES] for start in range(0, len(ack.keys), KEY_BYTES)]
    return ack._replace(keys=b"".join(key for key in keys if not is_group(MessageKey.of(key).conversation_id)))
