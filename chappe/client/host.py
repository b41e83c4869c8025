"""Runs a client: has a seat at its profile and a link to the server, and a new link whenever one is lost."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from chappe.client.destination import Destination
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, StoreError, WaitsInOutboxError
from chappe.client.feed import Feed
from chappe.client.link import Link, LinkLostError, Stored, Submission
from chappe.client.methods import Answer, Method, Question
from chappe.client.outgoing import Kind
from chappe.client.parts import ClientParts
from chappe.client.presence_views import WatchRefused
from chappe.client.profiles import folder_of
from chappe.client.seat import Seat
from chappe.client.showing import from_store
from chappe.client.store_sqlite import SqliteStore
from chappe.client.tasks import Tasks
from chappe.client.views import Event, Offline, Online, ProfileChanged
from chappe.client.wishes import Wishes

RATE_LIMITED = "RATE_LIMITED"
MOST_WAITS = 5
MOST_PATIENCE_MS = 10_000
"""A call that is told to come back later than this fails at once."""

_TOKEN_BYTES = 16
_SHORT_WAIT_S = 2.0
"""How long whoever may work offline waits for a session before it goes by what this device knows."""
_LOOKS = 50
_LOOK_S = 0.02

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Host:
    """One running device, or a share of it."""

    def __init__(self, address: str | Sequence[str], profile: str | Path, parts: ClientParts) -> None:
        self._seat = Seat(address, folder_of(profile), parts)
        self._parts = parts
        self._online = asyncio.Event()
        self._is_patient = True
        self._edge = ""
        self._end: ChappeClientError | None = None
        self._tasks = Tasks()
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self.store: SqliteStore
        """The local store; used in its thread, by `in_store`."""
        self.feed: Feed
        """The events that the application has not had."""
        self.wishes = Wishes()
        """What this process wants to be told of others."""
        self.renamed: set[bytes] = set()
        """Whose profile has changed since this process remembered it."""
        self.user_id = b""
        """Whose device it is."""
        self.randomness = parts.seams.randomness
        """Where random values come from."""
        self.sleep = parts.seams.clock.sleep
        """Waits."""

    async def start(self) -> None:
        """Opens the profile and connects, or follows the process that leads it.

        Raises:
            ProfileError: There is no such profile, or it is in use by a process that cannot be followed.
            NotConnectedError: No edge answers in time.
            SessionEndedError: An edge does not want this device.
            RefusedError: The device may not sign in.
        """
        try:
            self._link = await self._seat.join()
            self.store = self._seat.store
            self.user_id = self._seat.user_id
            self.feed = Feed(self.store, self.in_store, lambda stored: from_store(stored, self.user_id))
            await self._use(self._link)
            self._tasks.spawn(self._stay_joined(), name="share of a profile")
            if not self._parts.may_start_offline:
                await self._wait_online(self._parts.online_s)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the link, finishes what is being stored, and lets go of the profile."""
        await self._tasks.aclose()
        self.wishes.lost()
        if self._link is not None:
            await self._link.stop()
            self.feed.end(None)
        await self._seat.close()

    async def in_store(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Runs a function in the thread of the store."""
        return await self._seat.in_store(function, *args, **kwargs)

    async def is_reachable(self) -> bool:
        """Tells whether there is a session; waits a little for one."""
        with suppress(NotConnectedError):
            await self._wait_online(_SHORT_WAIT_S if self._parts.may_start_offline else self._parts.online_s)
        return self._online.is_set()

    async def submit(self, kind: Kind, destination: Destination, action: bytes, timeout_s: float | None) -> Stored:
        """Sends a change and waits until it is durable on the server, whichever process leads meanwhile.

        Raises:
            RefusedError: It was refused for good.
            WaitsInOutboxError: The time is over; the outbox on the disk has it.
            NotConnectedError: The time is over, and nothing has it.
            SessionEndedError: An edge does not want this device any more.
        """
        submission = Submission(kind, destination, action, self.randomness.token(_TOKEN_BYTES))
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with suppress(LinkLostError):
                        return await (await self._current()).submit(submission)
                    submission = submission._replace(is_retry=True)
        except TimeoutError:
            return await _late(self, submission.token, timeout_s)
        except RefusedError:
            await _mark_answered(self, submission.token)
            raise

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Makes a call; again when its session ended before the answer came and it may be repeated.

        What comes too fast for its budget waits as long as it is told to, within reason, and is made again.
        """
        for _ in range(MOST_WAITS):
            try:
                return await self._call_through(method, question)
            except RefusedError as error:
                # Nothing was done for it, so it may be made again whatever it does.
                if error.reason != RATE_LIMITED or not 0 < error.retry_after_ms <= MOST_PATIENCE_MS:
                    raise
                await self._parts.seams.clock.sleep(error.retry_after_ms / 1000)
        return await self._call_through(method, question)

    async def expire(self) -> int:
        """Removes from the local store what has disappeared, and tells of it; returns until when nothing is shown."""
        return await (await self._current()).expire()

    def show(self, event: Event) -> None:
        """Takes an event of the link."""
        if isinstance(event, Online):
            self._edge = event.edge
            self._online.set()
            self._is_patient = True
        elif isinstance(event, Offline):
            self._online.clear()
        elif isinstance(event, WatchRefused):
            self.wishes.refused(event.user_ids)
        elif isinstance(event, ProfileChanged):
            self.renamed.add(event.user_id)
        self.wishes.told(event)
        self.feed.put(event)

    def ended(self, error: ChappeClientError) -> None:
        """Learns that the device is of no use any more, and why."""
        self._end = error
        self._linked.set()
        self._online.set()
        self.feed.end(error)

    async def _use(self, link: Link) -> None:
        self._link = link
        await link.begin(self)
        # Whoever led before may have stored what it told nobody; from here on everything is told.
        self.feed.look_again()
        self._linked.set()
        self.wishes.use(link)

    async def _stay_joined(self) -> None:
        """Goes on after the process that led, leading or following, for as long as this one lives."""
        # The end may have come before this has begun; whoever asks for something is told of it.
        while self._end is None:
            await asyncio.shield((await self._current()).lost)
            if self._end is not None:
                return
            self._linked.clear()
            if self._online.is_set():
                self.show(Offline(edge=self._edge))
            # Whoever led told it last, and whoever leads next tells only what it is told itself.
            for event in self.wishes.lost():
                self.feed.put(event)
            try:
                await self._use(await self._seat.join_again())
            except ChappeClientError as error:
                self.ended(error)
                return

    async def _current(self) -> Link:
        if self._link is None:
            raise NotConnectedError("the client is not running; use it as `async with connect(...) as me`")
        if self._link.lost.done() and self._end is None:
            self._linked.clear()
        await self._linked.wait()
        if self._end is not None:
            raise self._end
        return self._link

    async def _call_through(self, method: Method[Question, Answer], question: Question) -> Answer:
        payload = question.SerializeToString()
        await self._wait_online(self._parts.online_s)
        try:
            return method.answer.FromString(await (await self._current()).call(method.name, payload))
        except (NotConnectedError, LinkLostError):
            if not method.is_idempotent:
                raise NotConnectedError(f"the session ended before {method.name} was answered") from None
        await self._wait_online(self._parts.online_s)
        try:
            return method.answer.FromString(await (await self._current()).call(method.name, payload))
        except LinkLostError:
            raise NotConnectedError(f"the session ended before {method.name} was answered") from None

    async def _wait_online(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s if self._is_patient else 0):
                await self._online.wait()
        except TimeoutError:
            self._is_patient = not self._parts.may_start_offline
            raise NotConnectedError(f"no edge has answered in {wait_s:g} s") from None
        if self._end is not None:
            raise self._end


async def _late(host: Host, token: bytes, timeout_s: float | None) -> Stored:
    """Returns the answer that has come after all, or says where a change is that has none.

    Nobody is told that the outbox has it before the disk does; what was just handed over gets a moment to be stored.
    """
    for _ in range(_LOOKS):
        answer = await host.in_store(host.store.answers.find, token)
        if isinstance(answer, RefusedError):
            await _mark_answered(host, token)
            raise answer
        if answer is not None:
            return answer
        if await host.in_store(host.store.answers.is_kept, token):
            raise WaitsInOutboxError(
                f"the server has not answered in {timeout_s} s; the message stays in the outbox and is sent on"
            )
        await asyncio.sleep(_LOOK_S)
    raise NotConnectedError(f"the server has not answered in {timeout_s} s, and the outbox could not take the message")


async def _mark_answered(host: Host, token: bytes) -> None:
    """Takes note that whoever asked for a change is told that it was refused, so that no later process is."""
    with suppress(StoreError):
        await host.in_store(host.store.refusals.mark_answered, token)
