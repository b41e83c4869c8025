"""What a process wants to be told of others, said again to every link that it gets; and what it was told."""

from collections.abc import Iterable
from dataclasses import replace

from chappe.client.destination import Destination
from chappe.client.link import Link
from chappe.client.presence_views import Presence, PresenceChanged, TypingChanged
from chappe.client.views import Event


class Wishes:
    """Whom this process watches and which chats it looks at."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._people: frozenset[bytes] = frozenset()
        self._chats: tuple[Destination, ...] = ()
        self._present: set[bytes] = set()
        """Of whom this process was told how they are."""
        self._typing: dict[bytes, TypingChanged] = {}
        """By conversation, who is writing as far as this process was told."""

    def told(self, event: Event) -> None:
        """Takes note of what is shown of others."""
        if isinstance(event, PresenceChanged):
            (self._present.discard if event.presence is Presence.UNKNOWN else self._present.add)(event.user_id)
        elif isinstance(event, TypingChanged) and event.typists:
            self._typing[event.conversation_id] = event
        elif isinstance(event, TypingChanged):
            self._typing.pop(event.conversation_id, None)

    def lost(self) -> list[Event]:
        """Learns that there is no link any more; returns what no longer holds of what was told by it."""
        self._link = None
        present, self._present = self._present, set()
        typing, self._typing = self._typing, {}
        unknown = [PresenceChanged(user_id=user_id, presence=Presence.UNKNOWN) for user_id in sorted(present)]
        return [*unknown, *(replace(event, typists=()) for event in typing.values())]

    def use(self, link: Link) -> None:
        """Says everything to a link."""
        self._link = link
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
        self._present &= self._people

    def look_at(self, chats: Iterable[Destination]) -> None:
        """Asks to be told who is typing in these chats, and in no others."""
        self._chats = tuple(chats)
        open_ids = {chat.conversation_id for chat in self._chats}
        self._typing = {id_: event for id_, event in self._typing.items() if id_ in open_ids}
        if self._link is not None:
            self._link.look_at(self._chats)

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets the others in a chat see that the user is typing, or no longer; forgotten without a link."""
        if self._link is not None:
            self._link.type(chat, kind, is_over=is_over)

    def _want(self, people: frozenset[bytes]) -> None:
        self._people = people
        self._present &= people
        if self._link is not None:
            self._link.watch(people)
