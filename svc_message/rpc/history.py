"""The doors of HistoryService and ConversationService."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    history_service_pb2,
    history_service_pb2_grpc,
)
from chappe.api.type.v1 import envelope_pb2, position_pb2
from chappe.runtime.errors import InvalidFieldError
from chappe.runtime.principal import caller, principal
from svc_message.adapters.item_protobuf import FLAG_WANTS_RECEIPT, item_bytes, item_key, message_bytes, settings_message
from svc_message.errors import OwnerMissingError, OwnerNotAllowedError
from svc_message.model import DeviceId, InboxAnswer, InboxQuery, MessageEvent, UserId
from svc_message.model.setting import SettingChange
from svc_message.protocol import is_group
from svc_message.rpc.conversation import named_conversation
from svc_message.service.history import PageAsked
from svc_message.service.keep import Chat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svc_message import model
    from svc_message.adapters.unreadable import Unreadable
    from svc_message.model import Event, StoredMessage
    from svc_message.model.action import Reaction
    from svc_message.service.history import Reading
    from svc_message.service.keep import Keeping
    from svc_message.service.sync import Syncing

_ID_BYTES = 16


class HistoryRpc(history_service_pb2_grpc.HistoryServiceServicer):
    """Serves pages of conversations to people, and inbox logs to edges."""

    def __init__(self, reading: Reading, syncing: Syncing, unreadable: Unreadable) -> None:
        self._reading = reading
        self._syncing = syncing
        self._unreadable = unreadable

    async def ListMessages(
        self, request: history_service_pb2.ListMessagesRequest, context: Any
    ) -> history_service_pb2.ListMessagesResponse:
        """Returns one page of the caller's conversation."""
        del context
        owner_id = _owner(request.owner_user_id)
        asked = PageAsked(
            owner_id,
            named_conversation(owner_id, request.peer_user_id, request.group_id),
            request.before_message_id,
            request.after_message_id,
            request.page_size,
            request.page_token,
        )
        page = await self._reading.page(asked)
        return history_service_pb2.ListMessagesResponse(
            messages=stored_messages(page.messages, self._unreadable), next_page_token=page.next_page_token
        )

    async def SyncInbox(
        self, request: history_service_pb2.SyncInboxRequest, context: Any
    ) -> history_service_pb2.SyncInboxResponse:
        """Answers what is new in many inboxes."""
        del context
        queries = [_query(query) for query in request.queries]
        answers = await self._syncing.sync(queries)
        return history_service_pb2.SyncInboxResponse(
            answers=[_answer(query.user_id, answer) for query, answer in zip(queries, answers, strict=True)]
        )


class ConversationRpc(conversation_service_pb2_grpc.ConversationServiceServicer):
    """Serves the chat list, and changes how conversations are kept."""

    def __init__(self, reading: Reading, keeping: Keeping, unreadable: Unreadable) -> None:
        self._reading = reading
        self._keeping = keeping
        self._unreadable = unreadable

    async def ListConversations(
        self, request: conversation_service_pb2.ListConversationsRequest, context: Any
    ) -> conversation_service_pb2.ListConversationsResponse:
        """Returns a window of the caller's chat list."""
        del context
        window = await self._reading.chats(
            UserId(principal().user_id), request.page_size, request.page_token, is_archived=request.is_archived
        )
        return conversation_service_pb2.ListConversationsResponse(
            conversations=[_conversation(chat, self._unreadable) for chat in window.page.chats],
            next_page_token=window.next_page_token,
        )

    async def UpdateConversation(
        self, request: conversation_service_pb2.UpdateConversationRequest, context: Any
    ) -> conversation_service_pb2.UpdateConversationResponse:
        """Changes how the caller keeps a conversation."""
        del context
        if request.WhichOneof("conversation") is None:
            raise InvalidFieldError("conversation", "must be set: peer_user_id or group_id")
        chat = Chat(request.peer_user_id, request.group_id)
        event = await self._keeping.change(UserId(principal().user_id), chat, _change(request))
        settings = settings_message(event.settings)
        return conversation_service_pb2.UpdateConversationResponse(settings=settings, position=event.position)


def _change(request: conversation_service_pb2.UpdateConversationRequest) -> SettingChange:
    return SettingChange(
        muted_until_ms=request.muted_until_ms if request.HasField("muted_until_ms") else None,
        is_pinned=request.is_pinned if request.HasField("is_pinned") else None,
        is_archived=request.is_archived if request.HasField("is_archived") else None,
        cleared_upto=request.cleared_upto if request.HasField("cleared_upto") else None,
        expiry_s=request.expiry_s if request.HasField("expiry_s") else None,
    )


def stored_messages(stored: Iterable[StoredMessage], unreadable: Unreadable) -> list[history_service_pb2.StoredMessage]:
    """Returns the wire form of messages with how far they have come, without what was spoilt in the store."""
    return unreadable.each(partial(_stored_message, unreadable), stored)


def _stored_message(unreadable: Unreadable, stored: StoredMessage) -> history_service_pb2.StoredMessage:
    return history_service_pb2.StoredMessage(
        message=item_pb2.MessageEvent.FromString(message_bytes(stored.message)),
        state=int(stored.state),  # type: ignore[arg-type]  # the numbers are the contract's
        delivered_ms=stored.delivered_ms,
        read_ms=stored.read_ms,
        reactions=unreadable.each(_reaction, stored.reactions),
    )


def _reaction(reaction: Reaction) -> history_service_pb2.MessageReaction:
    envelope = envelope_pb2.Envelope.FromString(reaction.envelope)
    return history_service_pb2.MessageReaction(
        user_id=reaction.user_id,
        envelope=envelope,
        reacted_ms=reaction.reacted_ms,
        reaction_id=reaction.reaction_id,
    )


def _owner(named: bytes) -> UserId:
    """Returns whose view is read: the principal's own for a client, the one that is named for a service."""
    if caller().principal is None:
        if not named:
            raise OwnerMissingError
        return UserId(named)
    own = principal().user_id
    if named and named != own:
        raise OwnerNotAllowedError
    return UserId(own)


def _query(query: history_service_pb2.InboxQuery) -> InboxQuery:
    epoch, cursor, is_garbled = 0, b"", False
    if query.cursor:
        try:
            parsed = position_pb2.Cursor.FromString(query.cursor)
            epoch, cursor = parsed.epoch, parsed.position.value
        except DecodeError:
            is_garbled = True
        is_garbled = is_garbled or len(cursor) != len(UserId(bytes(16)))
    return InboxQuery(
        user_id=UserId(query.user_id),
        device_id=DeviceId(query.device_id),
        epoch=epoch,
        cursor=b"" if is_garbled else cursor,
        after=query.after_position,
        pass_bound=query.pass_bound,
        limit=query.limit,
        is_garbled=is_garbled,
        known_ids=_ids_of(query.known_message_ids),
    )


def _ids_of(ids: bytes) -> frozenset[bytes]:
    """Takes ids apart that follow each other; what is left at the end is none."""
    return frozenset(ids[start : start + _ID_BYTES] for start in range(0, len(ids), _ID_BYTES))


def _answer(user_id: UserId, answer: InboxAnswer) -> history_service_pb2.InboxAnswer:
    cursor = position_pb2.Cursor(epoch=answer.epoch, position=position_pb2.Position(value=answer.cursor))
    return history_service_pb2.InboxAnswer(
        items=[item_bytes(event) for event in answer.events],
        keys=[item_key(event) for event in answer.events],
        flags=[_flags(user_id, event) for event in answer.events],
        has_more=answer.has_more,
        cursor=cursor.SerializeToString(),
        pass_bound=answer.pass_bound,
        is_resync=answer.is_resync,
    )


def _flags(user_id: UserId, event: Event) -> int:
    return FLAG_WANTS_RECEIPT if isinstance(event, MessageEvent) and event.sender_id != user_id else 0


def _conversation(chat: model.Chat, unreadable: Unreadable) -> conversation_service_pb2.Conversation:
    last = [] if chat.last_message is None else stored_messages([chat.last_message], unreadable)
    return conversation_service_pb2.Conversation(
        conversation_id=chat.conversation_id,
        peer_user_id=b"" if is_group(chat.conversation_id) else chat.peer_id,
        group_id=chat.conversation_id if is_group(chat.conversation_id) else b"",
        last_message=last[0] if last else None,
        unread_count=chat.unread_count,
        read_upto=chat.read_upto,
        settings=settings_message(chat.settings),
        settings_position=chat.settings_position,
    )
