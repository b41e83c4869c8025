"""What several processes of one profile want to be told of others, as one wish; and who is told what. No I/O."""

from collections.abc import Hashable, Sequence

from chappe.client.destination import Destination
from chappe.client.presence_views import PresenceChanged, TypingChanged, WatchRefused
from chappe.client.views import Event


class Looking:
    """The wishes of all of a profile's processes."""

    def __init__(self) -> None:
        self._people: dict[Hashable, frozenset[bytes]] = {}
        self._chats: dict[Hashable, tuple[Destination, ...]] = {}
        self._presences: dict[bytes, PresenceChanged] = {}
        self._typing: dict[bytes, TypingChanged] = {}

    @property
    def people(self) -> frozenset[bytes]:
        """Everybody whom somebody watches."""
        return frozenset[bytes]().union(*self._people.values())

    @property
    def chats(self) -> tuple[Destination, ...]:
        """Every chat that somebody looks at; what was looked at last comes first."""
        return tuple(dict.fromkeys(chat for chats in reversed(self._chats.values()) for chat in chats))

    def watch(self, seat: Hashable, user_ids: frozenset[bytes]) -> list[PresenceChanged]:
        """Takes a wish; returns what is known of those who are new to this process and not new to all."""
        new = user_ids - self._people.get(seat, frozenset())
        self._people[seat] = user_ids
        self._forget()
        return [self._presences[user_id] for user_id in sorted(new) if user_id in self._presences]

    def look_at(self, seat: Hashable, chats: tuple[Destination, ...]) -> list[TypingChanged]:
        """Takes a wish; returns who is known to be typing in the chats that are new to this process."""
        before = self._chats.pop(seat, ())
        self._chats[seat] = chats
        self._forget()
        new = [chat.conversation_id for chat in chats if chat not in before]
        return [self._typing[id_] for id_ in new if id_ in self._typing]

    def leave(self, seat: Hashable) -> None:
        """Forgets the wishes of a process."""
        self._people.pop(seat, None)
        self._chats.pop(seat, None)
        self._forget()

    def told(self, event: Event, seats: Sequence[Hashable]) -> list[Hashable]:
        """Takes note of an event; returns which processes it concerns: what is told of others, those who asked."""
        match event:
            case PresenceChanged():
                self._presences[event.user_id] = event
                return [seat for seat in seats if event.user_id in self._people.get(seat, ())]
            case TypingChanged():
                self._typing[event.conversation_id] = event
                return [seat for seat in seats if event.conversation_id in self._open_ids(seat)]
            case WatchRefused():
                gone = frozenset(event.user_ids)
                concerned = [seat for seat in seats if gone & self._people.get(seat, frozenset())]
                self._people = {seat: user_ids - gone for seat, user_ids in self._people.items()}
                return concerned or list(seats)
            case _:
                return list(seats)

    def _forget(self) -> None:
        """Forgets what nobody wants to know: of that no more is told, so that it would soon be wrong."""
        people, open_ids = self.people, {chat.conversation_id for chat in self.chats}
        self._presences = {user_id: told for user_id, told in self._presences.items() if user_id in people}
        self._typing = {id_: told for id_, told in self._typing.items() if id_ in open_ids}

    def _open_ids(self, seat: Hashable) -> set[bytes]:
        return {chat.conversation_id for chat in self._chats.get(seat, ())}
