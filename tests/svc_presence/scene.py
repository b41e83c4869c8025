"""A registry without doors: the rules over the store and the directory in memory, a clock that is moved, and edges that
note what they are told."""

import asyncio
from collections.abc import Sequence

from chappe.runtime.errors import UnavailableError
from chappe.runtime.tasks import Tasks
from svc_presence.adapters.directory_memory import MemoryDirectory
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.model import (
    Changes,
    Conversation,
    ConversationId,
    DeviceId,
    Edge,
    GroupId,
    Lasting,
    NewSession,
    Presence,
    Seen,
    Session,
    SessionId,
    Sight,
    Typing,
    TypingKind,
    Typist,
    UserId,
    View,
    Written,
)
from svc_presence.service.answers import Answers
from svc_presence.service.desk import Desk
from svc_presence.service.routes import Routes
from svc_presence.service.typing import TypingRooms
from svc_presence.service.watching import Watching

ALICE, BOB, CAROL, DAVE = (UserId(bytes(15) + bytes([number])) for number in (1, 2, 3, 4))
GROUP = GroupId(b"g" * 16)
IN_GROUP = Conversation(ConversationId(GROUP), GROUP)
DIRECT = Conversation(ConversationId(b"d" * 16), None)
"""The direct conversation of Alice and Bob."""
PARIS = Edge("paris.example:7443", 7)
ONLINE, UNKNOWN, HIDDEN = View(Presence.ONLINE, 0), View(Presence.UNKNOWN, 0), View(Presence.HIDDEN, 0)


def offline(last_seen_ms: int = 0) -> View:
    return View(Presence.OFFLINE, last_seen_ms)


class MovedClock:
    """A clock that a test moves; wall and monotonic time go together."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        raise NotImplementedError


class FragileStore(MemoryPresenceStore):
    """A store that can be told not to answer, to wait, or to fail by a bug."""

    def __init__(self, clock: MovedClock) -> None:
        super().__init__(clock)
        self.is_down = False
        self.has_bug = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reads: list[int] = []
        """How many people each question was about."""

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        self._check()
        return await super().write(edge, changes, sent_ms)

    async def read_presence(self, user_ids: Sequence[UserId]) -> list[Seen]:
        self.reads.append(len(user_ids))
        self._check()
        found = await super().read_presence(user_ids)
        await self.may_read.wait()
        return found

    async def write_typing(self, typings: Sequence[Typing]) -> None:
        self._check()
        await super().write_typing(typings)

    async def read_typing(self, conversation_ids: Sequence[ConversationId]) -> list[list[Lasting]]:
        self._check()
        return await super().read_typing(conversation_ids)

    def _check(self) -> None:
        if self.has_bug:
            raise ZeroDivisionError("a bug of the test")
        if self.is_down:
            raise UnavailableError("redis", "stopped by the test")


class Screen:
    """An edge's feed: notes everything that it is told."""

    def __init__(self) -> None:
        self.views: dict[int, list[View]] = {}
        self.typing: dict[int, list[list[UserId]]] = {}

    def tell_presence(self, number: int, view: View) -> None:
        self.views.setdefault(number, []).append(view)

    def tell_typing(self, number: int, typists: tuple[Typist, ...]) -> None:
        self.typing.setdefault(number, []).append([typist.user_id for typist in typists])


class ToldDirectory(MemoryDirectory):
    """A directory whose changes a test makes, and which tells of them as svc_identity does."""

    def allow(self, viewer_id: UserId, target_id: UserId, sight: Sight) -> None:
        """Lets a viewer see so much of a person, as a change of the person."""
        self.allowed[viewer_id, target_id] = sight
        self.listener.user_changed(target_id)

    def block(self, one: UserId, other: UserId) -> None:
        """Lets one person block another, who then sees nothing of it and shows it nothing."""
        self.apart.add(frozenset((one, other)))
        self.allowed[one, other] = self.allowed[other, one] = Sight.NOTHING
        self.listener.user_changed(one)

    def unblock(self, one: UserId, other: UserId) -> None:
        """Ends that; what may be seen is to be allowed anew."""
        self.apart.discard(frozenset((one, other)))
        self.listener.user_changed(one)

    def join(self, group_id: GroupId, *user_ids: UserId) -> None:
        """Makes users members of a group."""
        self.members.update((group_id, user_id) for user_id in user_ids)
        self.listener.group_changed(group_id)

    def leave(self, group_id: GroupId, user_id: UserId) -> None:
        """Ends a membership."""
        self.members.discard((group_id, user_id))
        self.listener.group_changed(group_id)

    def stop(self) -> None:
        """Stops answering."""
        self.is_fresh = False

    def start(self) -> None:
        """Answers again; changes may have been missed."""
        self.is_fresh = True
        self.listener.everything_changed()


class Scene:
    """One replica."""

    def __init__(self, tasks: Tasks, clock: MovedClock | None = None, store: FragileStore | None = None) -> None:
        self.clock = clock or MovedClock()
        self.store = store or FragileStore(self.clock)
        self.directory = ToldDirectory()
        watching = Watching(self.store, self.directory, clock=self.clock, tasks=tasks)
        rooms = TypingRooms(self.store, self.directory, clock=self.clock, tasks=tasks)
        self.desk = Desk(Routes(self.store), watching, rooms)
        self.answers = Answers(self.store, self.directory)
        self.directory.listener = self.desk

    async def settle(self) -> None:
        """Lets everything that was begun come to its end."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float, step_s: float = 0.25) -> None:
        """Lets time go by."""
        until_ms = self.clock.now_ms + int(seconds * 1000)
        while self.clock.now_ms < until_ms:
            self.clock.now_ms = min(self.clock.now_ms + int(step_s * 1000), until_ms)
            self.desk.tick()
            await self.settle()

    async def watch(self, screen: Screen, number: int, viewer_id: UserId, target_id: UserId) -> None:
        self.desk.watching.watch(screen, number, viewer_id, target_id)
        await self.settle()

    async def open(self, screen: Screen, number: int, viewer_id: UserId, conversation: Conversation = IN_GROUP) -> None:
        self.desk.rooms.open(screen, number, viewer_id, conversation)
        await self.settle()

    async def connect(self, user_id: UserId, number: int = 1, edge: Edge = PARIS) -> None:
        nonce = number.to_bytes(16, "big")
        await self.desk.track(
            edge, Changes([NewSession(session(user_id, number), nonce)], [], []), self.clock.wall_ms()
        )
        await self.settle()

    async def refresh(self, user_id: UserId, number: int = 1, edge: Edge = PARIS) -> None:
        await self.desk.track(edge, Changes([], [session(user_id, number)], []), self.clock.wall_ms())
        await self.settle()

    async def bye(self, user_id: UserId, number: int = 1, edge: Edge = PARIS) -> None:
        await self.desk.track(edge, Changes([], [], [session(user_id, number)]), self.clock.wall_ms())
        await self.settle()

    async def type(
        self,
        user_id: UserId,
        conversation: Conversation = IN_GROUP,
        kind: TypingKind = TypingKind.TEXT,
        *,
        is_over: bool = False,
    ) -> None:
        self.desk.rooms.type([Typing(user_id, conversation, kind, is_over)])
        await self.settle()

    def befriend(self, *user_ids: UserId, sight: Sight = Sight.LAST_SEEN) -> None:
        """Lets everybody see everybody."""
        for viewer_id in user_ids:
            for target_id in user_ids:
                if viewer_id != target_id:
                    self.directory.allow(viewer_id, target_id, sight)


def session(user_id: UserId, number: int) -> Session:
    return Session(user_id, DeviceId(number), SessionId(number))
