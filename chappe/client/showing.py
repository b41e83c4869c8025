"""Turns what the core, the store and the server know into what people see."""

from collections.abc import Sequence
from dataclasses import replace

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.client.changes import (
    Alteration,
    CaughtUp,
    Change,
    Disconnected,
    GroupTickRaised,
    ItemArrived,
    LogChange,
    MessageArrived,
    MessageEdited,
    MessageExpired,
    MessageReacted,
    MessageRevoked,
    PresenceTold,
    ReadElsewhere,
    SendRefused,
    Sent,
    SessionChange,
    SettingsChanged,
    Settled,
    TickRaised,
    TypingTold,
    WatchesRefused,
)
from chappe.client.content import Said, decode
from chappe.client.frames import parse_action
from chappe.client.group_views import to_group_changed
from chappe.client.mint import time_ms_of
from chappe.client.own_items import own_item
from chappe.client.presence_views import from_told
from chappe.client.store import LocalChat, StoredMessage
from chappe.client.views import (
    AccountChanged,
    Chat,
    ChatChanged,
    ChatSettings,
    Counts,
    Deleted,
    Edited,
    Event,
    Expired,
    GroupTickChanged,
    Message,
    Offline,
    Online,
    ProfileChanged,
    Reacted,
    Reaction,
    ReadOnOtherDevice,
    SendFailed,
    Tick,
    TickChanged,
)

_ACCOUNT: dict[int, str] = {
    item_pb2.ACCOUNT_CHANGE_PROFILE: "profile",
    item_pb2.ACCOUNT_CHANGE_CONTACTS: "contacts",
    item_pb2.ACCOUNT_CHANGE_BLOCKS: "blocks",
    item_pb2.ACCOUNT_CHANGE_DEVICES: "devices",
    item_pb2.ACCOUNT_CHANGE_SETTINGS: "settings",
}


def from_event(event: item_pb2.MessageEvent, user_id: bytes, tick: Tick = Tick.NONE) -> Message:
    """Returns a message as the user of this id sees it."""
    is_mine = event.sender_user_id == user_id
    said = decode(event.envelope.suite, event.envelope.content) if event.HasField("envelope") else Said("")
    return Message(
        message_id=event.message_id,
        conversation_id=event.conversation_id,
        sender_id=event.sender_user_id,
        peer_id=b"" if event.group_id else event.recipient_user_id if is_mine else event.sender_user_id,
        text=said.text,
        sent_ms=time_ms_of(event.message_id),
        accepted_ms=event.accepted_ms,
        is_mine=is_mine,
        tick=tick,
        edited_ms=event.edited_ms,
        revoked_ms=event.revoked_ms,
        expires_ms=event.expires_ms,
        reply_to=said.reply_to,
        forward_count=said.forward_count,
    )


def from_page(stored: history_service_pb2.StoredMessage, user_id: bytes) -> Message:
    """Returns a message of a history page."""
    reactions = tuple(
        Reaction(
            user_id=one.user_id,
            emoji=decode(one.envelope.suite, one.envelope.content).text,
            reacted_ms=one.reacted_ms,
        )
        for one in stored.reactions
    )
    return replace(from_event(stored.message, user_id, tick_of(stored.state)), reactions=reactions)


def from_conversation(chat: conversation_service_pb2.Conversation, user_id: bytes) -> Chat:
    """Returns one chat of the chat list."""
    return Chat(
        conversation_id=chat.conversation_id,
        peer_id=chat.peer_user_id,
        last_message=from_page(chat.last_message, user_id) if chat.HasField("last_message") else None,
        unread_count=chat.unread_count,
        read_upto=chat.read_upto,
        settings=from_settings(chat.settings),
    )


def from_local(chat: LocalChat, newest: Sequence[StoredMessage], user_id: bytes) -> Chat:
    """Returns one chat of the local store, with its newest messages, the newest first."""
    others = [one for one in newest if one.sender_id != user_id and not one.revoked_ms]
    unread = [one for one in others if one.message_id > chat.read_upto]
    return Chat(
        conversation_id=chat.conversation_id,
        peer_id=chat.peer_id,
        last_message=from_store(newest[0], user_id) if newest else None,
        unread_count=len(unread),
        read_upto=chat.read_upto,
        settings=ChatSettings(
            muted_until_ms=chat.muted_until_ms,
            pinned_ms=chat.pinned_ms,
            is_archived=bool(chat.is_archived),
            cleared_upto=chat.cleared_upto,
            expiry_s=chat.expiry_s,
        ),
    )


def from_store(stored: StoredMessage, user_id: bytes) -> Message:
    """Returns a message of the local store."""
    is_mine = stored.sender_id == user_id
    said = Said("") if stored.revoked_ms else decode(stored.suite, stored.content)
    counts = counts_of(stored.delivered_count, stored.read_count, stored.recipient_count)
    return Message(
        message_id=stored.message_id,
        conversation_id=stored.conversation_id,
        sender_id=stored.sender_id,
        peer_id=stored.recipient_id if is_mine or not stored.recipient_id else stored.sender_id,
        text=said.text,
        sent_ms=time_ms_of(stored.message_id),
        accepted_ms=stored.accepted_ms,
        is_mine=is_mine,
        tick=tick_of(stored.state) if counts is None else counts.tick,
        edited_ms=stored.edited_ms,
        revoked_ms=stored.revoked_ms,
        expires_ms=stored.expires_ms,
        reactions=tuple(
            Reaction(user_id=one.user_id, emoji=decode(one.suite, one.content).text, reacted_ms=one.reacted_ms)
            for one in stored.reactions
        ),
        reply_to=said.reply_to,
        forward_count=said.forward_count,
        counts=counts,
    )


def counts_of(delivered: int, read: int, recipients: int) -> Counts | None:
    """Returns how far a message to a group has come; None when that is not known."""
    return Counts(delivered=delivered, read=read, recipients=recipients) if recipients else None


def from_settings(settings: item_pb2.ConversationSettings) -> ChatSettings:
    """Returns how a chat is kept."""
    return ChatSettings(
        muted_until_ms=settings.muted_until_ms,
        pinned_ms=settings.pinned_ms,
        is_archived=settings.is_archived,
        cleared_upto=settings.cleared_upto,
        cleared_ms=settings.cleared_ms,
        expiry_s=settings.expiry_s,
    )


def tick_of(state: int) -> Tick:
    """Returns the tick of a ReceiptState; of one that this version does not know, the highest that it does."""
    return Tick(min(state, Tick.READ))


def from_change(change: Change, user_id: bytes, edge: str) -> Event | None:
    """Returns what people see of a change of the core; None when that is nothing."""
    if isinstance(change, PresenceTold | TypingTold | WatchesRefused):
        return from_told(change)
    return _from_own(change, user_id, edge)


def _from_own(change: LogChange | Settled | SessionChange, user_id: bytes, edge: str) -> Event | None:
    if isinstance(change, MessageEdited | MessageRevoked | MessageReacted | MessageExpired | SettingsChanged):
        return _from_alteration(change)
    if isinstance(change, Sent | SendRefused):
        return _from_settled(change, user_id)
    if isinstance(change, TickRaised | GroupTickRaised):
        return _from_tick(change)
    event: Event | None = None
    match change:
        case MessageArrived():
            event = from_event(change.message, user_id)
        case ReadElsewhere():
            event = ReadOnOtherDevice(conversation_id=change.conversation_id, read_upto=change.read_upto)
        case ItemArrived():
            event = _from_item(change.item)
        case CaughtUp() | Disconnected():
            event = Online(edge=edge) if isinstance(change, CaughtUp) else Offline(edge=change.edge)
        case _:
            pass
    return event


def from_sent(sent: Settled, user_id: bytes, device_id: int) -> Event | None:
    """Returns what the other processes of a profile see of what one of them has sent; nothing when it was refused."""
    outgoing = sent.outgoing
    if isinstance(sent, SendRefused):
        return None
    if outgoing.kind == "read":
        read_upto = parse_action(outgoing.action).read.read_upto
        return ReadOnOtherDevice(conversation_id=outgoing.conversation_id, read_upto=read_upto)
    item = own_item(sent, user_id, device_id)
    match item.WhichOneof("event"):
        case "message":
            return from_event(item.message, user_id, Tick.SENT)
        case "edit":
            return _from_alteration(MessageEdited(item.edit))
        case "revoke":
            return _from_alteration(MessageRevoked(item.revoke))
        case _:
            return _from_alteration(MessageReacted(item.reaction))


def _from_tick(change: TickRaised | GroupTickRaised) -> Event:
    if isinstance(change, GroupTickRaised):
        return GroupTickChanged(
            message_id=change.message_id,
            group_id=change.group_id,
            counts=Counts(delivered=change.delivered, read=change.read, recipients=change.recipients),
            recorded_ms=change.recorded_ms,
        )
    return TickChanged(
        message_id=change.message_id,
        conversation_id=change.conversation_id,
        tick=tick_of(change.state),
        by_user_id=change.by_user_id,
        recorded_ms=change.recorded_ms,
    )


def _from_alteration(change: Alteration) -> Event:
    match change:
        case MessageEdited(edit):
            return Edited(
                message_id=edit.message_id,
                conversation_id=edit.conversation_id,
                by_user_id=edit.sender_user_id,
                text=decode(edit.envelope.suite, edit.envelope.content).text,
                edited_ms=edit.edited_ms,
            )
        case MessageRevoked(revoke):
            return Deleted(
                message_id=revoke.message_id,
                conversation_id=revoke.conversation_id,
                by_user_id=revoke.user_id,
                is_for_me=revoke.is_for_me,
                deleted_ms=revoke.revoked_ms,
            )
        case MessageReacted(reaction):
            envelope = reaction.envelope
            return Reacted(
                message_id=reaction.message_id,
                conversation_id=reaction.conversation_id,
                by_user_id=reaction.user_id,
                emoji=decode(envelope.suite, envelope.content).text if reaction.HasField("envelope") else "",
                reacted_ms=reaction.reacted_ms,
            )
        case MessageExpired():
            return Expired(message_id=change.message_id, conversation_id=change.conversation_id)
        case SettingsChanged():
            settings = from_settings(change.settings)
            return ChatChanged(conversation_id=change.conversation_id, settings=settings, peer_id=change.peer_id)


def _from_settled(settled: Settled, user_id: bytes) -> Event | None:
    outgoing = settled.outgoing
    if isinstance(settled, SendRefused):
        return None if outgoing.kind == "read" else from_refused(settled)
    if outgoing.kind != "message":
        return None
    return TickChanged(
        message_id=outgoing.message_id,
        conversation_id=outgoing.conversation_id,
        tick=Tick.SENT,
        by_user_id=user_id,
        recorded_ms=settled.accepted_ms,
    )


def from_refused(refused: SendRefused) -> SendFailed:
    """Returns what people see of a message, or a change of one, that was refused for good."""
    outgoing = refused.outgoing
    send = parse_action(outgoing.action)
    # What takes something away says nothing.
    envelopes = (send.message.envelope, send.edit.envelope, send.reaction.envelope)
    said = [decode(envelope.suite, envelope.content).text for envelope in envelopes if envelope.content]
    return SendFailed(
        draft=outgoing.draft,
        conversation_id=outgoing.conversation_id,
        peer_id=outgoing.peer_id,
        reason=refused.reason,
        detail=refused.detail,
        kind=outgoing.kind,
        text="".join(said),
    )


def _from_item(item: item_pb2.Item) -> Event | None:
    kind = item.WhichOneof("event")
    if kind == "profile":
        return ProfileChanged(user_id=item.profile.user_id, version=item.profile.version)
    if kind == "account":
        name = _ACCOUNT.get(item.account.change, "something")
        return AccountChanged(what=name, version=item.account.version)
    if kind == "group_change":
        return to_group_changed(item.group_change)
    return None
