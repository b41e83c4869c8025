"""The `Watches` port over svc_presence: every topic is told by the replica that rendezvous hashing names for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from chappe.runtime.batching import Batcher
from svc_edge.adapters.track_grpc import Begin, End
from svc_edge.model import Opened, Presence, TypingKind, Typist, UserId, View, Watched

if TYPE_CHECKING:
    from chappe.api.presence.v1 import track_pb2
    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_edge.adapters.track_grpc import Lane
    from svc_edge.model import Topic, Typing
    from svc_edge.ports import WatchListener

GRACE_S = 1.0
"""When no replica is there for so long, nobody can say any more how people are."""
_PRESENCES = {int(presence): presence for presence in Presence}
_KINDS = {int(kind): kind for kind in TypingKind}


class Lanes(Protocol):
    """Knows the replicas that take something at the moment."""

    def lane_for(self, key: bytes) -> Lane | None:
        """Returns the replica that wins a user's or a conversation's id; None when none is there."""
        ...


class GrpcWatches:
    """Places topics on replicas, and places them anew when other replicas are there.

    A topic that is placed anew has a new number, so that what its former replica still says of it meets nobody.
    """

    listener: WatchListener

    def __init__(self, lanes: Lanes, *, tasks: Tasks, clock: Clock) -> None:
        """Prepares.

        Args:
            lanes: The replicas.
            tasks: Owns the moving.
            clock: For how long nobody need answer.
        """
        self._lanes = lanes
        self._clock = clock
        self._tasks = tasks
        self._placed: dict[Topic, tuple[Lane, int] | None] = {}
        self._numbers: dict[int, Topic] = {}
        self._last_number = 0
        # Many at once would hold the loop, so they are moved a batch at a time.
        self._moves: Batcher[Topic] = Batcher(self._move, tasks, name="move-watches")
        self.moved = 0
        """How many topics were placed on another replica."""

    def subscribe(self, topic: Topic) -> None:
        """Begins to be told of a topic."""
        if topic not in self._placed:
            self._placed[topic] = None
            self._place(topic)

    def unsubscribe(self, topic: Topic) -> None:
        """Stops being told of a topic."""
        self._lift(topic)
        self._placed.pop(topic, None)

    def type(self, typing: Typing) -> None:
        """Says that somebody is writing, or no longer."""
        lane = self._lanes.lane_for(typing.conversation.conversation_id)
        if lane is not None:
            lane.client.add(typing)

    def lanes_changed(self) -> None:
        """Learns that a replica is there, or is no longer named: topics may belong to another one."""
        self._moves.extend(list(self._placed))

    def lane_closed(self, lane: Lane) -> None:
        """Learns that a replica is gone: its topics go to another one, or wait for a while."""
        orphans = [topic for topic, place in self._placed.items() if place is not None and place[0] is lane]
        for topic in orphans:
            self._displace(topic)
        self._moves.extend(orphans)
        if orphans:
            self._tasks.spawn(self._give_up(), name="give up watches")

    def news(self, news: track_pb2.TrackNews) -> None:
        """Passes news on; what concerns a number that is no longer placed meets nobody."""
        told = self.listener.told
        for presence in news.presences:
            view = View(_PRESENCES.get(presence.state, Presence.UNKNOWN), presence.last_seen_ms)
            for number in presence.watch_numbers:
                topic = self._numbers.get(number)
                if topic is not None:
                    told(topic, view)
        for typing in news.typing:
            typists = tuple(
                Typist(UserId(one.user_id), _KINDS.get(one.kind, TypingKind.TEXT)) for one in typing.typists
            )
            for number in typing.watch_numbers:
                topic = self._numbers.get(number)
                if topic is not None:
                    told(topic, typists)

    async def _move(self, topics: list[Topic]) -> None:
        for topic in topics:
            if topic in self._placed:
                self._place(topic)
        await asyncio.sleep(0)

    def _place(self, topic: Topic) -> None:
        key = topic.target_id if isinstance(topic, Watched) else topic.conversation.conversation_id
        lane, place = self._lanes.lane_for(key), self._placed[topic]
        if lane is None or (place is not None and place[0] is lane):
            return
        if place is not None:
            self.moved += 1
            self._displace(topic)
        self._last_number += 1
        self._placed[topic] = lane, self._last_number
        self._numbers[self._last_number] = topic
        lane.client.add(Begin(self._last_number, topic))

    def _displace(self, topic: Topic) -> None:
        self._lift(topic)
        if isinstance(topic, Opened):
            # Its next replica says nothing where nobody is writing, and what the former one said would stand for ever.
            self.listener.told(topic, ())

    def _lift(self, topic: Topic) -> None:
        place = self._placed.get(topic)
        if place is None:
            return
        lane, number = place
        self._placed[topic] = None
        del self._numbers[number]
        if lane.is_accepting:
            lane.client.add(End(number))

    async def _give_up(self) -> None:
        await self._clock.sleep(GRACE_S)
        self.listener.lost([topic for topic, place in self._placed.items() if place is None])
