"""One device of a crowd: a client, its store, its history and what it expects."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from chappe.api.identity.v1 import profile_service_pb2, settings_pb2
from chappe.api.type.v1 import privacy_audience_pb2
from chappe.client.changes import (
    GroupTickRaised,
    ItemArrived,
    MessageArrived,
    MessageEdited,
    MessageReacted,
    MessageRevoked,
    SendRefused,
    Sent,
    TickRaised,
)
from chappe.client.content import SUITE_NONE
from chappe.client.destination import Destination
from chappe.client.device import Device
from chappe.client.frames import edit_action, reaction_action, revoke_action
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.methods import UPDATE_SETTINGS
from chappe.client.outgoing import Kind, Outgoing
from chappe.client.seams import Seams, SystemClock, SystemRandomness
from chappe.client.store_memory import LeanStore
from chappe.testing import HistoryWriter, actor_of
from tests.system.books import Books, Change, Due, Tally
from tests.system.counting import count

LONGEST_PAUSE_S = 0.5
_EVERYONE: Final = privacy_audience_pb2.PRIVACY_AUDIENCE_EVERYONE
_NOBODY: Final = privacy_audience_pb2.PRIVACY_AUDIENCE_NOBODY
ASK_AGAIN_S: Final = 1.0
SKEW_MS: Final = 2000
"""More than the clocks of two servers may be apart when nothing is wrong with them."""
RECENT: Final = 20
"""So many of its messages a device may still change."""


class Said(NamedTuple):
    """A message that a device has sent."""

    message_id: bytes
    chat: Destination
    due: Due


class Impatient(SystemRandomness):
    """Draws short pauses, so that a test does not wait for a client that waits."""

    def uniform(self, low: float, high: float) -> float:
        """Returns a number of the lower end of the range."""
        return super().uniform(low, min(high, LONGEST_PAUSE_S))


class Handset:
    """A device that can be switched off and on again, at any edge; what it had stored it keeps."""

    def __init__(self, device: Device, folder: Path, books: Books) -> None:
        self.device = device
        self.actor = actor_of(device.user_id, device.device_id)
        self.history = HistoryWriter(folder / f"{self.actor.replace('/', '-')}.jsonl", self.actor, flush_lines=1)
        self.history.note("device", device=self.actor)
        self.store = LeanStore()
        self.client: LeanClient | None = None
        self.sessions = 0
        """How many sessions got as far as CaughtUp."""
        self.received = 0
        self.versions: Counter[bytes] = Counter()
        """The newest version that it was told of each group."""
        self.refusals: Counter[str] = Counter()
        """Final refusals by reason."""
        self.recent: deque[Said] = deque(maxlen=RECENT)
        """The last messages that it has sent."""
        self._watched: tuple[bytes, ...] = ()
        self._books = books
        self._said: dict[bytes, list[bytes]] = {}
        """By group, what it has sent."""
        self._shown: dict[bytes, Tally] = {}
        self._told_ms: Counter[bytes] = Counter()
        """By group, when the last news were told that its messages came further."""
        self._owed: Counter[bytes] = Counter()
        """By group, how often something happened since it knew how far its messages have come."""
        self._asking: dict[bytes, asyncio.Task[None]] = {}
        self._unread: dict[tuple[bytes, bool], list[bytes]] = {}
        self._dues: dict[int, Due | Change | list[bytes]] = {}

    @property
    def user_id(self) -> bytes:
        """Whose device it is."""
        return self.device.user_id

    @property
    def is_on(self) -> bool:
        """Whether it is switched on."""
        return self.client is not None

    @property
    def pending(self) -> int:
        """How many of its sends have no answer."""
        return 0 if self.client is None else self.client.pending

    async def switch_on(self, addresses: Sequence[str]) -> None:
        """Connects, and returns once the log has been read to its end."""
        callbacks = Callbacks(
            message=self._arrived,
            tick=self._ticked,
            counted=self._counted,
            sent=self._sent,
            refused=self._refused,
            altered=self._altered,
            item=self._learned,
            caught_up=self._caught_up,
        )
        parts = LeanParts(store=self.store, recorder=self.history, seams=Seams(SystemClock(), Impatient()))
        self.client = LeanClient(self.device, addresses, callbacks, parts)
        self.client.watch(self._watched)
        await self.client.start()

    async def show_itself(self, *, is_shy: bool) -> None:
        """Lets everybody see whether its user is there, or nobody."""
        assert self.client is not None
        privacy = settings_pb2.PrivacySettings(last_seen=_NOBODY if is_shy else _EVERYONE)
        request = profile_service_pb2.UpdateSettingsRequest(settings=settings_pb2.Settings(privacy=privacy))
        begun_ms = time.time() * 1000
        await self.client.call(UPDATE_SETTINGS, request)
        if is_shy:
            self.history.note("conceal", at=begun_ms)

    def watch(self, user_ids: Iterable[bytes]) -> None:
        """Shows from now on how other users are, whenever it is on."""
        self._watched = tuple(user_id for user_id in user_ids if user_id != self.user_id)
        if self.client is not None:
            self.client.watch(self._watched)

    async def switch_off(self) -> None:
        """Ends the client; its store stays."""
        client, self.client = self.client, None
        for task in self._asking.values():
            task.cancel()
        self._asking.clear()
        if client is not None:
            await client.close()

    async def close(self) -> None:
        """Ends the client and its history."""
        await self.switch_off()
        self.history.close()

    def send(self, peer_id: bytes, due: Due, content: bytes) -> None:
        """Sends a message that owes so much once it is acknowledged."""
        if self.client is not None:
            self._dues[self.client.send(peer_id, content).draft] = due

    def send_to_group(self, group_id: bytes, due: Due, content: bytes) -> None:
        """Sends a message to a group, of which it names the newest version that it knows."""
        if self.client is not None:
            outgoing = self.client.send_to_group(group_id, content, self.versions[group_id])
            self._dues[outgoing.draft] = due

    def read_some(self) -> None:
        """Reads all that came in one chat, if anything did."""
        if self.client is None or not self._unread:
            return
        # The chat that has waited longest.
        chat_id, is_group = chat = next(iter(self._unread))
        message_ids = self._unread.pop(chat)
        mark = self.client.mark_group_read if is_group else self.client.mark_read
        self._dues[mark(chat_id, max(message_ids)).draft] = message_ids

    def edit(self, said: Said, due: Due, content: bytes) -> None:
        """Puts other content in the place of what it has said."""
        action = edit_action(said.chat, said.message_id, SUITE_NONE, content)
        self._change("edit", said.chat, action, Change("edit", said.message_id, b"", due))

    def take_back(self, said: Said, due: Due) -> None:
        """Takes back what it has said."""
        self.recent.remove(said)
        action = revoke_action(said.chat, said.message_id, is_for_me=False)
        self._change("revoke", said.chat, action, Change("revoke", said.message_id, b"", due))

    def react(self, said: Said, chat: Destination, due: Due, content: bytes) -> None:
        """Reacts to what somebody has said, in the chat as this user names it."""
        action = reaction_action(chat, said.message_id, SUITE_NONE, content)
        self._change("reaction", chat, action, Change("reaction", said.message_id, self.user_id, due))

    def _change(self, kind: Kind, chat: Destination, action: bytes, change: Change) -> None:
        if self.client is not None:
            outgoing = Outgoing(kind, chat.peer_id, chat.conversation_id, action)
            self.client.engine.submit(outgoing)
            self._dues[outgoing.draft] = change

    async def count_again(self) -> None:
        """Asks how many have the last of its messages to each group, as somebody does who looks at the chat."""
        for group_id in self._said:
            if self.client is not None:
                await count(self.client, group_id, self._said[group_id], self._shown)

    def _owe(self, group_id: bytes) -> None:
        """Asks how far its messages to a group have come until somebody answers, as an application's client does."""
        self._owed[group_id] += 1
        self._begin_to_ask(group_id)

    def _begin_to_ask(self, group_id: bytes) -> None:
        if group_id not in self._asking:
            self._asking[group_id] = asyncio.create_task(self._ask(group_id), name=f"ask of {self.actor}")

    async def _ask(self, group_id: bytes) -> None:
        while self.client is not None and (owed := self._owed[group_id]):
            if await count(self.client, group_id, self._said.get(group_id, []), self._shown):
                self._owed[group_id] -= owed
            else:
                await asyncio.sleep(ASK_AGAIN_S)
        self._asking.pop(group_id, None)

    def _own(self, group_id: bytes, message_id: bytes, accepted_ms: int) -> None:
        """Takes note of its user's message to a group, of which news may have told before it was known."""
        self._said.setdefault(group_id, []).append(message_id)
        if accepted_ms <= self._told_ms[group_id] + SKEW_MS:
            self._owe(group_id)

    def _arrived(self, change: MessageArrived) -> None:
        self.received += 1
        message = change.message
        self._books.applied(message.message_id, self.actor)
        if message.sender_user_id == self.user_id:
            if message.group_id:
                self._own(message.group_id, message.message_id, message.accepted_ms)
        else:
            chat = (message.group_id, True) if message.group_id else (message.sender_user_id, False)
            self._unread.setdefault(chat, []).append(message.message_id)

    def _ticked(self, change: TickRaised) -> None:
        self._books.ticked(change.message_id, self.actor, change.state)

    def _counted(self, change: GroupTickRaised) -> None:
        self._shown[change.message_id] = Tally(change.delivered, change.read)
        self._books.counted(change.message_id, self.actor, self._shown[change.message_id])

    def _sent(self, change: Sent) -> None:
        due = self._dues.pop(change.outgoing.draft)
        if isinstance(due, Change):
            self._books.changed(change.outgoing.message_id, due)
        elif isinstance(due, Due):
            chat = Destination(change.outgoing.conversation_id, change.outgoing.peer_id)
            self.recent.append(Said(change.outgoing.message_id, chat, due))
            if due.group:
                self._own(due.group, change.outgoing.message_id, change.accepted_ms)
            self._books.stored(change.outgoing.message_id, due)
        else:
            self._books.read(due, self.actor)

    def _refused(self, change: SendRefused) -> None:
        if change.outgoing.kind in {"edit", "revoke", "reaction"}:
            # Who has just left may not, and nobody changes what was taken back meanwhile.
            return
        self.refusals[change.reason] += 1
        self._books.refusals[change.reason] += 1

    def _altered(self, change: MessageEdited | MessageRevoked | MessageReacted) -> None:
        if isinstance(change, MessageEdited):
            self._books.applied(change.edit.edit_id, self.actor)
        elif isinstance(change, MessageRevoked):
            self._books.applied(change.revoke.revoke_id, self.actor)
        else:
            self._books.applied(change.reaction.reaction_id, self.actor)

    def _learned(self, change: ItemArrived) -> None:
        if change.item.HasField("group_change"):
            group = change.item.group_change
            self.versions[group.group_id] = max(self.versions[group.group_id], group.version)
        elif change.item.HasField("group_receipt"):
            # Something came further: how far, it has to ask.
            news = change.item.group_receipt
            self._told_ms[news.group_id] = max(self._told_ms[news.group_id], news.recorded_ms)
            self._owe(news.group_id)

    def _caught_up(self, _change: object) -> None:
        self.sessions += 1
        for group_id in +self._owed:
            self._begin_to_ask(group_id)
