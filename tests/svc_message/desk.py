"""Writes messages and receipts as the rules of the ledger hand them to a store."""

import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from svc_message.model import (
    NO_POSITION,
    DeviceId,
    Event,
    InboxRead,
    MessageEvent,
    MessageId,
    MessageRef,
    NewMessage,
    PageRead,
    Position,
    ReceiptState,
    ReceiptUpdate,
    StoredMessage,
    UserId,
)
from svc_message.model.action import ActionKind, ActionRef, NewAction
from svc_message.model.group import NewGroupMessage
from svc_message.model.setting import SettingChange, SettingUpdate
from svc_message.ports import ActionStore, MessageStore, RetentionStore, SettingStore
from svc_message.protocol import action_hash, content_hash, direct_conversation

START_MS = time.time_ns() // 1_000_000
"""When everything in the tests of stores begins: now, because stores let things end by their own clocks."""


class Desk:
    """A conversation of two people whom no other test knows, and a counter for everything that is minted."""

    def __init__(self) -> None:
        self.alice = stranger()
        self.bob = stranger()
        self._number = 0

    def uuid7(self, unix_ms: int = 0) -> bytes:
        """Mints a UUIDv7 that is larger than those before, unless its time is given."""
        self._number += 1
        head = (unix_ms or START_MS + self._number).to_bytes(6, "big")
        return head + (0x7000 | self._number & 0xFFF).to_bytes(2, "big") + b"\x80" + secrets.token_bytes(7)

    def position(self) -> Position:
        return Position(self.uuid7())

    def write(
        self,
        text: bytes = b"hello",
        *,
        sender: UserId | None = None,
        recipient: UserId | None = None,
        message_id: bytes = b"",
        is_withheld: bool = False,
    ) -> NewMessage:
        """Writes a first attempt, from alice to bob unless said otherwise."""
        sender, recipient = sender or self.alice, recipient or self.bob
        return NewMessage(
            message_id=MessageId(message_id or self.uuid7()),
            conversation_id=direct_conversation(sender, recipient),
            sender_id=sender,
            sender_device_id=DeviceId(1),
            recipient_id=recipient,
            envelope=text,
            content_hash=content_hash(recipient, text),
            is_withheld=is_withheld,
            is_retry=False,
            position=self.position(),
            accepted_ms=START_MS + self._number,
        )

    def retry(self, message: NewMessage) -> NewMessage:
        """Writes the next attempt of a message, under a fresh position and a later time."""
        position = self.position()
        return message._replace(is_retry=True, position=position, accepted_ms=START_MS + self._number)

    def act(
        self,
        message: NewMessage | NewGroupMessage,
        kind: ActionKind,
        envelope: bytes = b"",
        *,
        user: UserId | None = None,
        action_id: bytes = b"",
        is_withheld: bool = False,
    ) -> NewAction:
        """Writes the first attempt of an action on a message, by its sender unless said otherwise."""
        user = user or message.sender_id
        peer = message.recipient_id if user == message.sender_id else message.sender_id
        return NewAction(
            action_id=MessageId(action_id or self.uuid7()),
            conversation_id=message.conversation_id,
            kind=kind,
            message_id=message.message_id,
            user_id=user,
            device_id=DeviceId(1),
            peer_id=None if kind is ActionKind.HIDE or peer == user else peer,
            envelope=envelope,
            content_hash=action_hash(user, kind, message.message_id, envelope),
            is_withheld=is_withheld,
            position=self.position(),
            accepted_ms=START_MS + self._number,
        )

    def act_again(self, action: NewAction) -> NewAction:
        """Writes the next attempt of an action, under a fresh position and a later time."""
        position = self.position()
        return action._replace(position=position, accepted_ms=START_MS + self._number)

    def keep(
        self,
        change: SettingChange,
        *,
        user: UserId | None = None,
        peer: UserId | None = None,
        may_begin: bool = True,
        reaches_peer: bool = False,
    ) -> SettingUpdate:
        """Writes how bob, or another user, wants to keep the conversation with alice, or another peer."""
        user, peer = user or self.bob, peer or self.alice
        position = self.position()
        return SettingUpdate(
            user_id=user,
            conversation_id=direct_conversation(user, peer),
            peer_id=peer,
            change=change,
            may_begin=may_begin,
            reaches_peer=reaches_peer,
            position=position,
            changed_ms=START_MS + self._number,
        )

    def receive(
        self,
        *messages: NewMessage,
        state: ReceiptState = ReceiptState.DELIVERED,
        reader: UserId | None = None,
        upto: bytes = b"",
        is_forced: bool = False,
    ) -> ReceiptUpdate:
        """Writes that bob, or another reader, has received messages from alice."""
        position = self.position()
        reader = reader or self.bob
        peer = self.alice if reader == self.bob else self.bob
        return ReceiptUpdate(
            reader_id=reader,
            reader_device_id=DeviceId(2),
            conversation_id=direct_conversation(reader, peer),
            peer_id=peer,
            state=state,
            message_ids=tuple(message.message_id for message in messages),
            read_upto=upto,
            is_forced=is_forced,
            position=position,
            recorded_ms=START_MS + self._number,
        )

    def read(
        self, *messages: NewMessage, upto: bytes = b"", reader: UserId | None = None, is_forced: bool = False
    ) -> ReceiptUpdate:
        """Writes that bob, or another reader, has read messages from alice."""
        return self.receive(*messages, state=ReceiptState.READ, reader=reader, upto=upto, is_forced=is_forced)


def stranger() -> UserId:
    """Makes a user whom nobody knows."""
    return UserId(b"\x01\xa3\x00\x00\x00\x00\x70\x00\x80" + secrets.token_bytes(7))


def ref(message: NewMessage) -> MessageRef:
    return MessageRef(message.message_id, message.conversation_id, message.sender_id, message.recipient_id)


def action_ref(action: NewAction) -> ActionRef:
    return ActionRef(action.action_id, action.conversation_id, action.message_id, action.user_id)


class Book(MessageStore, Protocol):
    """Every port of the book that an adapter serves."""

    @property
    def actions(self) -> ActionStore: ...

    @property
    def settings(self) -> SettingStore: ...

    @property
    def retention(self) -> RetentionStore: ...


def event(message: NewMessage, position: Position | None = None) -> MessageEvent:
    """Returns the event that a message becomes."""
    return MessageEvent(
        message.position if position is None else position,
        message.message_id,
        message.conversation_id,
        message.sender_id,
        message.sender_device_id,
        message.recipient_id,
        message.accepted_ms,
        message.envelope,
    )


async def inbox(store: MessageStore, user_id: UserId, after: Position = NO_POSITION) -> list[Event]:
    """Reads everything in an inbox."""
    (page,) = await store.read_inbox([InboxRead(user_id, after, 10_000)])
    return page.events


async def page(
    store: MessageStore,
    owner: UserId,
    message: NewMessage,
    *,
    before: bytes = b"",
    after: bytes = b"",
    limit: int = 100,
) -> list[StoredMessage]:
    """Reads a page of the conversation that a message belongs to."""
    return await store.read_page(PageRead(owner, message.conversation_id, before, after, limit))


def ids(messages: Sequence[StoredMessage | NewMessage]) -> list[MessageId]:
    """Returns the ids of messages, in order."""
    return [m.message.message_id if isinstance(m, StoredMessage) else m.message_id for m in messages]
