"""A crowd of real clients that talk to each other, and the verdict of the history checker on what came of it."""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from chappe.api.identity.v1 import device_service_pb2
from chappe.cli.launcher import Mesh
from chappe.client.destination import Destination
from chappe.client.device import Device
from chappe.client.door import Door
from chappe.client.lean import LeanClient
from chappe.client.methods import START_LINK
from chappe.client.registration import enrol, join
from chappe.client.seams import system_seams
from chappe.testing import Report, check
from tests.system.books import Books, Due
from tests.system.circle import Circle
from tests.system.handset import Handset, Said
from tests.system.townspeople import settle

BEAT_S: Final = 0.02
LOOK_S: Final = 0.02
READS: Final = 0.4
"""How often somebody reads a chat for each message that is sent."""
REACTIONS: Final = 0.5
"""Of the changes; and so many are edits, the rest is taken back."""
EDITS: Final = 0.4
MOST_PENDING: Final = 100
"""A device with so many unanswered sends composes no more for now."""
LONGEST_STAY_S: Final = 3.0
"""Half of the stays are shorter than a change may take to bite, and some longer."""
LOOK_AGAIN_S: Final = 6.0
SHY: Final = 5
"""One in so many users lets nobody see whether it is there, where people watch each other."""
QUIET_S: Final = 60.0
"""When nothing has come of anything for so long, nothing will: a slow machine is no loss."""
COUNT_S: Final = 90.0
"""A lost count is told within a minute after the last time that something was told, and then it is asked for."""

_numbers = itertools.count(1)


class NotInTimeError(AssertionError):
    """A condition did not come true before its deadline; the message says which."""


async def until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Waits until a condition holds.

    Raises:
        NotInTimeError: It does not in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise NotInTimeError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(LOOK_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrowdTerms:
    """How large a crowd is and how fast it talks."""

    devices: Sequence[int] = (2, 1, 2, 1)
    """How many devices each user has."""
    rate: float = 80.0
    """Messages each second, all devices together."""
    group_share: float = 0.0
    """Which part of them goes to groups, once there are some."""
    change_share: float = 0.05
    """How many messages are edited, reacted to or taken back for each that is sent."""
    seed: int = 1
    """For who writes to whom."""
    looks: bool = True
    """Whether in the end everybody looks at its chats, and need not wait until it is told of a count that was lost."""
    watches: bool = False
    """Whether everybody shows how everybody else is."""


class Crowd:
    """Users with their devices, all connected; an async context manager.

    Devices take turns between the edges: the first begins with the first edge, the next with the second, and each
    goes to its other edge when its own fails it.
    """

    def __init__(self, mesh: Mesh, name: str, terms: CrowdTerms | None = None) -> None:
        """Prepares.

        Args:
            mesh: Where the crowd talks.
            name: Of the scenario, for the folder of the histories.
            terms: Its size and rate.
        """
        self.terms = terms or CrowdTerms()
        self.books = Books()
        self.users: list[list[Handset]] = []
        self.circles: list[Circle] = []
        """The groups; whoever is in one may write to it."""
        self._mesh = mesh
        self._folder = _folder(mesh.plan.data, name)
        self._random = random.Random(self.terms.seed)
        self._sent = 0

    @property
    def handsets(self) -> list[Handset]:
        """Every device."""
        return [handset for user in self.users for handset in user]

    @property
    def pending(self) -> int:
        """How many sends of devices that are on have no answer."""
        return sum(handset.pending for handset in self.handsets)

    def edges_of(self, number: int) -> list[str]:
        """Returns the addresses for a device, its own edge first."""
        edges = self._mesh.ws
        start = number % len(edges)
        return edges[start:] + edges[:start]

    def say(self, handset: Handset, to: int, size: int = 0) -> None:
        """Sends one message of at least so many bytes from a device to a user, by number."""
        peers = frozenset(other.actor for other in self.users[to])
        own = frozenset(other.actor for other in next(user for user in self.users if handset in user))
        self._sent += 1
        due = Due(peers, own - {handset.actor}, own)
        handset.send(self.users[to][0].user_id, due, b"message %d" % self._sent + bytes(size))

    async def circle(self, *numbers: int, townspeople: int = 0) -> Circle:
        """Makes a group of some users, by number, and of people who never connect; the first user owns it."""
        owner = self.users[numbers[0]][0]
        people = [self.users[number][0].user_id for number in numbers[1:]]
        circle = await Circle.create(owner, people + await settle(self._mesh, townspeople))
        self.circles.append(circle)
        return circle

    def tell(self, handset: Handset, circle: Circle, size: int = 0) -> None:
        """Sends one message of at least so many bytes from a device to a group."""
        entitled = circle.entitled(handset.versions[circle.group_id])
        peers = frozenset(other.actor for other in self.handsets if other.user_id in entitled)
        own = frozenset(other.actor for other in self.handsets if other.user_id == handset.user_id)
        self._sent += 1
        due = Due(peers - own, own - {handset.actor}, own, circle.group_id, time.monotonic())
        handset.send_to_group(circle.group_id, due, b"message %d" % self._sent + bytes(size))

    def actors_of(self, user_id: bytes) -> frozenset[str]:
        """Returns all devices of a user."""
        return frozenset(handset.actor for handset in self.handsets if handset.user_id == user_id)

    async def remove(self, circle: Circle, number: int) -> None:
        """Removes a user from a group; what was sent before need not reach it any more."""
        user_id = self.users[number][0].user_id
        self.books.release(circle.group_id, self.actors_of(user_id))
        await circle.remove(user_id)
        # Of what was sent meanwhile, too: while a store stands still that is for as long as it does.
        self.books.release(circle.group_id, self.actors_of(user_id))

    @asynccontextmanager
    async def coming_and_going(self, circle: Circle, *numbers: int) -> AsyncGenerator[None]:
        """Removes some users from a group by turns and adds each again, for as long as the block lasts."""
        is_over = asyncio.Event()
        task = asyncio.create_task(self._come_and_go(circle, numbers, is_over), name="come and go")
        try:
            yield
        finally:
            # Not cancelled: half a change would be one of which nobody knows whether it stands.
            is_over.set()
            await task

    @asynccontextmanager
    async def talking(self) -> AsyncGenerator[None]:
        """Talks at the crowd's rate for as long as the block lasts."""
        task = asyncio.create_task(self._talk(), name="talk")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def acknowledged(self, more: int, timeout_s: float = 30.0) -> None:
        """Waits until so many more messages were acknowledged.

        Raises:
            NotInTimeError: They were not in time.
        """
        goal = self.books.acknowledged + more
        await until(lambda: self.books.acknowledged >= goal, f"{more} more messages acknowledged", timeout_s)

    async def settled(self, within_s: float = 0.0) -> None:
        """Waits until all sends are answered, and all that was acknowledged has arrived; then for its ticks.

        Args:
            within_s: How long what is to arrive may take; 0 for as long as something comes.

        Raises:
            NotInTimeError: It has not in time; the message says what is missing.
        """
        absent = self._absent()
        try:
            if within_s:
                await until(lambda: self._has_arrived(absent), "all has arrived", within_s)
            await self._until_quiet(lambda: self._has_arrived(absent), "all has arrived", QUIET_S)
            if self.terms.looks:
                with suppress(NotInTimeError):
                    await self._until_quiet(lambda: self._is_settled(absent), "all is settled", LOOK_AGAIN_S)
                await asyncio.gather(*(handset.count_again() for handset in self.handsets))
            await self._until_quiet(lambda: self._is_settled(absent), "all is settled", COUNT_S)
        except NotInTimeError as error:
            gaps, ignorant = self.books.outstanding(absent), self._ignorant(absent)
            raise NotInTimeError(f"{error}: {self.pending} sends are unanswered; {ignorant}; {gaps}") from None

    async def verdict(self, within_s: float = 0.0) -> Report:
        """Waits like `settled`, or no longer, and judges the histories."""
        try:
            await self.settled(within_s)
        except NotInTimeError as error:
            # The checker finds what was lost; what it does not call lost is told here only.
            print(error)
        absent = self._absent()
        for handset in self.handsets:
            handset.history.flush()
        self.handsets[0].history.note("end", absent=sorted(absent))
        report = check(sorted(self._folder.glob("*.jsonl")))
        print(f"{self._folder.name}: {report.summary()}")
        if not report.is_silent:
            print(report.stories())
        return report

    async def __aenter__(self) -> Self:
        edges = self._mesh.ws
        try:
            async with Door(edges[0], system_seams()) as door:
                for count in self.terms.devices:
                    await self._enrol(door, count)
            if self.terms.watches:
                await self._look_at_each_other()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(handset.close() for handset in self.handsets))

    async def _until_quiet(self, condition: Callable[[], object], what: str, quiet_s: float) -> None:
        """Waits until a condition holds, or raises once nothing has come of anything for so long."""
        steps, since_s = -1, 0.0
        while not condition():
            now_s = time.monotonic()
            if self.books.steps != steps:
                steps, since_s = self.books.steps, now_s
            elif now_s - since_s > quiet_s:
                raise NotInTimeError(f"for {quiet_s:g} s nothing came any more, and not yet: {what}")
            await asyncio.sleep(LOOK_S)

    def _has_arrived(self, absent: frozenset[str]) -> bool:
        return not self.pending and not self._ignorant(absent) and self.books.has_arrived(absent)

    def _is_settled(self, absent: frozenset[str]) -> bool:
        return not self.pending and not self._ignorant(absent) and self.books.is_settled(absent)

    def _ignorant(self, absent: frozenset[str]) -> list[str]:
        """Returns the devices that have not heard the last of their groups."""
        return [
            f"{handset.actor} knows of version {handset.versions[circle.group_id]} of {circle.version}"
            for circle in self.circles
            for handset in self.handsets
            if handset.actor not in absent and handset.versions[circle.group_id] < circle.news(handset.user_id)
        ]

    def _absent(self) -> frozenset[str]:
        return frozenset(handset.actor for handset in self.handsets if not handset.is_on)

    async def _look_at_each_other(self) -> None:
        for number, (first, *_) in enumerate(self.users, start=1):
            await first.show_itself(is_shy=number % SHY == 0)
        for handset in self.handsets:
            handset.watch(user[0].user_id for user in self.users)

    async def _enrol(self, door: Door, count: int) -> None:
        first = await enrol(door, _phone_number(), f"user {len(self.users)}")
        user: list[Handset] = []
        self.users.append(user)
        await self._add(user, first)
        for _ in range(count - 1):
            client = user[0].client
            assert client is not None
            await self._add(user, await _linked(door, client))

    async def _add(self, user: list[Handset], device: Device) -> None:
        handset = Handset(device, self._folder, self.books)
        addresses = self.edges_of(len(self.handsets))
        user.append(handset)
        async with asyncio.timeout(20):
            await handset.switch_on(addresses)

    async def _talk(self) -> None:
        start_s, composed = time.monotonic(), 0
        while True:
            await asyncio.sleep(BEAT_S)
            owed = int((time.monotonic() - start_s) * self.terms.rate) - composed
            composed += owed
            # After a pause of this process the rate is kept, and what was missed is not made up for at once.
            for _ in range(min(owed, int(self.terms.rate))):
                self._say_something()
                if self._random.random() < self.terms.change_share:
                    self._change_something()
                if self._random.random() < READS:
                    self._random.choice(self.handsets).read_some()

    def _say_something(self) -> None:
        number = self._random.randrange(len(self.users))
        handset = self._random.choice(self.users[number])
        to = self._random.choice([other for other in range(len(self.users)) if other != number])
        if not handset.is_on or handset.pending >= MOST_PENDING:
            return
        circles = [circle for circle in self.circles if handset.user_id in circle.members]
        if circles and self._random.random() < self.terms.group_share:
            self.tell(handset, self._random.choice(circles))
        else:
            self.say(handset, to)

    def _change_something(self) -> None:
        handset = self._random.choice([handset for handset in self.handsets if handset.recent] or self.handsets)
        if not handset.recent:
            return
        said, draw = self._random.choice(handset.recent), self._random.random()
        content = b"change %d" % next(_numbers)
        if draw < REACTIONS:
            self._react(handset, said, content)
        elif self._may_change(handset, said):
            due = self._due_of_change(handset, said)
            if draw < REACTIONS + EDITS:
                handset.edit(said, due, content)
            else:
                handset.take_back(said, due)

    def _react(self, sender: Handset, said: Said, content: bytes) -> None:
        actors = said.due.peers | {sender.actor}
        reactors = [one for one in self.handsets if one.actor in actors and self._may_change(one, said)]
        if not reactors:
            return
        reactor = self._random.choice(reactors)
        chat = said.chat
        if chat.peer_id and reactor.user_id != sender.user_id:
            chat = Destination(chat.conversation_id, sender.user_id)
        # Now and then a reaction is taken away.
        reactor.react(said, chat, self._due_of_change(reactor, said), content if self._random.random() < EDITS else b"")

    def _may_change(self, handset: Handset, said: Said) -> bool:
        circle = self._circle_of(said)
        is_member = circle is None or handset.user_id in circle.members
        knows = any(said.message_id == one.message_id for one in handset.recent) or self.books.has(
            said.message_id, handset.actor
        )
        return handset.is_on and handset.pending < MOST_PENDING and is_member and knows

    def _circle_of(self, said: Said) -> Circle | None:
        return next((one for one in self.circles if one.group_id == said.chat.group_id), None)

    def _due_of_change(self, handset: Handset, said: Said) -> Due:
        """Returns who must learn of a change: whoever must have the message, and is a member still."""
        own, circle = self.actors_of(handset.user_id), self._circle_of(said)
        actors = said.due.peers | said.due.own
        if circle is not None:
            entitled = circle.entitled(handset.versions[circle.group_id])
            actors &= frozenset(one.actor for one in self.handsets if one.user_id in entitled)
        return Due(actors - own, own - {handset.actor}, frozenset(), said.due.group, time.monotonic())

    async def _come_and_go(self, circle: Circle, numbers: Sequence[int], is_over: asyncio.Event) -> None:
        turns = itertools.cycle(numbers)
        while not is_over.is_set():
            number = next(turns)
            await self.remove(circle, number)
            await self._linger(is_over)
            await circle.add(self.users[number][0].user_id)
            await self._linger(is_over)

    async def _linger(self, is_over: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(0, LONGEST_STAY_S)):
                await is_over.wait()


async def _linked(door: Door, client: LeanClient) -> Device:
    started = await client.call(START_LINK, device_service_pb2.StartLinkRequest())
    return await join(door, started.link_code)


def _phone_number() -> str:
    return f"+1202{secrets.randbelow(10_000_000):07d}"


def _folder(data: Path, name: str) -> Path:
    folder = data / "histories" / f"{name}-{next(_numbers)}"
    folder.mkdir(parents=True)
    return folder
