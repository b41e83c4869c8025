"""What the registry needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.model import Changes, Edge, Located, Route, UserId, Written

ONLINE_S = 45
"""A person is online for so long after the last sign of life."""
CONNECTION_S = 60
"""A route lives for so long after the last sign of life."""
LAST_SEEN_S = 30 * 86_400
"""When a person was last seen is kept for so long."""
NONCE_S = 120
"""A nonce cannot be used again for so long."""


class PresenceStore(Protocol):
    """Holds routes; everything in it expires, and the edges rebuild it after a loss.

    Every adapter passes the conformance suite in `tests/svc_presence/test_store.py`. All raise
    `chappe.runtime.errors.UnavailableError` when the store does not answer or the outcome is unknown, and nothing of
    their drivers; the call may then be repeated.
    """

    async def write(self, edge: Edge, changes: Changes) -> Written:
        """Writes what an edge says of its sessions.

        A connect wins over any session of its device, unless another session has used its nonce. A refresh writes
        unless a live session of another number, boot or edge stands there. A bye forgets its own session only.
        A repeated connect is known by its nonce, and no longer wins over a session that came after the first.
        """
        ...

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        """Forgets the routes that were found gone, then returns the live routes, users as asked, devices rising."""
        ...

    async def check(self) -> None:
        """Returns when the store answers."""
        ...
