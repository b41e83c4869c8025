"""Whom sessions watch and what they are still to be told, against tables that are too simple to be wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_edge.model import Conversation, Opened, Presence, Topic, TypingKind, Typist, UserId, View, Watched
from svc_edge.protocol.looks import MOST_TYPING, Audience, Looks, WatchLimits

ALICE, BOB, CAROL = (UserId(bytes([number]) * 16) for number in (1, 2, 3))
LIMITS = WatchLimits(500, 1000, burst=10, rate=2)
ROOM = Conversation(b"r" * 16, b"", b"r" * 16)
ONLINE = View(Presence.ONLINE, 0)
TYPING = (Typist(BOB, TypingKind.TEXT),)


def looks(viewer_id: UserId = ALICE, now_s: float = 0.0) -> Looks:
    session: Any = object()
    return Looks(session, viewer_id, LIMITS, now_s)


def test_a_topic_is_new_to_the_edge_once_and_gone_with_the_last_who_looks() -> None:
    audience, first, second = Audience(), looks(), looks()
    topic = Watched(ALICE, BOB)

    added = [audience.add(topic, first), audience.add(topic, second), audience.add(topic, second)]
    removed = [audience.remove(topic, first), audience.remove(topic, first), audience.remove(topic, second)]

    assert (added, removed, len(audience)) == ([True, False, False], [False, False, True], 0)


def test_everybody_who_looks_is_told_what_is_new_and_nothing_twice() -> None:
    audience, first, second = Audience(), looks(), looks()
    topic = Watched(ALICE, BOB)
    audience.add(topic, first)

    assert list(audience.told(topic, ONLINE)) == [first]
    assert list(audience.told(topic, ONLINE)) == []
    audience.add(topic, second)

    assert first.presences == second.presences == {BOB: ONLINE}
    assert list(audience.told(Watched(ALICE, CAROL), ONLINE)) == []


def test_typing_is_told_when_it_begins_and_when_it_ends_and_silence_is_no_news() -> None:
    audience, mine = Audience(), looks()
    topic = Opened(ALICE, ROOM)
    audience.add(topic, mine)

    states: list[tuple[Typist, ...]] = [(), TYPING, TYPING, (), ()]
    told = [bool(list(audience.told(topic, state))) for state in states]

    assert told == [False, True, False, True, False]
    assert mine.typing == {ROOM: ()}


def test_what_was_not_written_yet_is_replaced_by_what_is_newer() -> None:
    audience, mine = Audience(), looks()
    audience.add(Watched(ALICE, BOB), mine)
    audience.add(Opened(ALICE, ROOM), mine)

    for last_seen_ms in range(5):
        audience.told(Watched(ALICE, BOB), View(Presence.OFFLINE, last_seen_ms))
    audience.told(Opened(ALICE, ROOM), TYPING)

    assert mine.presences == {BOB: View(Presence.OFFLINE, 4)}
    assert (mine.typing, mine.has_output) == ({ROOM: TYPING}, True)


def test_whoever_looks_away_is_not_told_what_waited() -> None:
    audience, mine = Audience(), looks()
    topics: list[Topic] = [Watched(ALICE, BOB), Opened(ALICE, ROOM)]
    for topic in topics:
        audience.add(topic, mine)
    audience.told(topics[0], ONLINE)
    audience.told(topics[1], TYPING)

    for topic in topics:
        audience.remove(topic, mine)

    assert not mine.has_output


def test_the_budget_of_new_watches_fills_up_with_time() -> None:
    mine = looks()

    at_once = [mine.spend(0.0) for _ in range(12)]
    later = [mine.spend(1.0) for _ in range(3)]

    assert (at_once.count(True), later) == (10, [True, True, False])


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        ([(0.0, False), (0.5, False), (1.0, False), (1.9, False), (2.0, False)], [True, False, True, False, True]),
        ([(0.0, False), (0.1, True), (0.2, True), (0.3, False), (1.0, False)], [True, True, False, False, True]),
        ([(0.0, True)], [False]),
    ],
)
def test_typing_counts_once_a_second_and_its_end_once(steps: list[tuple[float, bool]], counts: list[bool]) -> None:
    mine = looks()

    assert [mine.may_type(b"c", at_s, is_over=is_over) for at_s, is_over in steps] == counts


def test_nobody_is_writing_in_very_many_conversations_at_once() -> None:
    mine = looks()

    counted = [mine.may_type(bytes([number]), 0.0, is_over=False) for number in range(200)]

    assert counted.count(True) == MOST_TYPING
    assert mine.may_type(b"later", 1.0, is_over=False)


people = st.sampled_from([ALICE, BOB, CAROL])
sessions = st.integers(0, 2)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), sessions, people),
            st.tuples(st.just("remove"), sessions, people),
            st.tuples(st.just("told"), st.integers(0, 3), people),
            st.tuples(st.just("write"), sessions, people),
        ),
        max_size=60,
    )
)
def test_every_session_that_looks_knows_the_newest_once_it_is_written_to(steps: list[Any]) -> None:
    model = Model()

    for kind, number, person in steps:
        getattr(model, kind)(number, person)

    assert len(model.audience) == sum(map(bool, model.looking.values()))


class Model:
    """Three sessions of one viewer, and what each should know."""

    def __init__(self) -> None:
        self.audience = Audience()
        self.mine = [looks() for _ in range(3)]
        self.looking: dict[UserId, set[int]] = {ALICE: set(), BOB: set(), CAROL: set()}
        self.newest: dict[UserId, View] = {}
        self.shown: dict[tuple[int, UserId], View] = {}

    def add(self, number: int, person: UserId) -> None:
        self.audience.add(Watched(ALICE, person), self.mine[number])
        self.looking[person].add(number)

    def remove(self, number: int, person: UserId) -> None:
        self.audience.remove(Watched(ALICE, person), self.mine[number])
        self.looking[person].discard(number)
        self.shown.pop((number, person), None)
        if not self.looking[person]:
            self.newest.pop(person, None)

    def told(self, number: int, person: UserId) -> None:
        self.audience.told(Watched(ALICE, person), View(Presence.OFFLINE, number))
        if self.looking[person]:
            self.newest[person] = View(Presence.OFFLINE, number)

    def write(self, number: int, person: UserId) -> None:
        self.shown.update({(number, user_id): view for user_id, view in self.mine[number].presences.items()})
        self.mine[number].presences.clear()
        for user_id, view in self.newest.items():
            assert number not in self.looking[user_id] or self.shown[number, user_id] == view
