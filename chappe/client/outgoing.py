"""One change on its way to the server, from the moment it is composed until it is answered."""

from typing import Literal, NamedTuple

Kind = Literal["message", "read", "edit", "revoke", "reaction"]


class Outgoing:
    """A change with its fate so far; the id and the action are the bytes that every attempt repeats."""

    __slots__ = (
        "action",
        "attempt",
        "conversation_id",
        "draft",
        "due_s",
        "is_durable",
        "kind",
        "message_id",
        "mints",
        "peer_id",
        "tag",
        "token",
        "unanswered",
    )

    def __init__(self, kind: Kind, peer_id: bytes, conversation_id: bytes, action: bytes) -> None:
        """Makes one that has no id yet.

        Args:
            kind: What it does.
            peer_id: With whom the direct conversation is; empty in a group.
            conversation_id: The conversation; the group's id in a group.
            action: The field of a Send, serialised.
        """
        self.kind: Kind = kind
        self.peer_id = peer_id
        self.conversation_id = conversation_id
        self.action = action
        self.draft = 0
        """Its number in the outbox, never used twice on this device."""
        self.message_id = b""
        """Empty until it is transmitted for the first time."""
        self.attempt = 0
        """How often it was handed to an edge under this id; at least 1 when it was loaded from a disk."""
        self.due_s = 0.0
        """When it is handed over again unless it is answered, on the monotonic clock."""
        self.unanswered = 0
        """How many attempts there were since the last answer, a refusal for now."""
        self.mints = 0
        """How many ids it has had."""
        self.is_durable = False
        """The outbox on the disk holds it under its present id."""
        self.tag: object = None
        """Whatever the application ties to it."""
        self.token = b""
        """Names it among the processes that share a profile, so that handing it over again does not send it again."""

    def row(self) -> "OutboxRow":
        """Returns what the outbox stores, as it is at this moment."""
        return OutboxRow(
            self.draft,
            self.kind,
            self.peer_id,
            self.conversation_id,
            self.action,
            self.message_id,
            self.attempt,
            self.token,
        )


class OutboxRow(NamedTuple):
    """One entry of the outbox as it is stored."""

    draft: int
    kind: Kind
    peer_id: bytes
    conversation_id: bytes
    action: bytes
    message_id: bytes
    attempt: int
    token: bytes = b""

    def outgoing(self) -> Outgoing:
        """Returns the entry as it is after a restart: nobody knows how often it was sent, so at least once."""
        outgoing = Outgoing(self.kind, self.peer_id, self.conversation_id, self.action)
        outgoing.draft = self.draft
        outgoing.token = self.token
        outgoing.message_id = self.message_id
        outgoing.attempt = max(1, self.attempt)
        outgoing.is_durable = bool(self.message_id)
        outgoing.mints = 1 if self.message_id else 0
        return outgoing
