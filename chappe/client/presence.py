"""What a user learns of others and lets them know: who is there, and who is typing."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from chappe.api.presence.v1 import presence_service_pb2
from chappe.api.type.v1 import presence_pb2
from chappe.client.addressing import Addressing, Named
from chappe.client.destination import Destination
from chappe.client.methods import BATCH_GET_PRESENCE, LIST_TYPING
from chappe.client.people import Calling, People
from chappe.client.presence_views import PersonPresence, Presence, Typist, to_typist
from chappe.client.tasks import Tasks
from chappe.client.wishes import Wishes

REPEAT_S = 2.0
"""Typing holds for 5 seconds, so it is said again this often."""

Sleep = Callable[[float], Awaitable[None]]


class Presences:
    """Who is there and who is typing; people and chats are named as everywhere."""

    def __init__(self, calling: Calling, people: People, addressing: Addressing, wishes: Wishes, sleep: Sleep) -> None:
        """Prepares.

        Args:
            calling: Calls the services.
            people: The address book.
            addressing: Finds chats.
            wishes: What this process wants to be told.
            sleep: Waits.
        """
        self._calling = calling
        self._people = people
        self._addressing = addressing
        self._wishes = wishes
        self._sleep = sleep

    async def of(self, *people: str | bytes) -> list[PersonPresence]:
        """Returns how people are now, in order, as far as they let this user see it.

        Raises:
            UnknownPersonError: Nobody is meant.
            RefusedError: More than 500 were asked for.
        """
        user_ids = [await self._people.resolve(person) for person in people]
        request = presence_service_pb2.BatchGetPresenceRequest(user_ids=user_ids)
        answer = await self._calling.call(BATCH_GET_PRESENCE, request)
        return [
            PersonPresence(user_id=one.user_id, presence=Presence.of(one.state), last_seen_ms=one.last_seen_ms)
            for one in answer.presences
        ]

    async def watch(self, *people: str | bytes) -> None:
        """Is told by `PresenceChanged` how people are, and whenever that changes, in this session and those after it.

        At most 500 people; of the others `WatchRefused` tells.
        """
        self._wishes.watch([await self._people.resolve(person) for person in people])

    async def unwatch(self, *people: str | bytes) -> None:
        """Is told of people no more."""
        self._wishes.unwatch([await self._people.resolve(person) for person in people])

    async def look_at(self, *chats: Named) -> None:
        """Is told by `TypingChanged` who is typing in these chats, at most 32 of them, and in no others."""
        self._wishes.look_at([await self._addressing.destination(chat) for chat in chats])

    async def typing_in(self, chat: Named) -> list[Typist]:
        """Returns who is typing in a chat now.

        Raises:
            RefusedError: The user has no part in it.
        """
        where = await self._addressing.destination(chat)
        ref = presence_pb2.ConversationRef()
        if where.group_id:
            ref.group_id = where.group_id
        else:
            ref.peer_user_id = where.peer_id
        answer = await self._calling.call(LIST_TYPING, presence_service_pb2.ListTypingRequest(conversation=ref))
        return [to_typist(one.user_id, one.kind) for one in answer.typists]

    @asynccontextmanager
    async def typing(self, chat: Named, *, is_recording: bool = False) -> AsyncGenerator[None]:
        """Lets the others in a chat see that this user is typing, or recording, for as long as the block lasts."""
        where = await self._addressing.destination(chat)
        kind = presence_pb2.TYPING_KIND_RECORDING if is_recording else presence_pb2.TYPING_KIND_TEXT
        tasks = Tasks()
        tasks.spawn(self._go_on(where, kind), name="typing")
        try:
            yield
        finally:
            await tasks.aclose()
            self._say(where, kind, is_over=True)

    async def _go_on(self, where: Destination, kind: int) -> None:
        while True:
            self._say(where, kind, is_over=False)
            await self._sleep(REPEAT_S)

    def _say(self, where: Destination, kind: int, *, is_over: bool) -> None:
        self._wishes.type(where, kind, is_over=is_over)
