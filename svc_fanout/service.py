"""The rules of the carrier: whom an item is pushed to, and what happens to what did not arrive."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from svc_fanout.model import Delivery, Hint, Located, Route, UserId
from svc_fanout.ports import MAX_LOCATED_USERS
from svc_fanout.protocol import RouteMemory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chappe.runtime.clock import Clock
    from svc_fanout.ports import Edges, Registry

MAX_GONE_ROUTES = 65_536
_NOWHERE: tuple[Route, ...] = ()


class FanoutService:
    """Finds the devices of hints, and decides what goes to which edge."""

    def __init__(self, registry: Registry, edges: Edges, clock: Clock) -> None:
        self._registry = registry
        self._edges = edges
        self._clock = clock
        self._memory = RouteMemory()
        self.recalled_users = 0
        # A dictionary without values keeps the order and drops doubles.
        self._gone: dict[Route, None] = {}

    async def locate(self, hints: Sequence[Hint]) -> Located:
        """Returns where the users of hints are, and tells the registry the routes that were found gone.

        Raises:
            ChappeError: The registry does not answer; the hints cannot be delivered.
        """
        users = dict.fromkeys(chain.from_iterable(hint.user_ids for hint in hints))
        now_s = self._clock.monotonic_s()
        routes, unknown = self._memory.recall(users, now_s)
        self.recalled_users += len(users) - len(unknown)
        gone = self._take_gone()
        if not unknown and not gone:
            return Located(routes, [])
        question = self._memory.begin()
        try:
            asked = await self._ask(unknown, gone)
            are_arrivals_told = self._edges.is_in_touch
            self._memory.keep(question, unknown, asked.routes, now_s, are_arrivals_told=are_arrivals_told)
        finally:
            self._memory.end()
        return Located({**routes, **asked.routes}, asked.edge_ids)

    async def _ask(self, users: list[UserId], gone: list[Route]) -> Located:
        if len(users) <= MAX_LOCATED_USERS and len(gone) <= MAX_LOCATED_USERS:
            return await self._registry.locate(users, gone)
        starts = range(0, max(len(users), len(gone)), MAX_LOCATED_USERS)
        parts = await asyncio.gather(
            *(
                self._registry.locate(users[start : start + MAX_LOCATED_USERS], gone[start : start + MAX_LOCATED_USERS])
                for start in starts
            )
        )
        routes = {user_id: found for part in parts for user_id, found in part.routes.items()}
        return Located(routes, [edge_id for part in parts for edge_id in part.edge_ids])

    async def can_locate(self, user_id: UserId) -> None:
        """Returns when the registry answers.

        Raises:
            ChappeError: It does not.
        """
        await self._registry.locate([user_id], [])

    def push(self, hints: Sequence[Hint], located: Located) -> int:
        """Sends every hint to the devices of its users, but for the one that caused it; returns how many those are."""
        self._edges.seen(located.edge_ids)
        deliveries: defaultdict[str, list[Delivery]] = defaultdict(list)
        routes = located.routes
        for hint in hints:
            for user_id in hint.user_ids:
                found: Sequence[Route] = routes.get(user_id, _NOWHERE)
                if hint.origin_device_id or hint.only_device_id:
                    found = meant(hint, user_id, found)
                for route in found:
                    deliveries[route.edge_id].append(Delivery(hint, route))
        for edge_id, batch in deliveries.items():
            self._edges.push(edge_id, batch)
        return sum(map(len, deliveries.values()))

    def returned(self, deliveries: Sequence[Delivery]) -> list[Hint]:
        """Takes note of routes that are gone, and returns the hints that deserve a second attempt.

        A device that is not found twice is gone: its next session reads the log.
        """
        for delivery in deliveries:
            if len(self._gone) < MAX_GONE_ROUTES:
                self._gone[delivery.route] = None
        return self.unreachable(deliveries)

    def unreachable(self, deliveries: Sequence[Delivery]) -> list[Hint]:
        """Returns the hints that deserve a second attempt: their devices may have gone to an edge that answers.

        The routes stay in the registry, for without them a session that lives on would get nothing by push once its
        edge answers again.
        """
        self._memory.forget(delivery.route.user_id for delivery in deliveries)
        return [
            hint._replace(user_ids=(route.user_id,), only_device_id=route.device_id, grant=_grant_nothing)
            for hint, route in deliveries
            if not hint.only_device_id
        ]

    def arrived(self, user_ids: Iterable[UserId]) -> None:
        """Learns that sessions of users have begun: what is remembered of where they are is out of date."""
        self._memory.forget(user_ids)

    def lost_touch(self) -> None:
        """Learns that the stream to an edge began or ended: arrivals may have gone unheard."""
        self._memory.clear()

    def _take_gone(self) -> list[Route]:
        if not self._gone:
            return []
        gone, self._gone = list(self._gone), {}
        return gone


def meant(hint: Hint, user_id: UserId, routes: Sequence[Route]) -> Sequence[Route]:
    """Returns the devices of a user that a hint is for: without its origin, and on a second attempt one alone."""
    if hint.only_device_id:
        routes = [route for route in routes if route.device_id == hint.only_device_id]
    if hint.origin_device_id and hint.key.endswith(user_id):
        routes = [route for route in routes if route.device_id != hint.origin_device_id]
    return routes


def _grant_nothing(hints: int) -> None:
    """Stands in where credit was given back already: at the end of the first attempt."""
