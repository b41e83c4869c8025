"""What the carrier remembers of where users are, and for how long; and how fast it goes. No I/O.

Asking svc_presence for every item would cost more than everything else that the carrier does: two questions for each
message, one for it and one for its receipt. What is remembered may be out of date in two ways. A route may be gone: the
edge says so, and the registry is asked anew. A device may be there that is not remembered: its edge tells every carrier
of it before it reads the device's log, and lets the session read its log once more after `ROUTE_MEMORY_S`, for the
carriers that it could not tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from svc_fanout.model import Route, UserId

ROUTE_MEMORY_S = 10.0
"""How long an answer of the registry is used; the contract of Locate allows no more."""
ABSENCE_MEMORY_S = 1.0
"""How long "is nowhere" is used: an edge that this carrier has never heard of cannot tell it of an arrival."""
MAX_REMEMBERED = 200_000

_NOWHERE: tuple[Route, ...] = ()


class _Memory(NamedTuple):
    """The routes of one user, until a monotonic time."""

    until_s: float
    routes: Sequence[Route]


class RouteMemory:
    """Where users were found within the last seconds.

    An answer is not kept for users who arrived somewhere after its question was asked.
    """

    def __init__(self) -> None:
        self._known: dict[UserId, _Memory] = {}
        self._questions = 0
        self._last_question = 0
        self._unsure: dict[UserId, int] = {}
        self._all_unsure = 0

    def recall(self, user_ids: Iterable[UserId], now_s: float) -> tuple[dict[UserId, Sequence[Route]], list[UserId]]:
        """Returns the routes of the users who are remembered to be somewhere, and who is not remembered at all."""
        known = self._known
        routes: dict[UserId, Sequence[Route]] = {}
        unknown: list[UserId] = []
        for user_id in user_ids:
            memory = known.get(user_id)
            if memory is None or memory[0] <= now_s:
                unknown.append(user_id)
            elif memory[1]:
                routes[user_id] = memory[1]
        return routes, unknown

    def begin(self) -> int:
        """Notes that a question is asked; returns its number."""
        self._questions += 1
        self._last_question += 1
        return self._last_question

    def end(self) -> None:
        """Notes that a question has been answered, or has failed."""
        self._questions -= 1
        if not self._questions:
            self._unsure.clear()

    def keep(
        self,
        question: int,
        user_ids: Iterable[UserId],
        routes: Mapping[UserId, Sequence[Route]],
        asked_s: float,
        *,
        are_arrivals_told: bool,
    ) -> None:
        """Remembers the answer to a question.

        Args:
            question: Its number.
            user_ids: The users who were asked for.
            routes: The routes of those who are somewhere.
            asked_s: The monotonic time at which it was asked.
            are_arrivals_told: Whether every edge that is known can tell of arrivals; if not, nobody is remembered to be
                nowhere.
        """
        if question <= self._all_unsure:
            return
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        unsure = self._unsure
        for user_id in user_ids:
            found = routes.get(user_id, _NOWHERE)
            if question > unsure.get(user_id, 0) and (found or are_arrivals_told):
                self._known[user_id] = _Memory(asked_s + (ROUTE_MEMORY_S if found else ABSENCE_MEMORY_S), found)

    def forget(self, user_ids: Iterable[UserId]) -> None:
        """Forgets users who have arrived somewhere, or whose routes are gone."""
        for user_id in user_ids:
            self._known.pop(user_id, None)
            if self._questions:
                self._unsure[user_id] = self._last_question

    def clear(self) -> None:
        """Forgets everybody: arrivals may have gone unheard."""
        self._known.clear()
        self._all_unsure = self._last_question


class Pace:
    """Caps what goes out in a second, in debts: whatever is due goes whole, and what follows waits until it is paid."""

    def __init__(self, per_second: float, now_s: float) -> None:
        self._per_second = per_second
        self._paid_until_s = now_s

    def spend(self, count: int, now_s: float) -> None:
        """Notes that so much has gone out."""
        self._paid_until_s = max(self._paid_until_s, now_s) + count / self._per_second

    def delay_s(self, now_s: float) -> float:
        """Returns for how long nothing more may go out; 0 for now."""
        return max(self._paid_until_s - now_s, 0.0)
