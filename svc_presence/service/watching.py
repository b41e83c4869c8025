"""Who is told of whose presence.

Everybody who is watched is one `Person`; the store is asked about people and the directory about pairs of viewer and
person, both in batches. Nothing is told before both have answered, and a viewer is never told more than the directory
allows: where it does not answer, or its copies are out of lease, that nobody can say.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.model import Presence, Sight, UserId, View
from svc_presence.protocol.audience import Audience, Watch
from svc_presence.protocol.deadlines import Deadlines
from svc_presence.protocol.person import RETRY_S, Person

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_presence.ports import Directory, Feed, PresenceStore

UNKNOWN = View(Presence.UNKNOWN, 0)
HIDDEN = View(Presence.HIDDEN, 0)

_log = logging.getLogger(__name__)


class Watching:
    """The people who are watched, and who watches them."""

    def __init__(self, store: PresenceStore, directory: Directory, *, clock: Clock, tasks: Tasks) -> None:
        """Starts to work.

        Args:
            store: What is known of people.
            directory: Who may see what.
            clock: For deadlines.
            tasks: Owns the asking.
        """
        self._store = store
        self._directory = directory
        self._clock = clock
        self._audience: Audience[Watch] = Audience()
        self._people: dict[UserId, Person] = {}
        self._deadlines: Deadlines[UserId] = Deadlines()
        self._unjudged: dict[Watch, None] = {}
        self._judge_again_s = 0.0
        self._is_fresh = directory.is_fresh
        self._looks: Batcher[UserId] = Batcher(self._look, tasks, name="read-presence")
        # One after the other, so that an answer never overtakes one that was asked for later.
        self._judging: Batcher[Watch] = Batcher(self._judge, tasks, name="judge")
        self.told = 0
        """How many times a watch was told something."""

    @property
    def watch_count(self) -> int:
        """How many watches there are."""
        return len(self._audience)

    @property
    def person_count(self) -> int:
        """How many people are watched."""
        return len(self._people)

    def watch(self, feed: Feed, number: int, viewer_id: UserId, target_id: UserId) -> None:
        """Begins to tell a viewer behind an edge of a person."""
        self.unwatch(feed, number)
        watch = Watch(feed, number, viewer_id, target_id)
        self._audience.add(watch)
        person = self._people.get(target_id)
        if person is None:
            person = self._people[target_id] = Person()
        if person.watched(self._clock.monotonic_s()):
            self._looks.add(target_id)
        watch.sight = self._directory.sight(viewer_id, target_id)
        if watch.sight is None:
            self._judging.add(watch)
        self._show(watch, person)

    def unwatch(self, feed: Feed, number: int) -> None:
        """Stops telling a watch, if there is such a one."""
        watch = self._audience.remove(feed, number)
        if watch is not None:
            self._forget(watch)

    def end(self, feed: Feed) -> None:
        """Stops telling an edge."""
        for watch in self._audience.end(feed):
            self._forget(watch)

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
        """Learns that the store did not take what was to be said of people."""
        now_s = self._clock.monotonic_s()
        for user_id in user_ids:
            person = self._people.get(user_id)
            if person is not None:
                self._update(user_id, person, is_news=person.unsure(now_s))

    def user_changed(self, user_id: UserId) -> None:
        """Asks anew who may see what, for everybody who watches a user, and for whom it watches."""
        for watch in [*self._audience.of(user_id), *self._audience.viewing(user_id)]:
            self._doubt(watch)

    def everything_changed(self) -> None:
        """Asks anew who may see what, for all."""
        for watch in self._audience:
            self._doubt(watch)

    def tick(self) -> None:
        """Does what is due; to be called several times a second."""
        now_s = self._clock.monotonic_s()
        self._looks.extend(self._deadlines.due(now_s))
        if self._unjudged and now_s >= self._judge_again_s:
            self._judge_again_s = now_s + RETRY_S
            unjudged, self._unjudged = self._unjudged, {}
            self._judging.extend(unjudged)
        if self._directory.is_fresh is not self._is_fresh:
            self._is_fresh = self._directory.is_fresh
            for watch in self._audience:
                self._show(watch, self._people[watch.topic_id])

    async def _look(self, user_ids: list[UserId]) -> None:
        """Asks the store about people."""
        asked = {user_id: person for user_id in user_ids if (person := self._people.get(user_id))}
        events = {user_id: person.events for user_id, person in asked.items()}
        if not asked:
            return
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

    async def _judge(self, watches: list[Watch]) -> None:
        """Asks the directory how much may be seen."""
        asked = [(watch, watch.ticket) for watch in watches if watch.sight is None]
        if not asked:
            return
        try:
            sights = await self._directory.sights([(watch.viewer_id, watch.topic_id) for watch, _ in asked])
        except ChappeError as error:
            _log.warning("who may see what could not be read for %d watches: %s", len(asked), error)
            for watch, _ in asked:
                watch.is_unjudged = True
                self._unjudged[watch] = None
                self._show(watch, self._people.get(watch.topic_id))
            return
        for (watch, ticket), sight in zip(asked, sights, strict=True):
            if watch.ticket == ticket:
                watch.sight = sight
                watch.is_unjudged = False
                self._show(watch, self._people.get(watch.topic_id))

    def _doubt(self, watch: Watch) -> None:
        watch.ticket += 1
        watch.sight = None
        self._judging.add(watch)

    def _forget(self, watch: Watch) -> None:
        # What the directory answers for it now concerns nobody.
        watch.ticket += 1
        watch.sight = Sight.NOTHING
        self._unjudged.pop(watch, None)
        if watch.topic_id not in self._audience:
            self._people.pop(watch.topic_id, None)
            self._deadlines.drop(watch.topic_id)

    def _update(self, user_id: UserId, person: Person, *, is_news: bool) -> None:
        self._deadlines.set(user_id, person.due_s)
        if is_news:
            for watch in self._audience.of(user_id):
                self._show(watch, person)

    def _show(self, watch: Watch, person: Person | None) -> None:
        """Tells a watch what it may know, if that is something new."""
        view = None if person is None else self._view(watch, person)
        if view is not None and view != watch.shown:
            watch.shown = view
            self.told += 1
            watch.feed.tell_presence(watch.number, view)

    def _view(self, watch: Watch, person: Person) -> View | None:
        """Returns what a watch may know; None while that is being found out."""
        if watch.sight is None:
            return UNKNOWN if watch.is_unjudged else None
        if watch.sight is Sight.NOTHING:
            return HIDDEN
        if not self._is_fresh:
            return UNKNOWN
        return None if person.presence is None else view_of(watch.sight, person.presence, person.last_seen_ms)


def view_of(sight: Sight, presence: Presence, last_seen_ms: int) -> View:
    """Returns what a viewer is told of a person that it may see something of."""
    return View(presence, last_seen_ms if sight is Sight.LAST_SEEN else 0)
