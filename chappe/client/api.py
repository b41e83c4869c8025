"""The client for people: connect, send, listen.

async with chappe.client.connect("ws://127.0.0.1:7000", profile="alice") as me:
    await me.send("+441632960002", "hello")
    async for event in me.events():
        print(event)
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.client.account import Account
from chappe.client.acts import Acts
from chappe.client.addressing import Addressing, Named
from chappe.client.content import Said
from chappe.client.frames import read_action
from chappe.client.group_views import GroupChanged
from chappe.client.groups import Groups
from chappe.client.host import Host
from chappe.client.keeping import Keeping
from chappe.client.known_groups import KnownGroups
from chappe.client.methods import LIST_CONVERSATIONS, LIST_MESSAGES, Answer, Method, Question
from chappe.client.parts import ClientParts
from chappe.client.people import Calling, People
from chappe.client.presence import Presences
from chappe.client.receipts import Receipts
from chappe.client.remembered_groups import RememberedGroups
from chappe.client.showing import from_conversation, from_local, from_page, from_store
from chappe.client.views import Chat, Event, Message, Page, Receipt

_MOST_UNREAD = 100
_LOOK_S = 0.02


def connect(address: str | Sequence[str] = "", *, profile: str | Path, parts: ClientParts | None = None) -> "Client":
    """Returns a client of a profile, to be entered with `async with`.

    Args:
        address: Of one edge or several, with commas or as a list; empty for those that the profile was made with.
        profile: The name of a profile, or the path of its folder.
        parts: What the client is made of.
    """
    return Client(address, profile, parts or ClientParts())


class Client(Acts, Keeping):
    """One device of one person, connected for as long as the block lasts."""

    def __init__(self, address: str | Sequence[str], profile: str | Path, parts: ClientParts) -> None:
        self._host = Host(address, profile, parts)
        self.people: People
        """The address book; there once the client is entered."""
        self.groups: Groups
        """The groups of the user; there once the client is entered."""
        self.account: Account
        """The own account; there once the client is entered."""
        self.presence: Presences
        """Who is there and who is typing; there once the client is entered."""
        self.user_id = b""
        """Who this is."""

    async def send(
        self, chat: Named, text: str, *, expiry_s: int | None = None, timeout_s: float | None = None
    ) -> Message:
        """Sends a message and waits until it is durable on the server: one tick.

        Args:
            chat: A person by phone number, contact name or user id; a group by name, id or the beginning of its id.
            text: What to say.
            expiry_s: After how many seconds the message disappears, 0 for never; None follows the timer of the chat.
            timeout_s: How long to wait; None waits for ever, through reconnects.

        Returns:
            The message with its id.

        Raises:
            UnknownPersonError: Nobody and no group is meant.
            UnknownGroupError: More than one group is meant.
            RefusedError: The message was refused for good.
            WaitsInOutboxError: The time is over; the message is in the outbox and is sent with the next session.
            NotConnectedError: Who is meant is not known on this device and cannot be asked for, or nothing has the
                message.
            SessionEndedError: An edge does not want this device any more.
        """
        return await self.say(await self.destination(chat), Said(text), expiry_s=expiry_s, timeout_s=timeout_s)

    async def mark_read(self, chat: Named, upto: bytes = b"", *, timeout_s: float | None = None) -> None:
        """Tells whoever wrote in a chat that it was read.

        Args:
            chat: The last message that was read, or the chat, named as in `send`.
            upto: With a chat, the id of the last message that was read; empty for the newest on this device.
            timeout_s: How long to wait; None waits for ever. It is told in any case, with the next session.
        """
        where = await self.destination(chat)
        if isinstance(chat, Message):
            upto = chat.message_id
        if not upto:
            newest = await self._host.in_store(self._host.store.messages, where.conversation_id, b"", 1)
            if not newest:
                return
            upto = newest[0].message_id
        await self._host.submit("read", where, read_action(where, upto), timeout_s)

    async def events(self) -> AsyncGenerator[Event]:
        """Yields what happens, each message once; first those that came while nobody listened. For one reader.

        One counts as had once the next is asked for or the loop is left. Whoever may be cancelled while showing one, as
        by a timeout, and would see it again, closes the events itself: `async with aclosing(me.events()) as events`.

        Raises:
            SessionEndedError: An edge does not want this device any more.
            StoreError: The local store failed.
        """
        async with aclosing(self._host.feed.events()) as events:
            async for event in events:
                yield event

    async def history(self, chat: Named, *, limit: int = 50, page: str = "") -> Page:
        """Returns a page of a chat from the server, newest first; `page` is the `next_page` of the one before."""
        where = await self.destination(chat)
        request = history_service_pb2.ListMessagesRequest(
            peer_user_id=where.peer_id, group_id=where.group_id, page_size=limit, page_token=page
        )
        answer = await self.call(LIST_MESSAGES, request)
        messages = [from_page(stored, self.user_id) for stored in answer.messages]
        return Page(messages=await self._receipts.counted(messages), next_page=answer.next_page_token)

    async def stored_history(self, chat: Named, *, limit: int = 50, before: bytes = b"") -> list[Message]:
        """Returns messages of a chat from the local store, newest first."""
        where = await self.destination(chat)
        now_ms = await self._host.expire()
        stored = await self._host.in_store(self._host.store.messages, where.conversation_id, before, limit)
        return [from_store(message, self.user_id) for message in stored if not message.is_past(now_ms)]

    async def notices(self, chat: Named, *, since_ms: int = 0) -> list[GroupChanged]:
        """Returns what happened to a group, as far as this device was told; none for a chat with a person.

        Args:
            chat: Named as in `send`.
            since_ms: Only what happened at this time or later.

        Returns:
            The newest 1,000, the oldest of them first.
        """
        where = await self.destination(chat)
        return await self._remembered.notices(where.group_id, since_ms) if where.group_id else []

    async def chats(self, *, limit: int = 50, is_archived: bool = False) -> list[Chat]:
        """Returns the newest chats from the server, the pinned first, then the one with the newest message.

        Args:
            limit: How many at most.
            is_archived: Returns those that are archived, which are not among the others.
        """
        chats = [from_conversation(chat, self.user_id) for chat in await _listed(self, limit, is_archived=is_archived)]
        last = [chat.last_message for chat in chats if chat.last_message is not None]
        counted = {message.message_id: message for message in await self._receipts.counted(last)}
        return [
            replace(
                chat,
                last_message=chat.last_message and counted[chat.last_message.message_id],
                is_past=bool(chat.group_id) and await self._remembered.is_past(chat.group_id),
            )
            for chat in chats
        ]

    async def stored_chats(self, *, limit: int = 50, is_archived: bool = False) -> list[Chat]:
        """Returns the newest chats from the local store, in the order of `chats`; counts at most 100 unread."""
        now_ms = await self._host.expire()
        store, found = self._host.store, list[Chat]()
        for kept in await self._host.in_store(store.chats):
            if bool(kept.is_archived) is is_archived and len(found) < limit:
                newest = await self._host.in_store(store.messages, kept.conversation_id, b"", _MOST_UNREAD)
                newest = [message for message in newest if not message.is_past(now_ms)]
                is_past = not kept.peer_id and await self._remembered.is_past(kept.conversation_id)
                found.append(replace(from_local(kept, newest, self.user_id), is_past=is_past))
        return found

    async def drained(self, timeout_s: float) -> bool:
        """Waits until nothing in the outbox is unanswered, as long as there is a session; tells whether that is so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for _ in itertools.count():
                    if not await self._host.in_store(self._host.store.answers.are_missing):
                        return True
                    if not await self._host.is_reachable():
                        break
                    await asyncio.sleep(_LOOK_S)
        return False

    async def receipts(self, message: Message) -> list[Receipt]:
        """Returns who has an own message and who read it, the readers first.

        Raises:
            RefusedError: It is not an own message.
        """
        return await self._receipts.of(message)

    async def title(self, chat: Named) -> str:
        """Returns what a chat is called: the name of the person or of the group."""
        where = await self.destination(chat)
        if where.group_id:
            return await self._known_groups.name_of(where.group_id)
        return await self.people.name_of(where.peer_id)

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Calls a method of a service over the edge's bridge.

        Waits for a session; a call that may be repeated is, when its session ended before the answer came.

        Raises:
            RefusedError: The service said no.
            NotConnectedError: There is no session, or no answer came.
            SessionEndedError: An edge does not want this device any more.
        """
        return await self._host.call(method, question)

    async def __aenter__(self) -> Self:
        await self._host.start()
        self.user_id = self._host.user_id
        host = self._host
        known = await host.in_store(host.store.people)
        self.people = People(self, host.store, host.in_store, known, host.renamed)
        self._known_groups = KnownGroups(self, host.store.groups, host.in_store)
        self._remembered = RememberedGroups(host.store.groups, host.in_store)
        self._addressing = Addressing(
            self.people, self._known_groups, self._remembered, self.user_id, host.is_reachable
        )
        self.groups = Groups(self, self.people, self._known_groups, host.randomness)
        self.account = Account(self, self.people)
        self._receipts = Receipts(self)
        self.presence = Presences(self, self.people, self._addressing, host.wishes, host.sleep)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._host.stop()


async def _listed(calling: Calling, limit: int, *, is_archived: bool) -> list[conversation_service_pb2.Conversation]:
    """Returns so many lines of the chat list, window by window: one is shorter than asked for, if they are large."""
    found: dict[bytes, conversation_service_pb2.Conversation] = {}
    token = ""
    while len(found) < limit:
        request = conversation_service_pb2.ListConversationsRequest(
            page_size=limit - len(found), page_token=token, is_archived=is_archived
        )
        answer = await calling.call(LIST_CONVERSATIONS, request)
        for chat in answer.conversations:
            # One that has moved down meanwhile comes again.
            found.setdefault(chat.conversation_id, chat)
        token = answer.next_page_token
        if not token:
            break
    return list(found.values())
