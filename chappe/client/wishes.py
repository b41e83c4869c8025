"""What a process wants to be told of others; said again to every link that it gets."""

from collections.abc import Iterable

from chappe.client.destination import Destination
from chappe.client.link import Link


class Wishes:
    """Whom this process watches and which chats it looks at."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._people: frozenset[bytes] = frozenset()
        self._chats: tuple[Destination, ...] = ()

    def use(self, link: Link | None) -> None:
        """Says everything to a link; None while there is none."""
        self._link = link
        if link is not None:
            link.watch(self._people)
            link.look_at(self._chats)

    def watch(self, user_ids: Iterable[bytes]) -> None:
        """Asks to be told of people, too."""
        self._want(self._people | frozenset(user_ids))

    def unwatch(self, user_ids: Iterable[bytes]) -> None:
        """Asks to be told of people no more."""
        self._want(self._people - frozenset(user_ids))

    def refused(self, user_ids: Iterable[bytes]) -> None:
        """Learns that people are not watched; they may be asked for again."""
        self._people -= frozenset(user_ids)

    def look_at(self, chats: Iterable[Destination]) -> None:
        """Asks to be told who is typing in these chats, and in no others."""
        self._chats = tuple(chats)
        if self._link is not None:
            self._link.look_at(self._chats)

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets the others in a chat see that the user is typing, or no longer; forgotten without a link."""
        if self._link is not None:
            self._link.type(chat, kind, is_over=is_over)

    def _want(self, people: frozenset[bytes]) -> None:
        self._people = people
        if self._link is not None:
            self._link.watch(people)
