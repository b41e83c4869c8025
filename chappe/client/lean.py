"""A client for load generation: the same core with callbacks and the smallest store, thousands in one process."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chappe.client.budget import UNLIMITED
from chappe.client.changes import (
    CaughtUp,
    Change,
    Disconnected,
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
from chappe.client.connection import Connection, ConnectionOptions, addresses_of
from chappe.client.content import SUITE_NONE
from chappe.client.destination import Destination
from chappe.client.device import Device
from chappe.client.door import call_over
from chappe.client.engine import Engine
from chappe.client.frames import group_message_action, message_action, read_action
from chappe.client.methods import Answer, Method, Question
from chappe.client.mint import conversation_of
from chappe.client.outgoing import Outgoing
from chappe.client.protocol import ClientProtocol
from chappe.client.recorder import Recorder
from chappe.client.seams import Seams, system_seams
from chappe.client.store import DeviceStore
from chappe.client.store_memory import LeanStore
from chappe.client.tasks import Tasks
from chappe.client.tokens import Token, Tokens


def _nothing(_change: Any) -> None:
    """Passes over a change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Callbacks:
    """What a lean client calls, on the event loop; none may raise."""

    message: Callable[[MessageArrived], None] = _nothing
    """A message came, once each."""
    tick: Callable[[TickRaised], None] = _nothing
    """A message of one's own came further."""
    counted: Callable[[GroupTickRaised], None] = _nothing
    """A message of one's own to a group came further."""
    sent: Callable[[Sent], None] = _nothing
    """A send is durable."""
    refused: Callable[[SendRefused], None] = _nothing
    """A send was refused for good."""
    caught_up: Callable[[CaughtUp], None] = _nothing
    """The log has been read to its end, in each session once."""
    item: Callable[[ItemArrived], None] = _nothing
    """Something else came that a lean client passes on as it is: of a group, a profile, the account."""
    altered: Callable[[MessageEdited | MessageRevoked | MessageReacted], None] = _nothing
    """A message was edited, taken back or reacted to, once each."""
    disconnected: Callable[[Disconnected], None] = _nothing
    """A session has ended; the client comes back by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeanParts:
    """What a lean client may be given instead of what it makes itself."""

    seams: Seams = field(default_factory=system_seams)
    options: ConnectionOptions = field(default_factory=lambda: ConnectionOptions(ping_s=None, rate=UNLIMITED))
    store: DeviceStore = field(default_factory=LeanStore)
    recorder: Recorder | None = None
    token: Token | None = None


class LeanClient:
    """One device: `start`, `send`, `close`, and callbacks."""

    def __init__(
        self,
        device: Device,
        address: str | Sequence[str],
        callbacks: Callbacks | None = None,
        parts: LeanParts | None = None,
    ) -> None:
        """Makes a client on the running loop; it connects when it is started.

        Args:
            device: Who it is.
            address: Of one edge or several.
            callbacks: Who is told what happens.
            parts: What it is made of.
        """
        calls, parts = callbacks or Callbacks(), parts or LeanParts()
        self._device = device
        self._conversations: dict[bytes, bytes] = {}
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            MessageArrived: calls.message,
            TickRaised: calls.tick,
            GroupTickRaised: calls.counted,
            Sent: calls.sent,
            SendRefused: calls.refused,
            CaughtUp: self._caught_up,
            Disconnected: calls.disconnected,
            ItemArrived: calls.item,
            **dict.fromkeys((MessageEdited, MessageRevoked, MessageReacted), calls.altered),
        }
        self._on_caught_up = calls.caught_up
        self._is_caught_up = asyncio.Event()
        restored, rate = parts.store.load(), parts.options.rate
        core = ClientProtocol(device.user_id, device.device_id, restored, parts.seams, parts.recorder, rate)
        self.engine = Engine(core, parts.store, parts.seams, self._show)
        tokens = Tokens(device, core.clock, parts.seams, parts.options.wire)
        tokens.use(parts.token)
        addresses = addresses_of(address)
        self._connection = Connection(self.engine, device, addresses, tokens, parts.seams, parts.options)
        self._tasks = Tasks()
        self._run: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """How many sends have no answer yet."""
        return self.engine.core.outbox.pending

    async def start(self) -> None:
        """Connects and waits until the log has been read to its end; tries on for ever when no edge answers.

        Raises:
            SessionEndedError: An edge does not want this device.
            RefusedError: The device may not sign in.
        """
        self._run = self._tasks.spawn(self._connection.run(), name=f"lean {self._device.user_id.hex()}")
        caught_up = self._tasks.spawn(self._is_caught_up.wait(), name="caught up")
        await asyncio.wait([self._run, caught_up], return_when=asyncio.FIRST_COMPLETED)
        if self._run.done():
            await self._run

    def send(self, peer_id: bytes, content: bytes, tag: object = None) -> Outgoing:
        """Sends a message; `tag` comes back with what becomes of it."""
        outgoing = Outgoing(
            "message", peer_id, self._conversation(peer_id), message_action(peer_id, SUITE_NONE, content)
        )
        outgoing.tag = tag
        self.engine.submit(outgoing)
        return outgoing

    def send_to_group(self, group_id: bytes, content: bytes, members_version: int = 0, tag: object = None) -> Outgoing:
        """Sends a message to a group; `members_version` is the newest version of the group that this device knows."""
        action = group_message_action(group_id, members_version, SUITE_NONE, content)
        outgoing = Outgoing("message", b"", group_id, action)
        outgoing.tag = tag
        self.engine.submit(outgoing)
        return outgoing

    def mark_group_read(self, group_id: bytes, read_upto: bytes) -> Outgoing:
        """Says that the user has read everything of a group up to this message."""
        outgoing = Outgoing("read", b"", group_id, read_action(Destination(group_id), read_upto))
        self.engine.submit(outgoing)
        return outgoing

    def mark_read(self, peer_id: bytes, read_upto: bytes) -> Outgoing:
        """Says that the user has read everything of a peer up to this message."""
        conversation_id = self._conversation(peer_id)
        action = read_action(Destination(conversation_id, peer_id), read_upto)
        outgoing = Outgoing("read", peer_id, conversation_id, action)
        self.engine.submit(outgoing)
        return outgoing

    def watch(self, user_ids: Iterable[bytes]) -> None:
        """Asks to be told how people are, in this session and those after it; the recorder writes it down."""
        self.engine.core.watches.watch(user_ids)
        self.engine.wake()

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Calls a method of a service.

        Raises:
            RefusedError: The service said no.
            NotConnectedError: There is no session, or it ended before the answer came.
        """
        return await call_over(self.engine.call, method, question)

    async def close(self) -> None:
        """Ends the session and the client."""
        self._connection.close()
        await self._tasks.aclose()
        await self.engine.stop()

    def _conversation(self, peer_id: bytes) -> bytes:
        conversation_id = self._conversations.get(peer_id)
        if conversation_id is None:
            conversation_id = self._conversations[peer_id] = conversation_of(self._device.user_id, peer_id)
        return conversation_id

    def _show(self, change: Change) -> None:
        handler = self._handlers.get(type(change))
        if handler is not None:
            handler(change)

    def _caught_up(self, change: CaughtUp) -> None:
        self._is_caught_up.set()
        self._on_caught_up(change)
