"""The people of a simulation: devices that crash and come back with what they had stored, and write their history."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from chappe.api.type.v1 import presence_pb2
from chappe.client.changes import (
    ItemArrived,
    MessageArrived,
    MessageEdited,
    MessageReacted,
    MessageRevoked,
    SendRefused,
    Sent,
)
from chappe.client.connection import ConnectionOptions
from chappe.client.content import SUITE_NONE
from chappe.client.destination import Destination
from chappe.client.device import Device
from chappe.client.errors import ChappeClientError
from chappe.client.frames import edit_action, reaction_action, revoke_action
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.mint import conversation_of, is_group
from chappe.client.outgoing import Kind, Outgoing
from chappe.client.seams import Seams
from chappe.client.store_memory import LeanStore
from chappe.client.tokens import Token
from chappe.testing import Line, actor_of
from tests.simulation.clocks import Lots, ProcessClock
from tests.simulation.house import Grounds
from tests.simulation.loop import EPOCH_MS, Process, VirtualLoop
from tests.system.counting import count

COUNT_S = 1.0
"""How long a device gathers what it asks counts of, and waits before it asks again."""


RIGHT_REFUSALS = frozenset(
    (f"{kind} in a group", "NOT_IN_CONVERSATION") for kind in ("message", "edit", "revoke", "reaction")
)
"""What may be refused for good here, and why."""


class Words:
    """What was said under which id: whatever comes under it says the same, or what its sender has put in its place."""

    def __init__(self) -> None:
        self._said: dict[bytes, set[bytes]] = {}

    def say(self, id_: bytes, content: bytes) -> None:
        """Takes note of what is sent under an id, or put in place of what was."""
        self._said.setdefault(id_, set()).add(content)

    def were_said(self, id_: bytes, content: bytes) -> bool:
        """Tells whether somebody said this under an id."""
        return content in self._said.get(id_, ())


class Pen:
    """Writes the history of one device into a list; what it has written no crash can take."""

    def __init__(self, lines: list[Line], actor: str, loop: VirtualLoop, words: Words) -> None:
        self._lines = lines
        self._actor = actor
        self._loop = loop
        self._words = words
        self.contents: dict[str, bytes] = {}
        """By outbox entry, what is said."""

    def send(self, action: Any, attempt: int = 1) -> None:
        content = self.contents.get(action.draft, b"")
        self._words.say(action.id, content)
        if action.kind == "edit":
            self._words.say(action.target, content)
        fields = {"id": action.id.hex(), "conv": action.conv.hex(), "to": action.to.hex(), "kind": action.kind}
        if action.draft:
            fields["draft"] = action.draft
        if action.target:
            fields["target"] = action.target.hex()
        if action.version:
            fields["version"] = action.version
        self.note("send", attempt=attempt, **fields)

    def stored(self, id_: bytes, accepted_ms: int, *, is_duplicate: bool = False) -> None:
        self.note("stored", id=id_.hex(), accepted_ms=accepted_ms, duplicate=is_duplicate)

    def refused(self, id_: bytes, reason: str, *, is_final: bool) -> None:
        self.note("refused", id=id_.hex(), reason=reason, final=is_final)

    def apply(self, event: Any, how: Any) -> None:
        fields = {"target": event.target.hex()} if event.target else {}
        ids = {"id": event.id.hex(), "conv": event.conv.hex(), "sender": event.sender.hex(), "pos": event.pos.hex()}
        self.note("apply", ms=event.ms, kind=event.kind, how=how, **ids, **fields)

    def ack(self, ids: Iterable[bytes]) -> None:
        self.note("ack", ids=[id_.hex() for id_ in ids])

    def read_upto(self, conv: bytes, upto: bytes) -> None:
        self.note("read", conv=conv.hex(), upto=upto.hex())

    def tick(self, id_: bytes, state: Any, by: bytes) -> None:
        self.note("tick", id=id_.hex(), state=state, by=by.hex())

    def note(self, op: str, **fields: object) -> None:
        t = EPOCH_MS + self._loop.time() * 1000
        line: Any = {"t": t, "actor": self._actor, "op": op, **fields}
        self._lines.append(line)


class Handset:
    """One device of somebody."""

    def __init__(self, grounds: Grounds, device: Device, token: Token, lines: list[Line], words: Words) -> None:
        seed, loop = grounds.seed, grounds.loop
        self.device = device
        self.name = actor_of(device.user_id, device.device_id)
        self.pen = Pen(lines, self.name, loop, words)
        self.pen.note("device", device=self.name)
        self.seen: dict[bytes, list[bytes]] = {}
        """By conversation, the messages that it has, its own too, in the order in which they came."""
        self.mine: dict[bytes, list[bytes]] = {}
        """By conversation, those of its user."""
        self.failures: list[str] = []
        """What it was told that nobody should have been."""
        self.watched: list[bytes] = []
        """Whom it wants to see."""
        self.process = Process(self.name)
        self.process.is_dead = True
        self.boots = 0
        self._seed = seed
        self._loop = loop
        self._token = token
        self._words = words
        self._store = LeanStore()
        self._said = 0
        self._owed: Counter[bytes] = Counter()
        """By group, how often something happened since it knew how far its messages have come."""
        self._client: LeanClient | None = None
        self._lots = Lots(f"{seed} {self.name}")
        self._clock = ProcessClock(loop, self._lots.uniform(-3.0, 3.0), self._lots.uniform(0.0, 1e6))

    @property
    def is_leaving(self) -> bool:
        """Whether it is about to be switched off."""
        return self._client is None and self.is_on

    @property
    def is_on(self) -> bool:
        """Whether it is switched on."""
        return not self.process.is_dead

    @property
    def unanswered(self) -> int:
        """How many of the changes in its outbox have neither been stored nor refused for good."""
        return len(self._store.outbox)

    @property
    def unseen(self) -> int:
        """How many of those whom it wants to see it does not show as online."""
        told = {} if self._client is None else self._client.engine.core.watches._told
        return sum(told.get(user_id) != presence_pb2.PRESENCE_STATE_ONLINE for user_id in self.watched)

    def switch_on(self, addresses: list[str]) -> None:
        """Starts the client on what the device has stored, unless it runs."""
        if not self.is_on:
            self.boots += 1
            process = self.process = Process(self.name)
            self._loop.spawn(process, self._run(addresses), name=self.name)

    def crash(self) -> None:
        """Ends the client at once."""
        self.process.kill()
        self._client = None

    def hang_up(self) -> None:
        """Ends the client politely; the device is switched off soon afterwards."""
        client, self._client = self._client, None
        if client is not None and self.is_on:
            self._loop.spawn(self.process, self._close(client, self.process), name=f"{self.name} hangs up")

    def do(self, deed: Callable[..., None], *args: Any) -> None:
        """Does something in the process of the device, if it is switched on."""
        if self.is_on:
            self._loop.call_soon(deed, *args, context=self.process.context)

    def say(self, chat: Destination, version: int = 0) -> None:
        """Sends a message."""
        if self._client is None:
            return
        content = self._new_content()
        if chat.peer_id:
            outgoing = self._client.send(chat.peer_id, content)
        else:
            outgoing = self._client.send_to_group(chat.group_id, content, version)
        self.pen.contents[str(outgoing.draft)] = content

    def mark_read(self, chat: Destination) -> None:
        """Says that everything that the device has of a chat is read."""
        seen = [one for one in self.seen.get(self.conversation(chat), ()) if one]
        if self._client is None or not seen:
            return
        if chat.peer_id:
            self._client.mark_read(chat.peer_id, max(seen))
        else:
            self._client.mark_group_read(chat.group_id, max(seen))

    def alter(self, kind: Kind, chat: Destination, message_id: bytes) -> None:
        """Edits, takes back or reacts to a message."""
        if self._client is None:
            return
        content = self._new_content()
        if kind == "edit":
            action = edit_action(chat, message_id, SUITE_NONE, content)
        elif kind == "revoke":
            action = revoke_action(chat, message_id, is_for_me=False)
        else:
            action = reaction_action(chat, message_id, SUITE_NONE, content)
        outgoing = Outgoing(kind, chat.peer_id, self.conversation(chat), action)
        self._client.engine.submit(outgoing)
        self.pen.contents[str(outgoing.draft)] = content

    def conversation(self, chat: Destination) -> bytes:
        """Returns the id of a chat's conversation."""
        return conversation_of(self.device.user_id, chat.peer_id) if chat.peer_id else chat.group_id

    def _new_content(self) -> bytes:
        """Returns what nobody has said before."""
        self._said += 1
        return f"{self.name} {self._said}".encode()

    async def _run(self, addresses: list[str]) -> None:
        callbacks = Callbacks(
            message=self._arrived, sent=self._stored, refused=self._refused, item=self._told, altered=self._altered
        )
        seams = Seams(self._clock, Lots(f"{self._seed} {self.name} {self.boots}"))
        options = ConnectionOptions(ping_s=20.0)
        parts = LeanParts(seams=seams, options=options, store=self._store, recorder=self.pen, token=self._token)
        self._client = LeanClient(self.device, addresses, callbacks, parts)
        self._client.watch(self.watched)
        for group_id in +self._owed:
            self._loop.spawn(self.process, self._count(group_id), name=f"{self.name} counts")
        with contextlib.suppress(ChappeClientError):
            await self._client.start()

    async def _close(self, client: LeanClient, process: Process) -> None:
        await client.close()
        await asyncio.sleep(0.5)
        process.kill()

    def _arrived(self, change: MessageArrived) -> None:
        message = change.message
        self._compare(message.message_id, message.envelope.content, is_revoked=bool(message.revoked_ms))
        self._has(message.conversation_id, message.message_id, message.sender_user_id)

    def _stored(self, change: Sent) -> None:
        outgoing = change.outgoing
        if outgoing.kind == "message":
            self._has(outgoing.conversation_id, outgoing.message_id, self.device.user_id)

    def _refused(self, change: SendRefused) -> None:
        where = " in a group" if is_group(change.outgoing.conversation_id) else ""
        kind = f"{change.outgoing.kind}{where}"
        if (kind, change.reason) not in RIGHT_REFUSALS:
            self.failures.append(f"{self.name}: its {kind} was refused for good: {change.reason}, {change.detail}")

    def _altered(self, change: MessageEdited | MessageRevoked | MessageReacted) -> None:
        if isinstance(change, MessageEdited):
            self._compare(change.edit.edit_id, change.edit.envelope.content)
        elif isinstance(change, MessageReacted):
            self._compare(change.reaction.reaction_id, change.reaction.envelope.content)

    def _compare(self, id_: bytes, content: bytes, *, is_revoked: bool = False) -> None:
        if content if is_revoked else not self._words.were_said(id_, content):
            self.failures.append(f"{self.name}: {id_.hex()} came with {content!r}, which was not said under it")

    def _has(self, conversation_id: bytes, message_id: bytes, sender_id: bytes) -> None:
        self.seen.setdefault(conversation_id, []).append(message_id)
        if sender_id == self.device.user_id:
            self.mine.setdefault(conversation_id, []).append(message_id)
            # It may have come further before this device knew that it is there.
            if is_group(conversation_id):
                self._count_soon(conversation_id)

    def _told(self, change: ItemArrived) -> None:
        if change.item.HasField("group_receipt"):
            self._count_soon(change.item.group_receipt.group_id)

    def _count_soon(self, group_id: bytes) -> None:
        """Asks soon how far the messages of its user have come; a crash does not make it forget to."""
        self._owed[group_id] += 1
        if self._owed[group_id] == 1:
            self._loop.spawn(self.process, self._count(group_id), name=f"{self.name} counts")

    async def _count(self, group_id: bytes) -> None:
        while self._owed[group_id]:
            await asyncio.sleep(COUNT_S)
            # What has come meanwhile is asked for, too.
            client, owed = self._client, self._owed[group_id]
            if client is not None and await count(client, group_id, self.mine.get(group_id, [])):
                self._owed[group_id] -= owed
