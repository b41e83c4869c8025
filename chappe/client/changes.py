"""What the protocol core tells its application: tuples on the hot path, made once for each thing that happened."""

from typing import NamedTuple

from chappe.api.edge.v1 import item_pb2
from chappe.client.destination import Destination
from chappe.client.outgoing import Outgoing


class Sent(NamedTuple):
    """A send is durable on the server: one tick."""

    outgoing: Outgoing
    accepted_ms: int
    is_duplicate: bool
    """An earlier attempt had been stored."""


class SendRefused(NamedTuple):
    """A send was refused for good."""

    outgoing: Outgoing
    reason: str
    detail: str


class MessageArrived(NamedTuple):
    """A message that this device had not stored before; also the user's own, sent from another device."""

    message: item_pb2.MessageEvent
    position: bytes


class TickRaised(NamedTuple):
    """A message of the user came further than this device knew."""

    message_id: bytes
    conversation_id: bytes
    state: int
    """A value of ReceiptState."""
    by_user_id: bytes
    recorded_ms: int


class GroupTickRaised(NamedTuple):
    """A message of the user to a group came further than this device knew."""

    message_id: bytes
    group_id: bytes
    delivered: int
    """How many of the recipients have it; the readers are among them."""
    read: int
    recipients: int
    recorded_ms: int


class CountsDue(NamedTuple):
    """Messages of the user to a group came further, and the server is to be asked how far."""

    group_id: bytes


class ReadElsewhere(NamedTuple):
    """The user read messages on another of its devices."""

    conversation_id: bytes
    read_upto: bytes


class MessageEdited(NamedTuple):
    """A message has other content than this device knew."""

    edit: item_pb2.EditEvent


class MessageRevoked(NamedTuple):
    """A message was taken back, or hidden from the user's devices."""

    revoke: item_pb2.RevokeEvent


class MessageReacted(NamedTuple):
    """Somebody reacted to a message, or no longer does."""

    reaction: item_pb2.ReactionEvent


class SettingsChanged(NamedTuple):
    """The user keeps a conversation in another way."""

    conversation_id: bytes
    settings: item_pb2.ConversationSettings
    peer_id: bytes = b""
    """With whom it is; empty in a group, and while nobody has said anything."""


class MessageExpired(NamedTuple):
    """A message has disappeared."""

    conversation_id: bytes
    message_id: bytes


class ItemArrived(NamedTuple):
    """An event that is passed on as it is: a profile, the account, a group, or one that this version does not know."""

    item: item_pb2.Item


class Welcomed(NamedTuple):
    """A session stands."""

    session_id: int
    edge: str


class CaughtUp(NamedTuple):
    """Everything that was in the log when the session began has been stored."""


class Resynced(NamedTuple):
    """The log could not be resumed from: what is older than it must be read from the chat list and its pages."""

    reason: str
    detail: str


class GoingAway(NamedTuple):
    """The edge is about to close."""

    close_code: int
    detail: str
    delay_ms: int


class Disconnected(NamedTuple):
    """The connection has ended."""

    session_id: int
    edge: str


class PresenceTold(NamedTuple):
    """A watched person came or went."""

    user_id: bytes
    state: int
    """A value of PresenceState."""
    last_seen_ms: int


class TypingTold(NamedTuple):
    """Others began or stopped writing."""

    chat: Destination
    typists: tuple[tuple[bytes, int], ...]
    """Everybody who is writing now, each with a value of TypingKind."""


class WatchesRefused(NamedTuple):
    """Some people are not watched."""

    user_ids: tuple[bytes, ...]
    reason: str
    detail: str
    retry_after_ms: int


Alteration = MessageEdited | MessageRevoked | MessageReacted | SettingsChanged | MessageExpired
LogChange = MessageArrived | TickRaised | GroupTickRaised | CountsDue | ReadElsewhere | Alteration | ItemArrived
Settled = Sent | SendRefused
SessionChange = Welcomed | CaughtUp | Resynced | GoingAway | Disconnected
Told = PresenceTold | TypingTold | WatchesRefused
Change = LogChange | Settled | SessionChange | Told
