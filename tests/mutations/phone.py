"""The people of a scene: each has one device, which writes its history."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from chappe.client.changes import CaughtUp, ItemArrived, MessageArrived, SendRefused, Sent, TickRaised
from chappe.client.device import Device
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.outgoing import OutboxRow
from chappe.client.store_memory import LeanStore
from chappe.testing import HistoryWriter, actor_of
from tests.mutations.directory import Directory
from tests.mutations.faults import LeapClock, until
from tests.mutations.house import Service
from tests.system.books import Books, Due
from tests.system.counting import count


class Cupboard(NamedTuple):
    """Where histories are kept, and by which clock they are written."""

    folder: Path
    clock: LeapClock


class Phone:
    """One person's device; it keeps what it stored while it is off.

    Its own clock does not leap, so that nothing is sent again out of impatience while the services' time flies.
    """

    def __init__(self, name: str, cupboard: Cupboard, directory: Directory, books: Books) -> None:
        self.name = name
        self.device: Device = directory.enrol()
        self.actor = actor_of(self.device.user_id, self.device.device_id)
        path, clock_ns = cupboard.folder / f"{name}.jsonl", cupboard.clock.history_ns
        self.history = HistoryWriter(path, self.actor, flush_lines=1, clock_ns=clock_ns)
        self.history.note("device", device=self.actor)
        self.store = LeanStore()
        self.clients: list[LeanClient] = []
        self.unanswered = 0
        self.sessions = 0
        """How many sessions got as far as CaughtUp."""
        self._directory = directory
        self._books = books
        self._dues: dict[int, Due] = {}
        self._said: dict[bytes, list[bytes]] = {}
        self._asking: set[asyncio.Task[bool]] = set()

    @property
    def user_id(self) -> bytes:
        """Who it is."""
        return self.device.user_id

    @property
    def cursor(self) -> bytes:
        """From where on it would read its log."""
        return self.store.cursor

    async def connect(self, edge: Service) -> None:
        """Connects and returns once the log has been read to its end; an older connection of it is left alone."""
        await self._begin(edge).start()

    async def dial(self, edge: Service) -> None:
        """Connects and returns as soon as that is under way."""
        client = self._begin(edge)
        client._run = client._tasks.spawn(client._connection.run(), name=f"{self.name} dials")

    async def hang_up(self) -> None:
        """Ends the oldest connection."""
        await self.clients.pop(0).close()

    async def reconnect(self, edge: Service) -> None:
        """Ends the connection and makes another."""
        await self.hang_up()
        await self.connect(edge)

    def send(self, peer: "Phone", *, is_owed: bool = True) -> None:
        """Sends a message; one that is not owed may never arrive."""
        own = frozenset({self.actor}) if is_owed else frozenset[str]()
        due = Due(frozenset({peer.actor}) if is_owed else frozenset(), frozenset(), own)
        self.unanswered += 1
        outgoing = self.clients[-1].send(peer.user_id, f"hello from {self.name}".encode())
        self._dues[outgoing.draft] = due

    def forget_answers(self, rows: dict[int, OutboxRow]) -> None:
        """Takes back sends of a phone that is off, as a disk does that lost their answers; to nobody are they owed."""
        self.store.outbox.update(rows)
        self.unanswered += len(rows)
        self._dues.update(dict.fromkeys(rows, Due(frozenset(), frozenset(), frozenset())))

    async def send_and_wait(self, peer: "Phone", *, is_owed: bool = True) -> None:
        """Sends a message and waits until it is acknowledged."""
        self.send(peer, is_owed=is_owed)
        await self.acknowledged()

    def say(self, group_id: bytes, readers: Iterable["Phone"], version: int = 0) -> None:
        """Writes to a group, of which it knows a version; these owe it to have it."""
        peers = frozenset(phone.actor for phone in readers if phone is not self)
        self.unanswered += 1
        outgoing = self.clients[-1].send_to_group(group_id, f"hello from {self.name}".encode(), version)
        self._dues[outgoing.draft] = Due(peers, frozenset(), frozenset(), group_id, time.monotonic())

    async def say_and_wait(self, group_id: bytes, readers: Iterable["Phone"], version: int = 0) -> None:
        """Writes to a group and waits until that is acknowledged."""
        self.say(group_id, readers, version)
        await self.acknowledged()

    async def acknowledged(self) -> None:
        """Waits until everything sent is acknowledged."""
        await until(lambda: not self.unanswered, f"what {self.name} sent is acknowledged", 30.0)

    def _begin(self, edge: Service) -> LeanClient:
        callbacks = Callbacks(
            message=self._arrived,
            tick=self._ticked,
            sent=self._sent,
            refused=self._refused,
            item=self._told,
            caught_up=self._caught_up,
        )
        parts = LeanParts(store=self.store, recorder=self.history, token=self._directory.token(self.device))
        client = LeanClient(self.device, edge.app.addresses["ws"], callbacks, parts)
        self.clients.append(client)
        return client

    def _arrived(self, change: MessageArrived) -> None:
        self._books.applied(change.message.message_id, self.actor)

    def _ticked(self, change: TickRaised) -> None:
        self._books.ticked(change.message_id, self.actor, change.state)

    def _sent(self, change: Sent) -> None:
        self.unanswered -= 1
        due = self._dues.pop(change.outgoing.draft)
        self._said.setdefault(due.group, []).append(change.outgoing.message_id)
        self._books.stored(change.outgoing.message_id, due)

    def _refused(self, _change: SendRefused) -> None:
        self.unanswered -= 1

    def _told(self, change: ItemArrived) -> None:
        if change.item.HasField("group_receipt"):
            group_id = change.item.group_receipt.group_id
            task = asyncio.create_task(count(self.clients[-1], group_id, self._said.get(group_id, [])))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _caught_up(self, _change: CaughtUp) -> None:
        self.sessions += 1
