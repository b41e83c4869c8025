"""One Track stream to one replica of svc_presence: what goes out, what comes back, and what was not answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from chappe.api.presence.v1 import track_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2, stream_pb2
from chappe.runtime.streams import DialHandler, Identity, StreamClient
from svc_edge.model import ConnectOutcome, SessionId, Typing, Watched

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from svc_edge.adapters.presence_goodbyes import Goodbyes
    from svc_edge.adapters.watches_grpc import GrpcWatches
    from svc_edge.model import Conversation, SessionRef, Topic
    from svc_edge.ports import RegistryListener

NEWS_WINDOW = 16_384
"""How many watches the edge takes news of before it grants more; it grants when a quarter has come."""
_PREFIX = "ERROR_REASON_"


class Change(NamedTuple):
    """A session that begins (with a number, a nonce and how long ago it began), lives, or ended."""

    session: SessionRef
    connect_id: int = 0
    nonce: bytes = b""
    age_ms: int = 0
    is_bye: bool = False


class Begin(NamedTuple):
    """A topic that is to be told of, under a number."""

    number: int
    topic: Topic


class End(NamedTuple):
    """The number of a topic that is no longer to be told of."""

    number: int


class Grant(NamedTuple):
    """As many more news may come as were taken; one in a batch, for the registry counts one."""


Item = Change | Begin | End | Typing | Grant


class _Sent(NamedTuple):
    """What of a batch needs an answer."""

    connect_ids: list[int]
    byes: list[SessionRef]


class LaneOwner(Protocol):
    """Takes what happens on a lane."""

    listener: RegistryListener
    watches: GrpcWatches
    goodbyes: Goodbyes

    def lane_opened(self, lane: Lane) -> None:
        """Learns that a stream stands: its registry may know nothing of what went before."""
        ...

    def lane_closed(self, lane: Lane) -> None:
        """Learns that a stream has ended."""
        ...


class Lane(DialHandler[Item, track_pb2.TrackRequest, track_pb2.TrackResponse]):
    """One replica's stream and the connects that it has not answered."""

    client: StreamClient[Item, track_pb2.TrackRequest, track_pb2.TrackResponse]

    def __init__(self, owner: LaneOwner, identity: Identity, edge_id: Callable[[], str]) -> None:
        self._owner = owner
        self._identity = identity
        self._edge_id = edge_id
        self._sent: dict[int, _Sent] = {}
        self._refreshing: set[SessionId] = set()
        self._ungranted = 0
        self._is_granting = False
        self.pending: dict[int, asyncio.Future[ConnectOutcome | None]] = {}
        """Who waits for the answer to a connect, by its number."""

    @property
    def is_accepting(self) -> bool:
        """Whether what is added now goes out on the present stream."""
        return self.client.is_accepting

    def refresh(self, session: SessionRef) -> None:
        """Says that a session lives; once, when that still waits to be said."""
        if session.session_id not in self._refreshing:
            self._refreshing.add(session.session_id)
            self.client.add(Change(session))

    def hello(self) -> track_pb2.TrackRequest:
        """Returns the first message."""
        return track_pb2.TrackRequest(hello=self._identity.hello(NEWS_WINDOW), edge_id=self._edge_id())

    def encode(self, number: int, items: list[Item]) -> track_pb2.TrackRequest:
        """Returns one batch, without connects that nobody waits for: they would end sessions that came meanwhile."""
        wanted = [item for item in items if isinstance(item, Change)]
        changes = [change for change in wanted if not change.connect_id or change.connect_id in self.pending]
        self.client.credits += len(wanted) - len(changes)
        connects = [change for change in changes if change.connect_id]
        byes = [change.session for change in changes if change.is_bye]
        refreshes = [change.session for change in changes if not change.connect_id and not change.is_bye]
        self._refreshing.difference_update(session.session_id for session in refreshes)
        if changes:
            self._sent[number] = _Sent([change.connect_id for change in connects], byes)
        begins = [item for item in items if isinstance(item, Begin)]
        batch = track_pb2.TrackBatch(
            number=number,
            connects=[
                track_pb2.Connect(
                    item_id=change.connect_id,
                    session=_reference(change.session),
                    nonce=change.nonce,
                    age_ms=change.age_ms,
                )
                for change in connects
            ],
            refreshes=[_reference(session) for session in refreshes],
            byes=[_reference(session) for session in byes],
            typing=[_signal(item) for item in items if isinstance(item, Typing)],
            watches=[_watch(begin.number, topic) for begin in begins if isinstance(topic := begin.topic, Watched)],
            openings=[_opening(begin) for begin in begins if not isinstance(begin.topic, Watched)],
            unwatches=[item.number for item in items if isinstance(item, End)],
        )
        if any(isinstance(item, Grant) for item in items):
            batch.news_credit, self._ungranted, self._is_granting = self._ungranted, 0, False
        return track_pb2.TrackRequest(batch=batch)

    def drain(self, reason: str) -> track_pb2.TrackRequest:
        """Returns the drain marker."""
        return track_pb2.TrackRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - any boot of the registry will do
        """Learns that the stream stands."""
        self._ungranted, self._is_granting = 0, False
        self._owner.lane_opened(self)

    def received(self, kind: str, response: track_pb2.TrackResponse) -> None:
        """Takes answers and news."""
        if kind == "results":
            self._take_results(response.results)
        elif kind == "news":
            self._owner.watches.news(response.news)
            self._grant(response.news)

    def closed(self, unsent: list[Item], *, is_clean: bool) -> None:  # noqa: ARG002 - state is sent again either way
        """Learns that the stream has ended."""
        byes = [session for sent in self._sent.values() for session in sent.byes]
        byes += [item.session for item in unsent if isinstance(item, Change) and item.is_bye]
        self._sent.clear()
        self._refreshing.clear()
        for connect_id in list(self.pending):
            self._resolve(connect_id, None)
        self._owner.lane_closed(self)
        self._owner.goodbyes.add(byes)

    def _take_results(self, results: track_pb2.TrackResults) -> None:
        for answer in results.connects:
            refusal = error_reason_pb2.ErrorReason.Name(answer.refused_reason).removeprefix(_PREFIX)
            refusal = refusal if answer.refused_reason else ""
            self._resolve(answer.item_id, ConnectOutcome(refusal, SessionId(answer.replaced_session_id)))
        sent = self._sent.pop(results.number, None)
        if sent is not None:
            for connect_id in sent.connect_ids:
                self._resolve(connect_id, None)
            if results.is_failed:
                self._owner.goodbyes.add(sent.byes)
        for session_id in results.replaced_session_ids:
            self._owner.listener.replaced(SessionId(session_id))

    def _grant(self, news: track_pb2.TrackNews) -> None:
        self._ungranted += sum(len(one.watch_numbers) for one in news.presences)
        self._ungranted += sum(len(one.watch_numbers) for one in news.typing)
        if self._ungranted * 4 >= NEWS_WINDOW and not self._is_granting:
            self._is_granting = True
            self.client.add(Grant())

    def _resolve(self, connect_id: int, outcome: ConnectOutcome | None) -> None:
        future = self.pending.pop(connect_id, None)
        if future is not None and not future.done():
            future.set_result(outcome)


def _reference(session: SessionRef) -> track_pb2.SessionRef:
    return track_pb2.SessionRef(user_id=session.user_id, device_id=session.device_id, session_id=session.session_id)


def _ref(conversation: Conversation) -> presence_pb2.ConversationRef:
    if conversation.group_id:
        return presence_pb2.ConversationRef(group_id=conversation.group_id)
    return presence_pb2.ConversationRef(peer_user_id=conversation.peer_id)


def _signal(typing: Typing) -> track_pb2.TypingSignal:
    kind: Any = int(typing.kind)
    return track_pb2.TypingSignal(
        user_id=typing.user_id, conversation=_ref(typing.conversation), kind=kind, is_over=typing.is_over
    )


def _watch(number: int, topic: Watched) -> track_pb2.PresenceWatch:
    return track_pb2.PresenceWatch(number=number, viewer_user_id=topic.viewer_id, target_user_id=topic.target_id)


def _opening(begin: Begin) -> track_pb2.TypingWatch:
    topic: Any = begin.topic
    return track_pb2.TypingWatch(
        number=begin.number, viewer_user_id=topic.viewer_id, conversation=_ref(topic.conversation)
    )
