"""The people who are watched: what is believed of each, and when the store is asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.protocol.deadlines import Deadlines
from svc_presence.protocol.person import Person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_presence.model import UserId
    from svc_presence.ports import PresenceStore

_log = logging.getLogger(__name__)


class People:
    """Everybody who is watched. Signs of life of others cost a look into a table, and nothing else."""

    def __init__(
        self, store: PresenceStore, on_news: Callable[[UserId, Person], None], *, clock: Clock, tasks: Tasks
    ) -> None:
        """Starts to work.

        Args:
            store: What is known of people.
            on_news: Told whenever something else is believed of somebody.
            clock: For deadlines.
            tasks: Owns the asking.
        """
        self._store = store
        self._on_news = on_news
        self._clock = clock
        self._people: dict[UserId, Person] = {}
        self._deadlines: Deadlines[UserId] = Deadlines()
        self._looks: Batcher[UserId] = Batcher(self._look, tasks, name="read-presence")
        # Whoever was to be asked about has no deadline by now, and would stay as it is believed to be for ever.
        self._looks.on_failure = self.unsure

    def __len__(self) -> int:
        return len(self._people)

    def get(self, user_id: UserId) -> Person | None:
        """Returns somebody who is watched; None for anybody else."""
        return self._people.get(user_id)

    def watched(self, user_id: UserId) -> Person:
        """Learns that somebody more watches a person."""
        person = self._people.get(user_id)
        if person is None:
            person = self._people[user_id] = Person()
        if person.watched(self._clock.monotonic_s()):
            self._looks.add(user_id)
        return person

    def forget(self, user_id: UserId) -> None:
        """Learns that nobody watches a person any more."""
        self._people.pop(user_id, None)
        self._deadlines.drop(user_id)

    def lived(self, user_ids: Iterable[UserId]) -> None:
        """Learns of signs of life that the store has."""
        now_s = self._clock.monotonic_s()
        for user_id in user_ids:
            person = self._people.get(user_id)
            if person is not None:
                self._update(user_id, person, is_news=person.lived(now_s))

    def left(self, user_ids: Iterable[UserId]) -> None:
        """Learns that sessions of people have ended."""
        now_s = self._clock.monotonic_s()
        for user_id in user_ids:
            person = self._people.get(user_id)
            if person is not None:
                person.left(now_s)
                self._update(user_id, person, is_news=False)

    def unsure(self, user_ids: Iterable[UserId]) -> None:
        """Learns that the store did not answer for people."""
        now_s = self._clock.monotonic_s()
        for user_id in user_ids:
            person = self._people.get(user_id)
            if person is not None:
                self._update(user_id, person, is_news=person.unsure(now_s))

    def tick(self) -> None:
        """Does what is due; to be called several times a second."""
        self._looks.extend(self._deadlines.due(self._clock.monotonic_s()))

    async def _look(self, user_ids: list[UserId]) -> None:
        """Asks the store about people."""
        asked = {user_id: person for user_id in user_ids if (person := self._people.get(user_id))}
        events = {user_id: person.events for user_id, person in asked.items()}
        try:
            answers = await self._store.read_presence(list(asked))
        except ChappeError as error:
            _log.warning("what is known of %d people could not be read: %s", len(asked), error)
            self.unsure(asked)
            return
        now_s = self._clock.monotonic_s()
        for (user_id, person), seen in zip(asked.items(), answers, strict=True):
            if person.events != events[user_id]:
                # Something was heard while the store was asked: which of the two is newer cannot be told.
                self._looks.add(user_id)
            elif self._people.get(user_id) is person:
                self._update(user_id, person, is_news=person.read(seen, now_s))

    def _update(self, user_id: UserId, person: Person, *, is_news: bool) -> None:
        self._deadlines.set(user_id, person.due_s)
        if is_news:
            self._on_news(user_id, person)
