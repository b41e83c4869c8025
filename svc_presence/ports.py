"""What the registry needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.model import (
        Changes,
        ConversationId,
        Edge,
        GroupId,
        Lasting,
        Located,
        Route,
        Seen,
        Sight,
        Typing,
        Typist,
        UserId,
        View,
        Written,
    )

ONLINE_S = 45
"""A person is online for so long after the last sign of life."""
CONNECTION_S = 60
"""A route lives for so long after the last sign of life."""
LAST_SEEN_S = 30 * 86_400
"""When a person was last seen is kept for so long."""
NONCE_S = 120
"""A nonce cannot be used again for so long."""
TYPING_S = 5
"""Somebody is writing for so long after saying so."""


EARLIER_S = 1
"""Of two sessions of a device that began within so long of each other, the one that is written later wins."""
LATE_S = 35
"""A connect is carried out for so long after it was asked for. Clients forgive what a younger one ends, for a minute:
the edge of the session that is ended hears of it at its next refresh."""


class PresenceStore(Protocol):
    """Holds routes; everything in it expires, and the edges rebuild it after a loss.

    Every adapter passes the conformance suite in `tests/svc_presence/test_store.py`. All raise
    `chappe.runtime.errors.UnavailableError` when the store does not answer or the outcome is unknown, and nothing of
    their drivers; the call may then be repeated.
    """

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        """Writes what an edge says of its sessions.

        Args:
            edge: Who says it.
            changes: What it says.
            sent_ms: When this was asked for, Unix milliseconds.

        A connect wins over any session of its device, unless another session has used its nonce, or it began more than
        `EARLIER_S` before the live session that stands there: a refresh then says that it is replaced. A refresh writes
        unless a live session of another number, boot or edge stands there. A bye forgets its own session only.
        A repeated connect is known by its nonce, and no longer wins over a session that came after the first. One that
        is carried out more than `LATE_S` after it was asked for changes nothing: nobody waits for it any more, and it
        would end a session that came meanwhile.
        """
        ...

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        """Forgets the routes that were found gone, then returns the live routes, users as asked, devices rising."""
        ...

    async def read_presence(self, user_ids: Sequence[UserId]) -> list[Seen]:
        """Returns what is known of each person, in order."""
        ...

    async def write_typing(self, typings: Sequence[Typing]) -> None:
        """Notes that people are writing, or no longer; each holds for `TYPING_S`."""
        ...

    async def read_typing(self, conversation_ids: Sequence[ConversationId]) -> list[list[Lasting]]:
        """Returns who is writing in each conversation, in order, by rising user id."""
        ...

    async def check(self) -> None:
        """Returns when the store answers."""
        ...


class Directory(Protocol):
    """svc_identity: who may see what of whom, and who is in which group.

    Copies are leased: they may be used only while every change up to a moment ago is known. An answer is never older
    than a change that the listener was told before it was asked for.
    """

    listener: DirectoryListener

    @property
    def is_fresh(self) -> bool:
        """Whether every change up to a moment ago is known; without that, what was answered before must not be used."""
        ...

    def sight(self, viewer_id: UserId, target_id: UserId) -> Sight | None:
        """Returns how much of a person a viewer may see, from a leased copy; None when there is none."""
        ...

    async def sights(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[Sight]:
        """Returns how much each viewer may see of its target, in order, from leased copies or read through.

        Raises `chappe.runtime.errors.UnavailableError`.
        """
        ...

    def membership(self, group_id: GroupId, user_id: UserId) -> bool | None:
        """Returns whether a user is in a group, from a leased copy; None when there is none."""
        ...

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[bool]:
        """Returns whether each user is in its group, in order, from leased copies or read through.

        Raises `chappe.runtime.errors.UnavailableError`.
        """
        ...

    def separation(self, one: UserId, other: UserId) -> bool | None:
        """Returns whether one of two people has blocked the other, or is nobody, from leased copies; None without."""
        ...

    async def separations(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Returns for each pair whether one has blocked the other, or is nobody, from leased copies or read through.

        Raises `chappe.runtime.errors.UnavailableError`.
        """
        ...


class DirectoryListener(Protocol):
    """Takes what svc_identity says by itself."""

    def user_changed(self, user_id: UserId) -> None:
        """Learns that settings, blocks or contacts of a user are new."""
        ...

    def group_changed(self, group_id: GroupId) -> None:
        """Learns that the members of a group are new."""
        ...

    def everything_changed(self) -> None:
        """Learns that changes may have been missed."""
        ...


class Feed(Protocol):
    """The way to one edge: what it is told is state, of which the newest is enough. None of it waits."""

    def tell_presence(self, number: int, view: View) -> None:
        """Tells a watch how its person is."""
        ...

    def tell_typing(self, number: int, typists: tuple[Typist, ...]) -> None:
        """Tells a watch who is writing in its conversation."""
        ...
