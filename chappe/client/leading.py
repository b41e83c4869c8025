"""The link of the process that leads a profile: the engine and the connection, for itself and for those who follow."""

import asyncio
import logging
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from chappe.client.changes import CaughtUp, Change, CountsDue, Disconnected, Resynced, SendRefused, Sent
from chappe.client.connection import Connection, addresses_of
from chappe.client.destination import Destination
from chappe.client.door import call_bytes
from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError, NotConnectedError, StoreError
from chappe.client.hall import Guest, Hall
from chappe.client.insisting import Insisting
from chappe.client.link import Audience, Stored, Submission
from chappe.client.looking import Looking
from chappe.client.parts import ClientParts
from chappe.client.people import InStore
from chappe.client.profiles import Profile
from chappe.client.protocol import ClientProtocol
from chappe.client.recounting import Recounting
from chappe.client.resync import Rebuilding
from chappe.client.seams import Clock
from chappe.client.showing import from_change, from_sent
from chappe.client.store import Restored
from chappe.client.store_sqlite import SqliteStore
from chappe.client.submissions import Submissions
from chappe.client.tasks import Tasks
from chappe.client.tokens import Tokens
from chappe.client.views import Event

EXPIRY_S = 1.0
"""How often the local store is looked through for what has disappeared."""

_log = logging.getLogger(__name__)

OWN = "own"
"""The seat of the process that leads; those of the others are their guests."""


class Keep(NamedTuple):
    """What the leading process of a profile holds."""

    profile: Profile
    store: SqliteStore
    in_store: InStore
    thread: Executor


class Leading:
    """Holds the session of a profile, and shares it."""

    def __init__(self, keep: Keep, address: str | Sequence[str], parts: ClientParts) -> None:
        """Prepares.

        Args:
            keep: The profile and its store.
            address: Of the edges; empty for those that the profile was made with.
            parts: What the client is made of.
        """
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keep = keep
        self._address = address
        self._parts = parts
        self._audience: Audience
        self._device = keep.profile.device
        self._submissions = Submissions(keep.store.answers, keep.in_store)
        self._end: ChappeClientError | None = None
        self.user_id = self._device.user_id
        """Whose device it is."""
        self.edge = ""
        """The edge to which a session stands; empty while there is none."""
        self._looking = Looking()
        self._hall = Hall(self)
        self._tasks = Tasks()
        self._has_begun = False
        self._engine: Engine
        self._recounting: Insisting
        self._rebuilding: Insisting
        self._connection: Connection

    async def begin(self, audience: Audience) -> None:
        """Begins to connect, to tell what happens, and to let others follow."""
        self._audience = audience
        keep, parts, device = self._keep, self._parts, self._device
        restored: Restored = await keep.in_store(keep.store.load)
        self._submissions.restore(restored.outgoing)
        rate = parts.options.rate
        core = ClientProtocol(device.user_id, device.device_id, restored, parts.seams, parts.recorder, rate)
        self._engine = Engine(core, keep.store, parts.seams, self._show, keep.thread)
        recounting = Recounting(keep.store.groups, keep.in_store, audience, self._engine, parts.seams.clock)
        rebuilding = Rebuilding(keep.store.rebuilds, keep.store.groups, keep.in_store, audience, self._engine)
        self._recounting = Insisting(recounting.work, self._engine, parts.seams)
        self._rebuilding = Insisting(rebuilding.work, self._engine, parts.seams)
        tokens = Tokens(device, core.clock, parts.seams, parts.options.wire, keep.profile.keep_token)
        tokens.use(keep.profile.token())
        addresses = addresses_of(self._address or keep.profile.about.addresses)
        self._connection = Connection(self._engine, device, addresses, tokens, parts.seams, parts.options)
        self._has_begun = True
        name = keep.profile.folder.name
        await self._hall.open(keep.profile.folder)
        self._tasks.spawn(self._stay(), name=f"connection of {name}")
        self._tasks.spawn(self._recounting.run(), name=f"recount of {name}")
        self._tasks.spawn(self._rebuilding.run(), name=f"resync of {name}")
        self._tasks.spawn(_keep_expiring(self, parts.seams.clock), name=f"expiry of {name}")

    async def submit(self, submission: Submission, seat: Hashable = OWN) -> Stored:
        """Sends a change for one of the processes; one that was handed over before is not sent again."""
        if self._end is not None:
            raise self._end
        return await self._submissions.submit(submission, seat, self._engine.submit)

    async def call(self, method: str, payload: bytes) -> bytes:
        """Calls a method of a service."""
        if self._end is not None:
            raise self._end
        return await call_bytes(self._engine.call, method, payload)

    async def expire(self) -> int:
        """Removes from the local store what has certainly disappeared by now, and tells of it; returns the time."""
        clock, now_s = self._engine.core.clock, self._parts.seams.clock.monotonic_s()
        for change in await self._keep.in_store(self._keep.store.expire, clock.certain_ms(now_s)):
            self._show(change)
        return clock.estimate_ms(now_s)

    def watch(self, user_ids: frozenset[bytes], seat: Hashable = OWN) -> None:
        """Asks to be told how people are, for one of the processes."""
        with self._wishing():
            known = self._looking.watch(seat, user_ids)
        for event in known:
            self._hand(event, seat)

    def look_at(self, chats: tuple[Destination, ...], seat: Hashable = OWN) -> None:
        """Asks to be told who is typing, for one of the processes."""
        with self._wishing():
            known = self._looking.look_at(seat, chats)
        for event in known:
            self._hand(event, seat)

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets the others in a chat see that the user is typing, or no longer."""
        self._engine.core.watches.type(chat, kind, is_over=is_over)
        self._engine.wake()

    def left(self, seat: Hashable) -> None:
        """Forgets what a process wanted that has gone."""
        with self._wishing():
            self._looking.leave(seat)

    async def stop(self) -> None:
        """Lets nobody follow any more, ends the session and finishes what is being stored."""
        await self._hall.close()
        if self._has_begun:
            self._connection.close()
            await self._tasks.aclose()
            await self._engine.stop()
        self._submissions.end(NotConnectedError("the client was closed; the message stays in the outbox"))

    async def _stay(self) -> None:
        try:
            await self._connection.run()
        except ChappeClientError as error:
            self._end = error
            self._submissions.end(error)
            self._hall.ended(error)
            self._audience.ended(error)

    def _show(self, change: Change) -> None:
        core, sender = self._engine.core, None
        event = from_change(change, self.user_id, core.session.edge)
        if isinstance(change, Resynced):
            self._rebuilding.due()
        elif isinstance(change, CountsDue):
            self._recounting.due()
        elif isinstance(change, Sent | SendRefused):
            settlement = self._submissions.settle(change)
            sender = settlement.seat if settlement.is_answered else None
            # That it was refused is told to all when nobody waits for it any more.
            is_news = isinstance(change, Sent) and settlement.seat not in {None, OWN}
            if settlement.is_answered or is_news:
                event = from_sent(change, self.user_id, self._device.device_id)
        elif isinstance(change, CaughtUp | Disconnected):
            self.edge = core.session.edge
            if isinstance(change, CaughtUp):
                # What was not answered before is asked again.
                self._recounting.due()
                self._rebuilding.due()
        if event is not None:
            self._tell(event, sender)

    def _tell(self, event: Event, sender: Hashable | None) -> None:
        """Tells an event to everybody whom it concerns; of what a process has sent itself, the others."""
        for seat in self._looking.told(event, (OWN, *self._hall.guests)):
            if seat != sender:
                self._hand(event, seat)

    def _hand(self, event: Event, seat: Hashable) -> None:
        if seat == OWN:
            self._audience.show(event)
        elif isinstance(seat, Guest):
            seat.say(event=event)

    @contextmanager
    def _wishing(self) -> Generator[None]:
        before, watches = self._looking.people, self._engine.core.watches
        yield
        after = self._looking.people
        watches.watch(sorted(after - before))
        watches.unwatch(sorted(before - after))
        if self._looking.chats != watches.chats:
            watches.look_at(self._looking.chats)
        self._engine.wake()


async def _keep_expiring(leading: Leading, clock: Clock) -> None:
    is_failing = False
    while True:
        try:
            await leading.expire()
            is_failing = False
        except StoreError as error:
            # Another process may be writing for long, or the disk be full for now.
            if not is_failing:
                _log.warning("what has disappeared is not removed for now: %s", error)
            is_failing = True
        await clock.sleep(EXPIRY_S)
