"""Runs the device of a profile: holds the folder, the store and its thread, the engine and the connection."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from chappe.client.changes import CaughtUp, Change, Disconnected, Resynced, SendRefused, Sent, Settled
from chappe.client.connection import Connection, ConnectionOptions, addresses_of
from chappe.client.destination import Destination
from chappe.client.door import call_over
from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, StoreError
from chappe.client.feed import Feed
from chappe.client.methods import Answer, Method, Question
from chappe.client.outgoing import Kind, Outgoing
from chappe.client.profiles import Profile
from chappe.client.protocol import ClientProtocol
from chappe.client.recorder import Recorder
from chappe.client.resync import rebuild
from chappe.client.seams import Clock, Seams, system_seams
from chappe.client.showing import from_change, from_store
from chappe.client.store import Person
from chappe.client.store_sqlite import SqliteStore
from chappe.client.tasks import Tasks
from chappe.client.tokens import Tokens

EXPIRY_S = 1.0
"""How often the local store is looked through for what has disappeared."""

RATE_LIMITED = "RATE_LIMITED"
MOST_WAITS = 5
MOST_PATIENCE_MS = 10_000
"""A call that is told to come back later than this fails at once."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientParts:
    """What a client may be given instead of what it makes itself."""

    seams: Seams = field(default_factory=system_seams)
    options: ConnectionOptions = field(default_factory=ConnectionOptions)
    recorder: Recorder | None = None
    online_s: float = 10.0
    """How long entering the client, and each call, waits for a session."""
    may_start_offline: bool = False
    """Entering the client does not wait for an edge; what is sent waits in the outbox."""


class Host:
    """One running device."""

    def __init__(self, address: str | Sequence[str], profile: str | Path, parts: ClientParts) -> None:
        self._address = address
        self._profile_name = profile
        self._parts = parts
        self._online = asyncio.Event()
        self._end: ChappeClientError | None = None
        self._waiting: set[asyncio.Future[Sent]] = set()
        self._tasks = Tasks()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chappe-store")
        self._profile: Profile | None = None
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self.store: SqliteStore
        """The local store; used in its thread, by `in_store`."""
        self.feed: Feed
        """The events that the application has not had."""
        self.user_id = b""
        """Whose device it is."""
        self.randomness = parts.seams.randomness
        """Where random values come from."""
        self.sleep = parts.seams.clock.sleep
        """Waits."""

    async def start(self) -> None:
        """Opens the profile and connects.

        Raises:
            ProfileError: There is no such profile, or it is in use.
            NotConnectedError: No edge answers in time.
            SessionEndedError: An edge does not want this device.
            RefusedError: The device may not sign in.
        """
        try:
            await self._open()
            if not self._parts.may_start_offline:
                await self._wait_online()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the session, finishes what is being stored, and lets go of the profile."""
        if self._connection is not None:
            self._connection.close()
        await self._tasks.aclose()
        if self._engine is not None:
            await self._engine.stop()
            self.feed.end(None)
            await self.in_store(self.store.close)
        self._thread.shutdown()
        self._finish(NotConnectedError("the client was closed; the message stays in the outbox"))
        if self._profile is not None:
            self._profile.close()

    async def in_store(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Runs a function in the thread of the store."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def known_people(self) -> Iterable[Person]:
        """Returns everybody that the store remembers."""
        return await self.in_store(self.store.people)

    async def submit(self, kind: Kind, destination: Destination, action: bytes, timeout_s: float | None) -> Sent:
        """Sends a change and waits until it is durable on the server.

        Raises:
            RefusedError: It was refused for good.
            NotConnectedError: The time is over.
            SessionEndedError: An edge does not want this device any more.
        """
        if self._end is not None:
            raise self._end
        outgoing = Outgoing(kind, destination.peer_id, destination.conversation_id, action)
        sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        outgoing.tag = sent
        self._waiting.add(sent)
        self.running().submit(outgoing)
        try:
            async with asyncio.timeout(timeout_s):
                return await sent
        except TimeoutError:
            raise NotConnectedError(
                f"the server has not answered in {timeout_s} s; the message stays in the outbox and is sent on"
            ) from None
        finally:
            self._waiting.discard(sent)

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

    async def _call_through(self, method: Method[Question, Answer], question: Question) -> Answer:
        await self._wait_online()
        try:
            return await call_over(self.running().call, method, question)
        except NotConnectedError:
            if not method.is_idempotent:
                raise
        await self._wait_online()
        return await call_over(self.running().call, method, question)

    async def expire(self) -> None:
        """Removes from the local store what has disappeared by now, and tells of it."""
        core = self.running().core
        now_ms = core.clock.estimate_ms(self._parts.seams.clock.monotonic_s())
        for change in await self.in_store(self.store.expire, now_ms):
            self._show(change)

    async def _open(self) -> None:
        parts = self._parts
        profile = self._profile = Profile.open(self._profile_name)
        device = profile.device
        self.user_id = device.user_id
        self.store = await self.in_store(SqliteStore, profile.store_path, device.user_id, device.device_id)
        restored = await self.in_store(self.store.load)
        self.feed = Feed(self.store, self.in_store, lambda stored: from_store(stored, self.user_id))
        core = ClientProtocol(device.user_id, device.device_id, restored, parts.seams, parts.recorder)
        engine = self._engine = Engine(core, self.store, parts.seams.clock, self._show, self._thread)
        tokens = Tokens(device, core.clock, parts.seams, parts.options.wire, profile.keep_token)
        tokens.use(profile.token())
        addresses = addresses_of(self._address or profile.about.addresses)
        self._connection = Connection(engine, device, addresses, tokens, parts.seams, parts.options)
        self._tasks.spawn(self._stay(self._connection), name=f"connection of {profile.folder.name}")
        self._tasks.spawn(_keep_expiring(self, parts.seams.clock), name=f"expiry of {profile.folder.name}")

    async def _stay(self, connection: Connection) -> None:
        try:
            await connection.run()
        except ChappeClientError as error:
            self._end = error
            self._online.set()
            self.feed.end(error)
            self._finish(error)

    async def _wait_online(self) -> None:
        try:
            async with asyncio.timeout(self._parts.online_s):
                await self._online.wait()
        except TimeoutError:
            raise NotConnectedError(f"no edge has answered in {self._parts.online_s} s") from None
        if self._end is not None:
            raise self._end

    def _show(self, change: Change) -> None:
        if isinstance(change, Sent | SendRefused) and _tell_sender(change):
            return
        if isinstance(change, CaughtUp):
            self._online.set()
        elif isinstance(change, Disconnected):
            self._online.clear()
        elif isinstance(change, Resynced):
            self._tasks.spawn(rebuild(self, self.running()), name="resync")
        event = from_change(change, self.user_id, self.running().core.session.edge)
        if event is not None:
            self.feed.put(event)

    def _finish(self, error: ChappeClientError) -> None:
        for sent in self._waiting:
            if not sent.done():
                sent.set_exception(error)

    def running(self) -> Engine:
        """Returns the engine of the device; raises NotConnectedError before `start`."""
        if self._engine is None:
            raise NotConnectedError("the client is not running; use it as `async with connect(...) as me`")
        return self._engine


async def _keep_expiring(host: Host, clock: Clock) -> None:
    with suppress(StoreError):
        while True:
            await host.expire()
            await clock.sleep(EXPIRY_S)


def _tell_sender(settled: Settled) -> bool:
    """Answers whoever waits for a send; returns False when nobody does."""
    waiting = settled.outgoing.tag
    if not isinstance(waiting, asyncio.Future) or waiting.done():
        return False
    if isinstance(settled, Sent):
        waiting.set_result(settled)
    else:
        waiting.set_exception(RefusedError(settled.reason, settled.detail))
    return True
