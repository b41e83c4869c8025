"""Reads what the log does not hold any more: the groups and the newest pages of every chat, after a Resync.

That it is to be read is in the store, in one transaction with the cursor that the Resync took away, until all of it is
there, too: what was refused is read later, by the next session or by the next process of the profile.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.api.type.v1 import receipt_state_pb2
from chappe.client.engine import Engine
from chappe.client.errors import RefusedError
from chappe.client.known_groups import KnownGroups
from chappe.client.membership import KnownGroup
from chappe.client.methods import LIST_CONVERSATIONS, LIST_MESSAGES
from chappe.client.people import Calling, InStore
from chappe.client.rebuilds import Rebuilds
from chappe.client.store import GroupBook

PAGE = 200
"""So many of the newest messages of each chat are read; older ones are read when somebody looks at them."""

_GONE = "NOT_IN_CONVERSATION"
_GROUPS = b"groups"
"""Stands for the list of groups among the chats, whose ids are longer."""


class Rebuilding:
    """Reads the groups, the chat list and the newest page of each chat; what was known already is not shown again."""

    def __init__(
        self, rebuilds: Rebuilds, book: GroupBook, in_store: InStore, calling: Calling, engine: Engine
    ) -> None:
        """Prepares.

        Args:
            rebuilds: Knows whether anything is to be read.
            book: Keeps the groups.
            in_store: Runs the functions of both.
            calling: Asks for the groups and the pages.
            engine: Stores the pages.
        """
        self._rebuilds = rebuilds
        self._book = book
        self._groups = KnownGroups(calling, book, in_store)
        self._in_store = in_store
        self._calling = calling
        self._engine = engine
        self._number = 0
        self._read: set[bytes] = set()
        """The chats that were read after the Resync of this number, and whether the groups were."""
        self._refused: dict[bytes, RefusedError] = {}
        """Those that are tried again when all others were read: one that is never given out holds up none of them."""

    async def work(self) -> None:
        """Reads on from where a failure ended it.

        Raises:
            RefusedError: A page was refused.
            NotConnectedError: Nobody answers.
        """
        number: int = await self._in_store(self._rebuilds.due)
        if not number:
            return
        if number != self._number:
            self._number, self._read, self._refused = number, set(), {}
        await self._read_once(_GROUPS, self._read_groups)
        for is_archived in (False, True):
            await self._read_chats(is_archived=is_archived)
        refused, self._refused = self._refused, {}
        for error in refused.values():
            raise error
        self._engine.core.outbox.batch.rebuilt = number
        self._engine.wake()

    async def _read_chats(self, *, is_archived: bool) -> None:
        token = ""
        while True:
            request = conversation_service_pb2.ListConversationsRequest(
                page_size=PAGE, page_token=token, is_archived=is_archived
            )
            chats = await self._calling.call(LIST_CONVERSATIONS, request)
            for chat in chats.conversations:
                await self._read_once(chat.conversation_id, partial(self._read_chat, chat))
            token = chats.next_page_token
            if not token:
                return

    async def _read_once(self, what: bytes, read: Callable[[], Awaitable[None]]) -> None:
        if what in self._read or what in self._refused:
            return
        try:
            await read()
        except RefusedError as error:
            if error.reason != _GONE:
                self._refused[what] = error
                raise
        self._read.add(what)

    async def _read_groups(self) -> None:
        """Learns what the groups are by now, and of which the user is no member any more."""
        before: list[KnownGroup] = await self._in_store(self._book.all)
        listed = {group.group_id for group in await self._groups.mine()}
        for group in before:
            if group.role and group.group_id not in listed:
                await self._in_store(self._book.leave, group.group_id, group.version)

    async def _read_chat(self, chat: conversation_service_pb2.Conversation) -> None:
        request = history_service_pb2.ListMessagesRequest(
            peer_user_id=chat.peer_user_id, group_id=chat.group_id, page_size=PAGE
        )
        page = await self._calling.call(LIST_MESSAGES, request)
        batch = self._engine.core.outbox.batch
        batch.items += _items(chat, page)
        batch.history_ids += [stored.message.message_id for stored in reversed(page.messages)]
        self._engine.wake()


def _items(
    chat: conversation_service_pb2.Conversation, page: history_service_pb2.ListMessagesResponse
) -> Iterator[item_pb2.Item]:
    if chat.settings_position:
        kept = item_pb2.ConversationSettingEvent(conversation_id=chat.conversation_id, settings=chat.settings)
        yield item_pb2.Item(position=chat.settings_position, conversation_setting=kept)
    for stored in reversed(page.messages):
        yield item_pb2.Item(message=stored.message)
        for reaction in stored.reactions:
            yield _reaction(stored.message, reaction)
        if _is_receipted(chat, stored):
            yield _receipt(chat, stored)
    if chat.group_id and page.messages:
        # Counts are asked for like those of which the log tells.
        news = item_pb2.GroupReceiptEvent(group_id=chat.group_id, recorded_ms=page.messages[0].message.accepted_ms)
        yield item_pb2.Item(group_receipt=news)
    if chat.read_upto:
        read = item_pb2.OwnReadEvent(conversation_id=chat.conversation_id, read_upto=chat.read_upto)
        yield item_pb2.Item(own_read=read)


def _is_receipted(chat: conversation_service_pb2.Conversation, stored: history_service_pb2.StoredMessage) -> bool:
    """Tells whether the other person of a direct chat has an own message."""
    is_mine = bool(chat.peer_user_id) and stored.message.sender_user_id != chat.peer_user_id
    return is_mine and stored.state >= receipt_state_pb2.RECEIPT_STATE_DELIVERED


def _receipt(chat: conversation_service_pb2.Conversation, stored: history_service_pb2.StoredMessage) -> item_pb2.Item:
    receipt = item_pb2.ReceiptEvent(
        conversation_id=chat.conversation_id,
        user_id=chat.peer_user_id,
        message_ids=[stored.message.message_id],
        states=[stored.state],
        recorded_ms=stored.read_ms or stored.delivered_ms,
    )
    return item_pb2.Item(receipt=receipt)


def _reaction(message: item_pb2.MessageEvent, reaction: history_service_pb2.MessageReaction) -> item_pb2.Item:
    event = item_pb2.ReactionEvent(
        conversation_id=message.conversation_id,
        message_id=message.message_id,
        reaction_id=reaction.reaction_id,
        user_id=reaction.user_id,
        reacted_ms=reaction.reacted_ms,
        envelope=reaction.envelope,
    )
    return item_pb2.Item(reaction=event)
