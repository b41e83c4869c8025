"""The whole of a simulation: services, stores, people, what happens to them, and the checker's verdict."""

import hashlib
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from chappe.client.destination import Destination
from chappe.client.outgoing import Kind
from chappe.testing import Limits, Line, Report, check_lines
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.adapters.trace_store_memory import MemoryTraceStore
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from tests.mutations.directory import Directory
from tests.simulation import house
from tests.simulation.calls import Exchange
from tests.simulation.clocks import Lots, ProcessClock
from tests.simulation.house import Grounds, Service, Stores
from tests.simulation.loop import EPOCH_MS, VirtualLoop, virtual_loop
from tests.simulation.network import Network
from tests.simulation.people import Handset, Words
from tests.simulation.plan import LOAD_S, Event, Plan
from tests.simulation.replicas import Replicas
from tests.simulation.sockets import Sockets
from tests.simulation.stores import CALM, TYPICAL_S, Host, Remote, Weather

HEARTBEAT_S = 0.5
LOOKS_S = (5.0, 9.0, 15.0, 25.0, 45.0, 85.0, 170.0)
"""After so long without trouble the checker is asked whether everything has arrived; the last answer counts."""

STORMS = (
    Weather(slow=0.3, slow_s=6.0),
    Weather(slow=0.5, slow_s=14.0, lost=0.1),
    Weather(lost=0.3, torn=0.3),
    Weather(slow=0.2, slow_s=8.0, lost=0.3, torn=0.5, doubled=0.3),
    Weather(slow=0.05, slow_s=3.0, lost=0.05, torn=0.2, doubled=0.5),
    Weather(slow=0.1, slow_s=3.0, lost=0.5, torn=0.9, doubled=0.1),
)


class Outcome(NamedTuple):
    """What came of a run."""

    plan: Plan
    report: Report
    failures: tuple[str, ...]
    """What went wrong in a process, other than in what people saw."""
    lines: list[Line]
    steps: int
    virtual_s: float

    def __repr__(self) -> str:
        return f"{self.plan!r} ended with {self.report.summary()}, {self.failures}"

    @property
    def trace(self) -> str:
        """The same for every run of a seed."""
        text = json.dumps([self.lines, self.steps, self.failures], separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return self.report.is_silent and not self.failures


class Town:
    """Everything there is in one run."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.lines: list[Line] = []
        seed = f"{plan.seed}"
        self.network = Network(loop, seed, plan.network)
        self.exchange = Exchange(self.network)
        self.sockets = Sockets(self.network)
        self.grounds = Grounds(seed, loop, self.exchange, plan.skew_s)
        true_time = ProcessClock(loop)
        self.ledger = Host("ledger", loop, seed, plan.ledger_s)
        self.registry = Host("registry", loop, seed)
        self.routes = MemoryPresenceStore(true_time)
        self.stores = house.in_cassandra(Replicas(self.ledger)) if plan.is_replicated else self._in_memory(true_time)
        self.directory = Directory(true_time, Lots(f"{seed} directory"), HEARTBEAT_S)
        self._raise_services(true_time)
        self.handsets: list[Handset] = []
        self.users: list[bytes] = []
        self.groups: list[bytes] = []
        self.members: dict[bytes, list[bytes]] = {}
        self.versions: dict[bytes, int] = {}
        self.blocks: set[tuple[bytes, bytes]] = set()
        self._populate()

    def _in_memory(self, true_time: ProcessClock) -> Stores:
        book, journal = MemoryMessageStore(true_time), MemoryJournal(true_time)
        parts = (book, MemoryGroupStore(book, journal), journal, MemoryReceiptStore(book), MemoryTraceStore(book))
        return house.in_memory(*(Remote(self.ledger, part) for part in parts))

    def _raise_services(self, true_time: ProcessClock) -> None:
        grounds, replicas = self.grounds, self.plan.replicas
        places: dict[str, list[str]] = {
            name: [f"10.{name}.0.{number}:7000" for number in range(replicas.get(name, 1))]
            for name in ("identity", "presence", "fanout", "message", "edge")
        }
        targets = {name: ",".join(addresses) for name, addresses in places.items()}
        builds = {
            "identity": house.identity(self.directory),
            "presence": house.presence(Remote(self.registry, self.routes), targets["identity"]),
            "fanout": house.fanout(targets["presence"], targets["edge"]),
            "message": house.message(targets["identity"], targets["fanout"]),
            "edge": house.edge(targets["identity"], targets["message"], targets["presence"]),
        }
        for name, addresses in places.items():
            for number, address in enumerate(addresses):
                grounds.add(name, number, address, builds[name])
        self.edges = [service for service in grounds.services if service.name.startswith("edge")]

    def _populate(self) -> None:
        words = Words()
        for number in range(self.plan.users):
            device = self.directory.enrol()
            self.users.append(device.user_id)
            devices = [device]
            if number < self.plan.second_devices:
                devices.append(self.directory.link(device.user_id))
            for one in devices:
                token = self.directory.token(one)
                self.handsets.append(Handset(self.grounds, one, token, self.lines, words))
        if self.plan.has_watchers:
            for handset in self.handsets:
                handset.watched = [user for user in self.users if user != handset.device.user_id]
        for _ in range(self.plan.groups):
            members = self.users[: max(2, len(self.users) - 1)]
            group_id = self.directory.found(*members)
            self.groups.append(group_id)
            self.members[group_id] = list(members)
            self.versions[group_id] = 1
            self._note_members("join", group_id, members)

    async def live(self) -> Report:
        """Lets everything happen and returns what the checker says in the end."""
        for service in self.grounds.services:
            service.start()
        for handset in self.handsets:
            self._switch_on(handset)
        for event in self.plan.events:
            self.loop.call_at(event.at_s, self._happen, event, context=self.loop.world.context)
        sleep = ProcessClock(self.loop).sleep
        await sleep(LOAD_S + 0.5)
        self._mend()
        report = await self._settle(sleep)
        if self.plan.is_long and self.ledger.busy_until_s > self.loop.time():
            await sleep(self.ledger.busy_until_s - self.loop.time())
            report = await self._settle(sleep)
        return report

    async def _settle(self, sleep: Callable[[float], Awaitable[None]]) -> Report:
        """Returns what the checker says once it has nothing to say any more, or after a while."""
        report, before_s = None, 0.0
        for look_s in LOOKS_S:
            await sleep(look_s - before_s)
            before_s = look_s
            report = self._judge()
            if report.is_silent and not self._unfinished():
                break
        assert report is not None
        return report

    def failures(self) -> list[str]:
        """Returns what went wrong in processes."""
        for service in self.grounds.services:
            service.look()
        found = [failure for service in self.grounds.services for failure in service.failures]
        found += [failure for handset in self.handsets for failure in handset.failures]
        return found + self._unfinished() + self.loop.failures

    def _unfinished(self) -> list[str]:
        """Says who waits for an answer, and sees too few: once everything is mended nobody does for long."""
        waiting = [one for one in self.handsets if one.unanswered]
        found = [f"{one.name} has no answer to {one.unanswered} of its changes" for one in waiting]
        blind = [one for one in self.handsets if one.unseen and self.plan.is_long]
        return found + [f"{one.name} does not see {one.unseen} of those who are there" for one in blind]

    def _mend(self) -> None:
        self.network.heal()
        for host in (self.ledger, self.registry):
            host.weather, host.down_until_s, host.typical_s = CALM, 0.0, TYPICAL_S
            host.freeze(0.0, is_for_reads_too=True)
        for service in self.grounds.services:
            service.clock.skew_s = 0.0
            service.process.steps_left = 0
            if service.is_leaving:
                service.kill()
            service.start()
        for handset in self.handsets:
            if handset.is_leaving:
                handset.crash()
            self._switch_on(handset)

    def _judge(self) -> Report:
        end: Any = {
            "t": EPOCH_MS + self.loop.time() * 1000,
            "actor": self.handsets[0].name,
            "op": "end",
            "learns": False,
            # Who reads while its line of the chat list is not there yet moves nothing, so that others are told nothing.
            "reads": not self.ledger.has_torn,
        }
        return check_lines([*self.lines, end], Limits(stories=3))

    def _switch_on(self, handset: Handset, first: int = 0) -> None:
        addresses = [f"ws://{edge.address.replace(':7000', ':8000')}" for edge in self.edges]
        first += self.handsets.index(handset)
        handset.switch_on(addresses[first % len(addresses) :] + addresses[: first % len(addresses)])

    def _happen(self, event: Event) -> None:
        deed: Callable[[Event], None] = getattr(self, f"_{event.what}")
        deed(event)

    # What people do.

    def _say(self, event: Event) -> None:
        handset = self._handset(event)
        peers = [user for user in self.users if user != handset.device.user_id]
        handset.do(handset.say, Destination(b"", peers[event.whom % len(peers)]))

    def _burst(self, event: Event) -> None:
        for _ in range(5):
            self._say(event)

    def _say_in_group(self, event: Event) -> None:
        handset = self._handset(event)
        if self.groups:
            group_id = self.groups[event.whom % len(self.groups)]
            handset.do(handset.say, Destination(group_id), self.versions[group_id])

    def _read(self, event: Event) -> None:
        handset, chat = self._handset(event), self._chat(event)
        if chat is not None:
            handset.do(handset.mark_read, chat)

    def _edit(self, event: Event) -> None:
        self._alter("edit", event, is_own=True)

    def _revoke(self, event: Event) -> None:
        self._alter("revoke", event, is_own=True)

    def _react(self, event: Event) -> None:
        self._alter("reaction", event, is_own=False)

    def _alter(self, kind: Kind, event: Event, *, is_own: bool) -> None:
        handset, chat = self._handset(event), self._chat(event)
        if chat is None:
            return
        known = (handset.mine if is_own else handset.seen).get(handset.conversation(chat), [])
        if known:
            handset.do(handset.alter, kind, chat, known[event.whom % len(known)])

    def _leave_home(self, event: Event) -> None:
        handset = self._handset(event)
        handset.hang_up()
        self._later(event.amount + 1, self._switch_on, handset)

    def _crash_device(self, event: Event) -> None:
        handset = self._handset(event)
        handset.crash()
        self._later(event.amount, self._switch_on, handset, event.whom)

    def _move(self, event: Event) -> None:
        handset = self._handset(event)
        handset.hang_up()
        self._later(1.0, self._switch_on, handset, 1)

    def _block(self, event: Event) -> None:
        handset = self._handset(event)
        blocker, blocked = handset.device.user_id, self.users[event.whom % len(self.users)]
        if blocker != blocked and (blocker, blocked) not in self.blocks:
            self.blocks.add((blocker, blocked))
            self.directory.block(blocker, blocked)
            handset.pen.note("block", whom=blocked.hex())

    def _unblock(self, event: Event) -> None:
        if self.blocks:
            pairs = sorted(self.blocks)
            blocker, blocked = pairs[event.whom % len(pairs)]
            self.blocks.remove((blocker, blocked))
            self.directory.unblock(blocker, blocked)
            self._pen_of(blocker).note("unblock", whom=blocked.hex())

    def _join(self, event: Event) -> None:
        if self.groups:
            group_id = self.groups[event.who % len(self.groups)]
            user_id = self.users[event.whom % len(self.users)]
            if user_id not in self.members[group_id]:
                self.members[group_id].append(user_id)
                self.versions[group_id] = self.directory.add(group_id, user_id)
                self._note_members("join", group_id, [user_id])

    def _part(self, event: Event) -> None:
        if self.groups:
            group_id = self.groups[event.who % len(self.groups)]
            user_id = self.users[event.whom % len(self.users)]
            if user_id in self.members[group_id][1:]:
                self.members[group_id].remove(user_id)
                self.versions[group_id] = self.directory.remove(group_id, user_id)
                self._note_members("leave", group_id, [user_id])

    # What goes wrong.

    def _kill(self, event: Event) -> None:
        service = self._service(event)
        service.kill()
        self._later(event.amount, service.start)

    def _kill_at_step(self, event: Event) -> None:
        service = self._service(event)
        service.process.steps_left = int(event.amount)
        self._later(event.whom % 8 + 1.0, service.start)

    def _drain(self, event: Event) -> None:
        service = self._service(event)
        service.drain()
        self._later(event.amount + house.DRAIN_S, service.start)

    def _pause(self, event: Event) -> None:
        self.loop.pause(self._service(event).process, event.amount)

    def _pause_device(self, event: Event) -> None:
        self.loop.pause(self._handset(event).process, event.amount)

    def _step_clock(self, event: Event) -> None:
        clock = self._service(event).clock
        clock.skew_s += event.amount
        self._later(event.whom % 20, self._set_right, clock, event.amount)

    def _set_right(self, clock: ProcessClock, amount: float) -> None:
        clock.skew_s -= amount

    def _storm(self, event: Event) -> None:
        self.ledger.weather = STORMS[event.whom % len(STORMS)]
        self._later(event.amount, self._calm)

    def _calm(self) -> None:
        self.ledger.weather = CALM

    def _freeze_writes(self, event: Event) -> None:
        self.ledger.freeze(event.amount, is_for_reads_too=False)

    def _freeze(self, event: Event) -> None:
        self.ledger.freeze(event.amount, is_for_reads_too=True)

    def _ledger_down(self, event: Event) -> None:
        self.ledger.down_until_s = self.loop.time() + event.amount

    def _registry_down(self, event: Event) -> None:
        self.registry.down_until_s = self.loop.time() + event.amount

    def _flush_registry(self, event: Event) -> None:
        self.routes.forget_all()

    def _reset(self, event: Event) -> None:
        one, other = self._pair(event)
        self.network.reset(one, other)

    def _block_link(self, event: Event) -> None:
        one, other = self._pair(event)
        self.network.block(one, other, event.amount)

    # Whom it concerns.

    def _handset(self, event: Event) -> Handset:
        return self.handsets[event.who % len(self.handsets)]

    def _service(self, event: Event) -> Service:
        return self.grounds.services[event.who % len(self.grounds.services)]

    def _pair(self, event: Event) -> tuple[str, str]:
        names = [one.name for one in self.grounds.services] + [one.name for one in self.handsets]
        return self._service(event).name, names[event.whom % len(names)]

    def _chat(self, event: Event) -> Destination | None:
        handset = self._handset(event)
        chats = [Destination(b"", user) for user in self.users if user != handset.device.user_id]
        chats += [Destination(group_id) for group_id in self.groups]
        known = [chat for chat in chats if handset.seen.get(handset.conversation(chat))]
        return known[event.whom % len(known)] if known else None

    def _pen_of(self, user_id: bytes) -> Any:
        return next(one.pen for one in self.handsets if one.device.user_id == user_id)

    def _note_members(self, op: str, group_id: bytes, members: list[bytes]) -> None:
        names = [member.hex() for member in members]
        version = self.versions[group_id]
        self._pen_of(self.users[0]).note(op, conv=group_id.hex(), members=names, version=version)

    def _later(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        """Does something later, unless everything is mended by then."""
        self.loop.call_later(delay_s, self._unless_mended, act, args, context=self.loop.world.context)

    def _unless_mended(self, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.network.is_healed:
            act(*args)


def run(plan: Plan) -> Outcome:
    """Carries out a plan."""
    logging.disable(logging.CRITICAL)
    try:
        with virtual_loop() as loop:
            return loop.world.context.copy().run(_run, plan, loop)
    finally:
        logging.disable(logging.NOTSET)


def _run(plan: Plan, loop: VirtualLoop) -> Outcome:
    town = Town(plan, loop)
    loop.kept.append(town)
    crashes: list[str] = []
    with house.rebuilt(town.exchange, town.sockets, town.stores):
        try:
            report = loop.run_until_complete(town.live())
        except Exception as error:  # noqa: BLE001 - a fault of the simulation is an outcome as well, with its seed
            crashes.append("".join(traceback.format_exception(error)))
            report = check_lines(town.lines)
        failures = tuple(crashes + town.failures())
    return Outcome(plan, report, failures, town.lines, loop.steps, loop.time())
