"""Who is told of whose presence.

The store is asked about people and the directory about pairs of viewer and person, both in batches. Nothing is told
before both have answered, and a viewer is never told more than the directory allows: where it does not answer, or its
copies are out of lease, that nobody can say.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.model import Presence, Sight, UserId, View
from svc_presence.protocol.audience import Audience, Watch
from svc_presence.protocol.person import RETRY_S
from svc_presence.protocol.trust import Trust, Trusting
from svc_presence.service.people import People

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_presence.ports import Directory, Feed, PresenceStore
    from svc_presence.protocol.person import Person

UNKNOWN = View(Presence.UNKNOWN, 0)
HIDDEN = View(Presence.HIDDEN, 0)

_log = logging.getLogger(__name__)


class Watching:
    """The viewers of people."""

    def __init__(self, store: PresenceStore, directory: Directory, *, clock: Clock, tasks: Tasks) -> None:
        """Starts to work.

        Args:
            store: What is known of people.
            directory: Who may see what.
            clock: For deadlines.
            tasks: Owns the asking.
        """
        self._directory = directory
        self._clock = clock
        self._audience: Audience[Watch] = Audience()
        self.people = People(store, self._changed, clock=clock, tasks=tasks)
        """Those who are watched."""
        self._unjudged: dict[Watch, None] = {}
        self._judge_again_s = 0.0
        self._trusting = Trusting(clock.monotonic_s())
        self._trusting.follow(clock.monotonic_s(), is_fresh=directory.is_fresh)
        # One after the other, so that an answer never overtakes one that was asked for later.
        self._judging: Batcher[Watch] = Batcher(self._judge, tasks, name="judge")
        self.told = 0
        """How many times a watch was told something."""

    @property
    def watch_count(self) -> int:
        """How many watches there are."""
        return len(self._audience)

    def watch(self, feed: Feed, number: int, viewer_id: UserId, target_id: UserId) -> None:
        """Begins to tell a viewer behind an edge of a person."""
        self.unwatch(feed, number)
        watch = Watch(feed, number, viewer_id, target_id)
        self._audience.add(watch)
        person = self.people.watched(target_id)
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
        self.people.tick()
        now_s = self._clock.monotonic_s()
        if self._unjudged and now_s >= self._judge_again_s:
            self._judge_again_s = now_s + RETRY_S
            unjudged, self._unjudged = self._unjudged, {}
            self._judging.extend(unjudged)
        if self._trusting.follow(now_s, is_fresh=self._directory.is_fresh):
            for watch in self._audience:
                self._show(watch, self.people.get(watch.topic_id))

    async def _judge(self, watches: list[Watch]) -> None:
        """Asks the directory how much may be seen."""
        asked = [(watch, watch.ticket) for watch in watches if watch.sight is None]
        try:
            sights = await self._directory.sights([(watch.viewer_id, watch.topic_id) for watch, _ in asked])
        except ChappeError as error:
            _log.warning("who may see what could not be read for %d watches: %s", len(asked), error)
            for watch, _ in asked:
                watch.is_unjudged = True
                self._unjudged[watch] = None
                self._show(watch, self.people.get(watch.topic_id))
            return
        for (watch, ticket), sight in zip(asked, sights, strict=True):
            if watch.ticket == ticket:
                watch.sight = sight
                watch.is_unjudged = False
                self._show(watch, self.people.get(watch.topic_id))

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
            self.people.forget(watch.topic_id)

    def _changed(self, user_id: UserId, person: Person) -> None:
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
        if self._trusting.trust is not Trust.FULL:
            return UNKNOWN if self._trusting.trust is Trust.LOST else None
        return None if person.presence is None else view_of(watch.sight, person.presence, person.last_seen_ms)


def view_of(sight: Sight, presence: Presence, last_seen_ms: int) -> View:
    """Returns what a viewer is told of a person that it may see something of."""
    return View(presence, last_seen_ms if sight is Sight.LAST_SEEN else 0)
