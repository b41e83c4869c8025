"""What the ledger needs from outside for groups; what holds for every port stands in `svc_message.ports`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import ConversationId, PageRead, Position, StoredMessage, UserId
    from svc_message.model.action import Acted, NewAction
    from svc_message.model.group import (
        DirectoryGroup,
        Entry,
        Expansion,
        GroupAccepted,
        GroupChat,
        GroupLine,
        Membership,
        NewGroupMessage,
        Orphan,
        Shard,
        Touch,
        Undecodable,
        Window,
    )


class GroupStore(Protocol):
    """What the book of the ledger does for groups; the rest, look-ups and reads, is the same as for direct messages.

    In a `MessageRef` the recipient is the group.
    """

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable, each with the sender's pointer and an entry in the journal, all or nothing.

        Otherwise like `MessageStore.accept`: what is found is completed, with a fresh entry for those whom the first
        decision entitled. A shard that was ended meanwhile is begun anew.
        """
        ...

    async def act(self, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions on messages of groups durable, like `ActionStore.act`, each with an entry in the journal.

        What a user hides from itself has none.
        """
        ...

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes pointers into the inboxes of members, then moves conversations up in their chat lists."""
        ...

    async def read_page(self, read: PageRead, windows: Sequence[Window]) -> list[StoredMessage]:
        """Returns messages of a group that its reader sees, newest first.

        Those are the messages for versions in the times in which the reader was a member. Who is not a member any more
        sees them, and the reactions to them, as they stood when it left; what was taken back is so for everybody. The
        state is the reader's own receipt; own messages are SENT.
        """
        ...

    async def read_chats(self, owner_id: UserId, lines: Sequence[GroupLine]) -> list[GroupChat]:
        """Returns what a chat list shows of groups, in order, as `read_page` shows it.

        How many rows are read grows with those lines alone.
        """
        ...


class Journal(Protocol):
    """What was accepted for groups and is still to be expanded; entries are written by `GroupStore.accept`.

    A shard is written by one process, which expands it from memory and reads nothing. Only an orphan is read.
    """

    async def checkpoint(self, shard: Shard, mark: Position) -> None:
        """Begins a shard, or says that its process lives; forgets what lies H before the mark, which only rises."""
        ...

    async def adopt(self, silence_s: float) -> list[Orphan]:
        """Returns the shards that were not checkpointed for so long, by the store's clock."""
        ...

    async def read(self, shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        """Reads on in a shard after a position, oldest first."""
        ...

    async def advance(self, shard: Shard, mark: Position) -> None:
        """Raises the mark of an orphan, which stays one."""
        ...

    async def park(self, shard: Shard, entries: Sequence[Undecodable]) -> None:
        """Puts entries aside, where they wait for a program that can read them."""
        ...

    async def replay(self, shard: Shard) -> int:
        """Puts everything that was parked into a new shard, an orphan from the start, and returns how much that was."""
        ...

    async def end(self, shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
        """Ends a shard whose entries up to a position are done; false when there is one after it.

        Nothing that was promised may still become visible at or before the position. A shard of another process is not
        ended either when it was checkpointed within so many seconds: that process lives, and may be writing into it.
        """
        ...


class Expander(Protocol):
    """Writes what was accepted for groups into the inboxes of members, soon after it was accepted."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more may be accepted."""
        ...

    def begin(self, positions: Sequence[Position]) -> None:
        """Learns that entries are about to be written into the journal."""
        ...

    def abandon(self, positions: Sequence[Position]) -> None:
        """Learns that entries were promised to nobody: a retry, or a repetition, writes others."""
        ...

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes entries that are durable, and promised."""
        ...


class GroupDirectory(Protocol):
    """Who is in a group: leased copies, true for at most 2 s after a change returned."""

    def cached(self, group_id: ConversationId) -> DirectoryGroup | None:
        """Returns the leased copy, or None when there is none that may be used. Never waits."""
        ...

    async def read(self, group_ids: Sequence[ConversationId]) -> list[DirectoryGroup]:
        """Reads groups through, in order, and keeps the answers."""
        ...

    async def memberships(self, pairs: Sequence[tuple[ConversationId, UserId]]) -> list[Membership]:
        """Reads what users have to do with groups, in order."""
        ...
