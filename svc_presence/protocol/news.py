"""What one edge is still to be told: for each watch the newest state only, so that a slow edge costs no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from svc_presence.model import Typist, View


class Bulletin(NamedTuple):
    """What goes into one message, by state: each with the numbers of the watches that are told it."""

    presences: dict[View, list[int]]
    typing: dict[tuple[Typist, ...], list[int]]
    size: int
    """How many watches are told something."""


class News:
    """The news of one edge; a `Feed`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Makes an edge that knows everything.

        Args:
            wake: Told that there is something to tell; must not wait.
        """
        self._wake = wake
        self._presences: dict[int, View] = {}
        self._typing: dict[int, tuple[Typist, ...]] = {}
        self.credit = 0
        """How many watches the edge is ready to be told of."""

    def __len__(self) -> int:
        return len(self._presences) + len(self._typing)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to tell and credit to tell it."""
        return self.credit > 0 and bool(self._presences or self._typing)

    def tell_presence(self, number: int, view: View) -> None:
        """Tells a watch how its person is."""
        self._presences[number] = view
        self._wake()

    def tell_typing(self, number: int, typists: tuple[Typist, ...]) -> None:
        """Tells a watch who is writing in its conversation."""
        self._typing[number] = typists
        self._wake()

    def forget(self, number: int) -> None:
        """Forgets what a watch was to be told."""
        self._presences.pop(number, None)
        self._typing.pop(number, None)

    def grant(self, items: int) -> None:
        """Learns that the edge takes more."""
        self.credit += items
        self._wake()

    def take(self, most: int) -> Bulletin:
        """Takes out what may be told now, typing first: it is of no use later."""
        left = min(most, self.credit)
        typing: dict[tuple[Typist, ...], list[int]] = {}
        presences: dict[View, list[int]] = {}
        for number in list(self._typing)[:left]:
            typing.setdefault(self._typing.pop(number), []).append(number)
            left -= 1
        for number in _first(self._presences, left):
            presences.setdefault(self._presences.pop(number), []).append(number)
            left -= 1
        count = min(most, self.credit) - left
        self.credit -= count
        return Bulletin(presences, typing, count)


def _first(items: dict[int, View], most: int) -> list[int]:
    """Returns the oldest keys without a copy of all of them."""
    found: list[int] = []
    for number in items:
        if len(found) == most:
            break
        found.append(number)
    return found
