"""Reads what the log does not hold any more: the newest pages of every chat, after a Resync."""

import logging

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError
from chappe.client.methods import LIST_CONVERSATIONS, LIST_MESSAGES
from chappe.client.people import Calling

PAGE = 200
"""So many of the newest messages of each chat are read; older ones are read when somebody looks at them."""

_log = logging.getLogger(__name__)


async def rebuild(calling: Calling, engine: Engine) -> None:
    """Reads the chat list and the newest page of each chat into the store; what it knew already is not shown again.

    A failure is logged and not tried again: the log itself replays from its beginning in any case.
    """
    try:
        for is_archived in (False, True):
            await _read_chats(calling, engine, is_archived=is_archived)
    except ChappeClientError as error:
        _log.warning("not all of the history was read after a resync: %s", error)


async def _read_chats(calling: Calling, engine: Engine, *, is_archived: bool) -> None:
    token = ""
    while True:
        request = conversation_service_pb2.ListConversationsRequest(
            page_size=PAGE, page_token=token, is_archived=is_archived
        )
        chats = await calling.call(LIST_CONVERSATIONS, request)
        for chat in chats.conversations:
            await _read_chat(calling, engine, chat)
        token = chats.next_page_token
        if not token:
            return


async def _read_chat(calling: Calling, engine: Engine, chat: conversation_service_pb2.Conversation) -> None:
    request = history_service_pb2.ListMessagesRequest(
        peer_user_id=chat.peer_user_id, group_id=chat.group_id, page_size=PAGE
    )
    page = await calling.call(LIST_MESSAGES, request)
    batch = engine.core.outbox.batch
    if chat.settings_position:
        kept = item_pb2.ConversationSettingEvent(conversation_id=chat.conversation_id, settings=chat.settings)
        batch.items.append(item_pb2.Item(position=chat.settings_position, conversation_setting=kept))
    for stored in reversed(page.messages):
        batch.items.append(item_pb2.Item(message=stored.message))
        batch.items += [_reaction(stored.message, reaction) for reaction in stored.reactions]
        batch.history_ids.append(stored.message.message_id)
    engine.wake()


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
