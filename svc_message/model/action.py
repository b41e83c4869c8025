"""What people do with messages that are there: edit them, take them back, hide them, react to them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from svc_message.model import Verdict
    from svc_message.model.ids import ConversationId, DeviceId, MessageId, Position, UserId


class ActionKind(enum.IntEnum):
    """What is done to a message. The numbers are stored."""

    EDIT = 2
    """Its sender puts other content in its place."""
    REVOKE = 3
    """It is taken back for everyone."""
    HIDE = 4
    """It is taken away from one user's own devices and history."""
    REACTION = 5
    """Somebody reacts to it, or no longer does."""


class SendAction(NamedTuple):
    """The action of a send: something is done to a message of the direct conversation with a peer."""

    kind: ActionKind
    peer_id: UserId
    message_id: MessageId
    envelope: bytes
    """Serialised and opaque; empty for what has none, and for a reaction that is taken away."""


class SendGroupAction(NamedTuple):
    """The action of a send: something is done to a message of a group."""

    kind: ActionKind
    group_id: ConversationId
    message_id: MessageId
    envelope: bytes
    """As in `SendAction`."""


class ActionRef(NamedTuple):
    """Names an action and the message that it is done to, to ask for both."""

    action_id: MessageId
    conversation_id: ConversationId
    message_id: MessageId
    user_id: UserId
    """Who acts."""


class FoundAction(NamedTuple):
    """What the store holds under the id of an action."""

    is_void: bool
    content_hash: bytes
    """Empty when the id was declared void, or is that of a message."""
    accepted_ms: int


class Target(NamedTuple):
    """A message that is to be acted on, as the store has it; one that has disappeared is not there."""

    sender_id: UserId
    recipient_id: UserId
    accepted_ms: int
    is_withheld: bool
    """It never reached its recipient."""
    is_hidden: bool
    """Who acts has hidden it."""
    members_version: int = 0
    """Of a message to a group: who could see it."""


class Sight(NamedTuple):
    """What the store knows of an `ActionRef`; None for what is not there."""

    earlier: FoundAction | None
    target: Target | None


class NewAction(NamedTuple):
    """An action that passed the checks and is to be made durable.

    `position` is fresh at every call; everything else is the same for every attempt, but for `is_withheld`, where the
    first decision that the store finds wins.
    """

    action_id: MessageId
    conversation_id: ConversationId
    kind: ActionKind
    message_id: MessageId
    user_id: UserId
    device_id: DeviceId
    peer_id: UserId | None
    """Who else learns of it; None for nobody."""
    envelope: bytes
    content_hash: bytes
    """16 bytes by which two actions with one id are the same."""
    is_withheld: bool
    """It takes effect for its own user only, for ever."""
    position: Position
    accepted_ms: int
    group_version: int = 0
    """Of the group when it was accepted, as far as was known; 0 in a direct conversation. Who has left before this
    version never sees what an edit or a reaction says."""


class Acted(NamedTuple):
    """The store's answer for one `NewAction`, in the order of the batch."""

    verdict: Verdict
    accepted_ms: int = 0
    """Of the first attempt."""
    peer_id: UserId | None = None
    """Who else learns of it, as the first attempt decided: nobody of what is withheld, nor by this of what is done in a
    group."""
    is_standing: bool = False
    """It is what its reader sees now: no greater edit or reaction stands in its place, nothing was taken back, and the
    message has not disappeared."""
    members_version: int = 0
    """Of the message, when it was to a group."""
    expires_ms: int = 0
    """When the message disappears; 0 when it stays."""


class EditEvent(NamedTuple):
    """An inbox event: a message has other content."""

    position: Position
    action_id: MessageId
    conversation_id: ConversationId
    message_id: MessageId
    user_id: UserId
    device_id: DeviceId
    accepted_ms: int
    envelope: bytes
    expires_ms: int = 0
    """When the message disappears; 0 when it stays. The other two have it too."""


class RevokeEvent(NamedTuple):
    """An inbox event: a message was taken back for everyone, or for its reader's own devices."""

    position: Position
    action_id: MessageId
    conversation_id: ConversationId
    message_id: MessageId
    user_id: UserId
    device_id: DeviceId
    accepted_ms: int
    is_for_me: bool
    expires_ms: int = 0


class ReactionEvent(NamedTuple):
    """An inbox event: somebody reacted."""

    position: Position
    action_id: MessageId
    conversation_id: ConversationId
    message_id: MessageId
    user_id: UserId
    device_id: DeviceId
    accepted_ms: int
    envelope: bytes
    """Empty when the reaction was taken away."""
    expires_ms: int = 0


ActionEvent = EditEvent | RevokeEvent | ReactionEvent


class Reaction(NamedTuple):
    """One user's reaction to a message, as a page shows it."""

    reaction_id: MessageId
    user_id: UserId
    reacted_ms: int
    envelope: bytes


def event_of(action: NewAction, accepted_ms: int, expires_ms: int = 0) -> ActionEvent:
    """Returns the event that an action becomes, at its present position.

    Args:
        action: It.
        accepted_ms: Of its first attempt.
        expires_ms: When the message disappears; 0 when it stays.
    """
    place = (action.position, action.action_id, action.conversation_id, action.message_id)
    actor = (action.user_id, action.device_id, accepted_ms)
    if action.kind is ActionKind.EDIT:
        return EditEvent(*place, *actor, action.envelope, expires_ms)
    if action.kind is ActionKind.REACTION:
        return ReactionEvent(*place, *actor, action.envelope, expires_ms)
    return RevokeEvent(*place, *actor, action.kind is ActionKind.HIDE, expires_ms)
