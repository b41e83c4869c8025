"""What the ledger needs from outside.

The ports speak in messages, not rows: an adapter decides how many rows a message is (one and two pointers on
PostgreSQL, one copy for each participant on Cassandra). Every adapter of a port passes the port's conformance suite in
`tests/svc_message`. All raise `chappe.runtime.errors.UnavailableError` when the store does not answer or the outcome is
unknown, and nothing else of their drivers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import (
        Accepted,
        Applied,
        ChatCursor,
        ChatPage,
        DirectoryUser,
        Event,
        ForeignAppend,
        Found,
        InboxPage,
        InboxRead,
        MessageRef,
        NewMessage,
        PageRead,
        Position,
        ReceiptUpdate,
        StoredMessage,
        UserId,
    )
    from svc_message.model.action import Acted, ActionRef, NewAction, Sight
    from svc_message.model.bot import Bot
    from svc_message.model.setting import Changed, SettingUpdate
    from svc_message.model.trace import MessageTrace, TraceQuery


class MessageStore(Protocol):
    """The book of the ledger: messages, inbox logs, receipts and chat lists."""

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        """Makes messages durable with a pointer in the inbox of everyone entitled, and answers for each in order.

        A message that is found is completed, not taken for accepted: its inbox events are written again under the
        fresh position, for those whom the *first* decision entitled, before the answer. A batch never names one
        message id twice. An answer means durable; after an error nothing is known, and the caller tries again.
        """
        ...

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        """Looks messages up wherever any of their rows may be, in order."""
        ...

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        ...

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        """Raises states, never lowers them, and appends the events that tell of it, before it answers in order.

        A batch may hold several updates of one conversation. For `READ` the reader's `read_upto` is a maximum by
        message id, and READ implies delivered. A `read_upto` stands for what is in the reader's log at that moment,
        whether a device of its has stored it or not, and of it one portion is marked by one call. A delivery that is
        acknowledged again while `may_be_untold` says so is told again.
        """
        ...

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services. A change id that is there already is appended again: devices drop it."""
        ...

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        """Reads on in many inboxes at once, from the primary, in order; cheap where nothing is new.

        Of a group that `departures` name the reader sees what stood when it left: pointers to later edits and
        reactions are left out, and the last one before is shown.
        """
        ...

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        """Returns messages of a conversation that its owner sees (not withheld from it, not void), newest first."""
        ...

    async def list_chats(
        self, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool = False
    ) -> ChatPage:
        """Returns a window of a chat list: of what is archived, or of everything else; pinned ones first.

        How many rows are read does not grow with the number of conversations.
        """
        ...

    async def epoch(self) -> int:
        """Returns the epoch of the ledger, which a restore raises."""
        ...

    async def clock_ms(self) -> float:
        """Returns the store's own wall clock, Unix milliseconds, for comparison with ours."""
        ...

    async def ready(self) -> None:
        """Returns when the store answers; raises what is wrong, with its fix, when it does not."""
        ...


class ActionStore(Protocol):
    """The part of the book that holds what people do with messages that are there."""

    async def sight(self, refs: Sequence[ActionRef]) -> list[Sight]:
        """Looks for actions by their ids and for the messages that they are done to, in order."""
        ...

    async def act(self, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable with what follows from them, and answers for each in order.

        The outcome is the same in whatever order actions arrive: of several edits of a message, and of several
        reactions of one user to it, the greatest id stands, and what was taken back stays so. Content that was taken
        back is gone from every row before the answer. A withheld action takes effect for its own user only.

        In a group the outcome is kept for each `group_version`, so that somebody who has left still sees what stood
        then: of the edits in versions before it left the one with the greatest id, or what was sent when there is
        none, and of each user's reactions the same. What was taken back is taken back for everybody.

        Everyone entitled gets a pointer in its inbox; one to an action that does not stand is left out when it is read.
        An action that is found gets its pointers again under the fresh position, for those whom the first decision
        entitled. A batch never names one id twice. An answer means durable; after an error nothing is known.
        """
        ...

    async def declare_actions_void(self, refs: Sequence[ActionRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        ...


class TraceStore(Protocol):
    """What operators may ask of a book: what became of a message."""

    async def read_trace(self, query: TraceQuery) -> MessageTrace | None:
        """Returns what is known of a message; None when it was never heard of in that conversation."""
        ...


class SettingStore(Protocol):
    """The part of the book that holds how users keep their conversations."""

    async def change(self, update: SettingUpdate, floor: bytes) -> Changed | None:
        """Makes a change durable with a pointer in the inbox of everyone it reaches, all or nothing.

        Changes of one user's view take effect in the order of their positions: one before the newest is not stored.
        An event shows the settings as they are when it is read. Of what is cleared everything up to `floor` is cleared
        for ever; what is later and is accepted after this change has not been there to be cleared. Of a place before
        one that is cleared already nothing is cleared that was accepted after the last message up to it. None when the
        user has no such conversation and may not begin it.
        """
        ...


class RetentionStore(Protocol):
    """The part of the book that lets go of what is not kept for ever.

    Several processes may do it at the same time: each passes over what another is at. Everything is repeatable.
    """

    async def expire(self, limit: int, spent_before: Position) -> int:
        """Removes messages that have disappeared, with everything that belongs to them; returns how many rows went.

        So many of each kind at most; 0 when there is nothing left. What was known of a message is still found:
        `find` says that it is spent. `spent_before` is an id that is older than any that is accepted as new.
        """
        ...

    async def forget(self, before: Position, after: UserId, limit: int) -> UserId | None:
        """Removes the events before a position from the next so many inboxes after a user's.

        Returns the user whose inbox was the last of them; None when there was none.
        """
        ...

    async def wake(self, since_ms: int, floor: Position) -> int:
        """Brings back conversations that were archived after `since_ms` while a message was on its way.

        Such a message has an id after `floor`. Returns how many there were.
        """
        ...


class Directory(Protocol):
    """Who people are and what they allow: leased copies, true for at most 2 s after a change returned."""

    def cached(self, user_id: UserId) -> DirectoryUser | None:
        """Returns the leased copy, or None when there is none that may be used. Never waits."""
        ...

    async def read(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Reads users through, in order, and keeps the answers."""
        ...

    async def ready(self) -> None:
        """Returns when svc_identity answers."""
        ...


class Bots(Protocol):
    """Which programs speak as which users. What was once said of a program stays so."""

    async def find(self, spiffe_id: str) -> Bot | None:
        """Returns the user as which a program speaks; None when it speaks as nobody."""
        ...


class Dispatcher(Protocol):
    """The way to the devices that are online: hints, which may be lost."""

    def dispatch(
        self, event: Event, user_ids: tuple[UserId, ...], origin_device_id: int, *, wants_receipt: bool
    ) -> None:
        """Hands over a hint for every device of the users but the origin. Never waits, never raises."""
        ...
