"""What people see: messages, ticks, chats and the events of a session."""

import enum
from dataclasses import dataclass

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.client.changes import (
    CaughtUp,
    Change,
    Disconnected,
    ItemArrived,
    MessageArrived,
    ReadElsewhere,
    SendRefused,
    Sent,
    Settled,
    TickRaised,
)
from chappe.client.content import decode_text
from chappe.client.mint import time_ms_of
from chappe.client.store import StoredMessage

_ACCOUNT: dict[int, str] = {
    item_pb2.ACCOUNT_CHANGE_PROFILE: "profile",
    item_pb2.ACCOUNT_CHANGE_CONTACTS: "contacts",
    item_pb2.ACCOUNT_CHANGE_BLOCKS: "blocks",
    item_pb2.ACCOUNT_CHANGE_DEVICES: "devices",
    item_pb2.ACCOUNT_CHANGE_SETTINGS: "settings",
}


class Tick(enum.IntEnum):
    """How far a message has come."""

    NONE = 0
    """Not known; or a message of somebody else."""
    SENT = 1
    """Durable on the server."""
    DELIVERED = 2
    """A device of the recipient has stored it."""
    READ = 3
    """The recipient saw it."""

    @property
    def sign(self) -> str:
        """The tick as people know it."""
        return ("", "✓", "✓✓", "✓✓ read")[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a chat."""

    message_id: bytes
    conversation_id: bytes
    sender_id: bytes
    peer_id: bytes
    """The other person of a direct chat, whoever wrote; empty in a group."""
    text: str
    sent_ms: int
    """When it was written, by the clock of the server; the order of the chat is that of the ids."""
    accepted_ms: int
    is_mine: bool
    tick: Tick = Tick.NONE

    @property
    def id(self) -> str:
        """The message id as text."""
        return self.message_id.hex()

    @property
    def group_id(self) -> bytes:
        """The group; empty in a direct chat."""
        return b"" if self.peer_id else self.conversation_id


@dataclass(frozen=True, kw_only=True, slots=True)
class TickChanged:
    """A message of one's own came further."""

    message_id: bytes
    conversation_id: bytes
    tick: Tick
    by_user_id: bytes
    recorded_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOnOtherDevice:
    """Another device of the user has shown this chat up to a message."""

    conversation_id: bytes
    read_upto: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileChanged:
    """Somebody's profile is new."""

    user_id: bytes
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountChanged:
    """Something of the own account was changed: profile, contacts, blocks, devices or settings."""

    what: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SendFailed:
    """A message was refused for good; nobody else has it."""

    draft: int
    peer_id: bytes
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Online:
    """The session stands and everything that waited has come."""

    edge: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Offline:
    """The session has ended; the client comes back by itself."""

    edge: str


Event = Message | TickChanged | ReadOnOtherDevice | ProfileChanged | AccountChanged | SendFailed | Online | Offline


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page of a chat, newest message first."""

    messages: list[Message]
    next_page: str
    """For the page before this one in time; empty when there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """One chat of the chat list."""

    conversation_id: bytes
    peer_id: bytes
    last_message: Message | None
    unread_count: int
    read_upto: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Contact:
    """One person of the address book."""

    phone_number: str
    name: str
    user_id: bytes
    """Empty while the number has no account."""


def from_event(event: item_pb2.MessageEvent, user_id: bytes, tick: Tick = Tick.NONE) -> Message:
    """Returns a message as the user of this id sees it."""
    is_mine = event.sender_user_id == user_id
    return Message(
        message_id=event.message_id,
        conversation_id=event.conversation_id,
        sender_id=event.sender_user_id,
        peer_id=b"" if event.group_id else event.recipient_user_id if is_mine else event.sender_user_id,
        text=decode_text(event.envelope.suite, event.envelope.content),
        sent_ms=time_ms_of(event.message_id),
        accepted_ms=event.accepted_ms,
        is_mine=is_mine,
        tick=tick,
    )


def from_page(stored: history_service_pb2.StoredMessage, user_id: bytes) -> Message:
    """Returns a message of a history page."""
    return from_event(stored.message, user_id, tick_of(stored.state))


def from_store(stored: StoredMessage, user_id: bytes) -> Message:
    """Returns a message of the local store."""
    is_mine = stored.sender_id == user_id
    return Message(
        message_id=stored.message_id,
        conversation_id=stored.conversation_id,
        sender_id=stored.sender_id,
        peer_id=stored.recipient_id if is_mine or not stored.recipient_id else stored.sender_id,
        text=decode_text(stored.suite, stored.content),
        sent_ms=time_ms_of(stored.message_id),
        accepted_ms=stored.accepted_ms,
        is_mine=is_mine,
        tick=tick_of(stored.state),
    )


def tick_of(state: int) -> Tick:
    """Returns the tick of a ReceiptState; of one that this version does not know, the highest that it does."""
    return Tick(min(state, Tick.READ))


def from_change(change: Change, user_id: bytes, edge: str) -> Event | None:
    """Returns what people see of a change of the core; None when that is nothing."""
    event: Event | None = None
    match change:
        case MessageArrived():
            event = from_event(change.message, user_id)
        case TickRaised():
            event = TickChanged(
                message_id=change.message_id,
                conversation_id=change.conversation_id,
                tick=tick_of(change.state),
                by_user_id=change.by_user_id,
                recorded_ms=change.recorded_ms,
            )
        case ReadElsewhere():
            event = ReadOnOtherDevice(conversation_id=change.conversation_id, read_upto=change.read_upto)
        case Sent() | SendRefused():
            event = _from_settled(change, user_id)
        case CaughtUp():
            event = Online(edge=edge)
        case Disconnected():
            event = Offline(edge=change.edge)
        case ItemArrived():
            event = _from_item(change.item)
        case _:
            pass
    return event


def _from_settled(settled: Settled, user_id: bytes) -> Event | None:
    outgoing = settled.outgoing
    if isinstance(settled, SendRefused):
        return SendFailed(draft=outgoing.draft, peer_id=outgoing.peer_id, reason=settled.reason, detail=settled.detail)
    if outgoing.kind != "message":
        return None
    return TickChanged(
        message_id=outgoing.message_id,
        conversation_id=outgoing.conversation_id,
        tick=Tick.SENT,
        by_user_id=user_id,
        recorded_ms=settled.accepted_ms,
    )


def _from_item(item: item_pb2.Item) -> Event | None:
    kind = item.WhichOneof("event")
    if kind == "profile":
        return ProfileChanged(user_id=item.profile.user_id, version=item.profile.version)
    if kind == "account":
        name = _ACCOUNT.get(item.account.change, "something")
        return AccountChanged(what=name, version=item.account.version)
    return None
