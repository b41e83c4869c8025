"""Where a scene is played: all services, their stores, some people, and the checker's verdict at the end."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from chappe.cli.launcher.environment import issue_certificates
from chappe.runtime import migrations
from chappe.runtime.engines import EmbeddedPostgres, EmbeddedValkey, databases
from chappe.testing import Report, check
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_postgres import SCHEMA, PostgresMessageStore
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.adapters.presence_store_redis import RedisPresenceStore
from svc_presence.ports import PresenceStore
from tests.mutations.circle import Circle
from tests.mutations.directory import Directory
from tests.mutations.faults import (
    Book,
    GatedGroupStore,
    GatedMessageStore,
    GatedPresenceStore,
    Journal,
    LeapClock,
    NotInTimeError,
    Receipts,
    until,
)
from tests.mutations.house import (
    GroupParts,
    LedgerParts,
    Service,
    alive,
    build_edge,
    build_fanout,
    build_identity,
    build_presence,
)
from tests.mutations.phone import Cupboard, Phone
from tests.system.books import Books

SETTLE_S = 8.0
OLD_S = 17.5
"""A session is verified for the first time 12 to 15 s after it began, and routes are remembered for 10 s."""
STEP_S = 2.5
BREATH_S = 0.1
"""After a step of the clock the services get so much real time, in which a client answers a ping."""
CONNECTED_S = 60.0
"""Whoever is connected has everything within this time."""


class FailedServiceError(AssertionError):
    """A service of a scene would have stopped itself; the message says which."""


class Engines(NamedTuple):
    """Which stores are real."""

    postgres: bool = False
    valkey: bool = False


class Stage:
    """Five services, two of them edges, and their stores; `play` sets it up."""

    def __init__(self, folder: Path, clock: LeapClock, store: Book, routes: PresenceStore) -> None:
        self.clock = clock
        self.store = GatedMessageStore(store, clock)
        self.routes = GatedPresenceStore(routes)
        self.directory = Directory(clock)
        self.books = Books()
        self.phones: list[Phone] = []
        self._histories = folder / "histories"
        self._histories.mkdir()
        service = partial(Service, pki=folder / "pki", clock=clock)
        self.identity, self.presence, self.fanout = service("identity"), service("presence"), service("fanout")
        self.message = service("message")
        self.edges = [service("edge"), service("edge")]
        # On the real store no scene has groups: theirs is a book of its own.
        book = store if isinstance(store, MemoryMessageStore) else MemoryMessageStore(clock)
        journal = Journal(clock)
        self.groups = GatedGroupStore(book, journal)
        groups = GroupParts(journal, self.groups, Receipts(book))
        self.ledger = LedgerParts(self.store, groups, self.identity, self.fanout)
        self.has_ticks = True
        """Whether the scene is about ticks as well; those of groups are told when there is time."""

    @property
    def services(self) -> list[Service]:
        """Every process."""
        return [self.identity, self.presence, self.fanout, self.message, *self.edges]

    @property
    def edge(self) -> Service:
        """The edge of most people."""
        return self.edges[0]

    async def open(self) -> None:
        """Starts all services; addresses are known before anybody dials."""
        for service in self.services:
            await service.bind()
        await self.identity.open(partial(build_identity, directory=self.directory))
        await self.presence.open(partial(build_presence, store=self.routes))
        await self.fanout.open(partial(build_fanout, presence=self.presence, edges=self.edges))
        await self.message.open(self.ledger.build)
        for edge in self.edges:
            build = partial(build_edge, identity=self.identity, message=self.message, presence=self.presence)
            await edge.open(build)
        await until(lambda: self.ledger.hints.is_connected, "svc_message reaches svc_fanout")

    def phone(self, name: str) -> Phone:
        """Gives somebody a phone, switched off."""
        phone = Phone(name, Cupboard(self._histories, self.clock), self.directory, self.books)
        self.phones.append(phone)
        return phone

    async def people(self, *names: str) -> list[Phone]:
        """Gives people phones, and connects them to the first edge."""
        phones = [self.phone(name) for name in names]
        for phone in phones:
            await phone.connect(self.edge)
        return phones

    def circle(self, *phones: Phone) -> Circle:
        """Makes a group of people; the first owns it, and writes down who comes and goes."""
        return Circle(self.directory, *phones)

    async def greet(self, one: Phone, other: Phone) -> None:
        """Lets one person write to another and waits for both ticks: everything is warm then, and really works."""
        await one.send_and_wait(other)
        await until(self.is_settled, f"what {one.name} wrote has arrived with its tick")

    async def pass_s(self, seconds: float = CONNECTED_S) -> None:
        """Lets the services' time pass, in steps, until all that was acknowledged has arrived or the time is up."""
        steps = int(seconds / STEP_S)
        for _ in range(steps):
            if self.is_settled():
                return
            self.clock.leap(STEP_S)
            await asyncio.sleep(BREATH_S)

    async def grow_old(self) -> None:
        """Lets so much time pass that every session has had its first verification and no route is remembered.

        Both would make good what a scene is about, for a while.
        """
        await self.live(OLD_S)

    async def live(self, seconds: float) -> None:
        """Lets the services' time pass, in steps, whatever happens."""
        for _ in range(int(seconds / STEP_S)):
            self.clock.leap(STEP_S)
            await asyncio.sleep(BREATH_S)

    def is_settled(self) -> bool:
        """Tells whether all that was acknowledged has arrived with its ticks."""
        return self.books.is_settled(self._absent())

    async def judge(self) -> Report:
        """Waits a little for what is on its way, and asks the checker."""
        with contextlib.suppress(NotInTimeError):
            await until(self.is_settled, "all is settled", SETTLE_S)
        for service in self.services:
            if service.app.exit_code:
                raise FailedServiceError(f"svc_{service.app.service} failed by itself; what is logged above says why")
        self.phones[0].history.note("end", absent=sorted(self._absent()), ticks=self.has_ticks, learns=False)
        return check(sorted(self._histories.glob("*.jsonl")))

    async def close(self) -> None:
        """Switches all phones off."""
        for phone in self.phones:
            while phone.clients:
                await phone.hang_up()
            phone.history.close()

    def _absent(self) -> frozenset[str]:
        return frozenset(phone.actor for phone in self.phones if not phone.clients)


Scene = Callable[[Stage], Awaitable[None]]


async def play(scene: Scene, engines: Engines, folder: Path) -> Report:
    """Plays a scene on services of its own, and returns what the checker says of it."""
    issue_certificates(folder / "pki")
    clock = LeapClock()
    async with _message_store(engines, folder, clock) as store, _presence_store(engines, folder, clock) as routes:
        stage = Stage(folder, clock, store, routes)
        async with alive(stage.services):
            await stage.open()
            try:
                await scene(stage)
                return await stage.judge()
            finally:
                await stage.close()


@contextlib.asynccontextmanager
async def _message_store(engines: Engines, folder: Path, clock: LeapClock) -> AsyncGenerator[Book]:
    if not engines.postgres:
        yield MemoryMessageStore(clock)
        return
    async with EmbeddedPostgres(folder / "postgres") as engine:
        dsn = (await databases(engine.dsn, ["svc_message"]))["svc_message"]
        await migrations.migrate(dsn, SCHEMA)
        async with contextlib.aclosing(PostgresMessageStore(dsn)) as store:
            yield store


@contextlib.asynccontextmanager
async def _presence_store(engines: Engines, folder: Path, clock: LeapClock) -> AsyncGenerator[PresenceStore]:
    if not engines.valkey:
        yield MemoryPresenceStore(clock)
        return
    async with (
        EmbeddedValkey(folder / "valkey") as engine,
        contextlib.aclosing(RedisPresenceStore(engine.url)) as store,
    ):
        yield store
