"""What the carrier needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from svc_fanout.model import Delivery, Located, Route, UserId

MAX_LOCATED_USERS = 2048
"""How many users one question may name, and how many routes that were found gone."""
SPREAD_MS = 45_000
"""After a loss edges spread the reads of their sessions over so long: every session has read within a minute."""


class Registry(Protocol):
    """Knows where users are: svc_presence."""

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> Located:
        """Returns the live routes of at most 2048 users, after forgetting the routes that were found gone.

        Raises:
            ChappeError: It does not answer, or refuses.
        """
        ...


class EdgeListener(Protocol):
    """Takes what edges say by themselves. Nothing here waits."""

    def returned(self, deliveries: list[Delivery]) -> None:
        """Takes deliveries back whose route is gone."""
        ...

    def unreachable(self, deliveries: list[Delivery]) -> None:
        """Takes deliveries back whose edge does not answer; what it holds may live on behind a broken network."""
        ...

    def arrived(self, user_ids: Iterable[UserId]) -> None:
        """Learns that sessions of users have begun."""
        ...

    def lost_touch(self) -> None:
        """Learns that the stream to an edge began or ended: arrivals may have gone unheard."""
        ...


class Edges(Protocol):
    """The edges, each at the end of one stream. Nothing here waits: an edge that is slow holds nobody."""

    @property
    def is_in_touch(self) -> bool:
        """Whether every edge that is known can tell of arrivals at the moment."""
        ...

    @property
    def backlog(self) -> int:
        """How many deliveries wait for the edge that has the most."""
        ...

    def push(self, edge_id: str, deliveries: list[Delivery]) -> None:
        """Sends deliveries to an edge, each only if the edge still has the boot of its route."""
        ...

    def seen(self, edge_ids: Iterable[str]) -> None:
        """Learns that edges exist, and keeps a stream to each for a while."""
        ...

    def verify_all(self, reason: str, spread_ms: int) -> None:
        """Asks every edge, now or when it can be reached again, to let all its sessions read their logs.

        Args:
            reason: For people.
            spread_ms: Over how long the edges spread the reads.
        """
        ...

    def sweep(self) -> None:
        """Ends the streams to edges that have not been seen for long."""
        ...
