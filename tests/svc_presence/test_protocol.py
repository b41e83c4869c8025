"""The pure parts of the registry, against models that are too simple to be wrong."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_presence.model import Presence, Seen, TypingKind, Typist, UserId, View
from svc_presence.ports import ONLINE_S
from svc_presence.protocol.audience import Audience, Watch
from svc_presence.protocol.deadlines import Deadlines
from svc_presence.protocol.news import News
from svc_presence.protocol.person import DEBOUNCE_S, HEAL_S, RETRY_S, SETTLE_S, Person
from svc_presence.protocol.trust import GRACE_S, Trust, Trusting

NOW_MS = 1_700_000_000_000
ONLINE, OFFLINE, UNKNOWN = Presence.ONLINE, Presence.OFFLINE, Presence.UNKNOWN
BLANK = Seen(0, 0, NOW_MS)

names = st.sampled_from("abcdef")
times = st.floats(0, 100)


def online(left_s: float = ONLINE_S) -> Seen:
    return Seen(int(left_s * 1000), NOW_MS, 0)


def gone(ago_s: float) -> Seen:
    return Seen(0, NOW_MS, int(ago_s * 1000))


# Deadlines


@given(st.lists(st.one_of(st.tuples(names, times), names, times), max_size=60))
def test_deadlines_are_those_of_a_plain_table(steps: list[Any]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    model: dict[str, float] = {}

    for step in steps:
        if isinstance(step, tuple):
            deadlines.set(*step)
            model[step[0]] = step[1]
        elif isinstance(step, str):
            deadlines.drop(step)
            model.pop(step, None)
        else:
            due = deadlines.due(step)
            wanted = {key: model.pop(key) for key in list(model) if model[key] <= step}
            assert [wanted[key] for key in due] == sorted(wanted.values())
            assert set(due) == set(wanted)
        assert len(deadlines) == len(model)
        assert all(key in deadlines for key in model)


def test_a_deadline_that_moves_for_ever_leaves_no_heap_behind() -> None:
    deadlines: Deadlines[str] = Deadlines()

    for number in range(10_000):
        deadlines.set("a", float(number))

    assert deadlines.entries < 100
    assert deadlines.due(1e9) == ["a"]


# Person


def test_nothing_is_believed_before_the_store_has_answered() -> None:
    person = Person()

    assert person.presence is None
    assert person.watched(0.0)
    assert person.due_s == float("inf")


@pytest.mark.parametrize(
    ("seen", "presence", "last_seen_ms"),
    [(online(), ONLINE, 0), (gone(60), OFFLINE, NOW_MS), (gone(1), OFFLINE, NOW_MS), (BLANK, UNKNOWN, 0)],
)
def test_the_first_look_is_believed_and_repeated_soon_and_then_each_minute(
    seen: Seen, presence: Presence, last_seen_ms: int
) -> None:
    person = Person()

    assert person.read(seen, 100.0)
    soon_s = person.due_s
    assert not person.read(seen, soon_s)

    assert (person.presence, person.last_seen_ms) == (presence, last_seen_ms)
    assert soon_s == 100.0 + SETTLE_S
    assert person.due_s == min(soon_s + HEAL_S, person.online_until_s if presence is ONLINE else 1e9)


def test_what_was_read_a_moment_ago_is_not_read_for_one_more_watch() -> None:
    person = Person()
    person.read(online(), 100.0)

    assert not person.watched(100.5)
    assert person.watched(101.5)


def test_signs_of_life_keep_a_person_online_without_the_store() -> None:
    person = Person()
    person.read(gone(60), 0.0)
    person.read(gone(60), SETTLE_S)

    assert person.lived(10.0)
    assert not person.lived(30.0)

    assert (person.presence, person.due_s) == (ONLINE, SETTLE_S + HEAL_S)
    assert person.online_until_s == 30.0 + ONLINE_S


def test_somebody_without_a_sign_of_life_is_looked_up_when_the_time_is_over_and_then_offline() -> None:
    person = Person()
    person.read(online(), 0.0)
    person.read(online(left_s=42), SETTLE_S)

    assert person.due_s == ONLINE_S
    assert person.read(gone(ONLINE_S), ONLINE_S)
    assert (person.presence, person.last_seen_ms) == (OFFLINE, NOW_MS)


def test_a_session_that_ends_is_looked_at_after_a_moment_and_a_comeback_shows_no_flap() -> None:
    person = Person()
    person.read(online(), 0.0)
    person.read(online(), SETTLE_S)

    person.left(10.0)
    assert person.due_s == 10.0 + DEBOUNCE_S
    assert not person.lived(13.0)
    assert not person.read(online(), 10.0 + DEBOUNCE_S)

    assert person.presence is ONLINE


def test_a_session_that_ends_for_good_is_offline_after_the_moment() -> None:
    person = Person()
    person.read(online(), 0.0)
    person.left(10.0)

    assert person.read(gone(DEBOUNCE_S), 10.0 + DEBOUNCE_S)
    assert person.presence is OFFLINE


def test_a_look_right_after_a_goodbye_waits_for_the_moment_to_be_over() -> None:
    person = Person()
    person.read(online(), 0.0)

    assert not person.read(gone(2), 12.0)
    assert (person.presence, person.due_s) == (ONLINE, 12.0 + DEBOUNCE_S - 2)
    assert person.read(gone(DEBOUNCE_S), 15.0)


def test_a_store_that_lost_its_memory_makes_nobody_offline() -> None:
    person, absent = Person(), Person()
    person.lived(0.0)
    absent.read(gone(600), 0.0)

    assert not person.read(BLANK, 1.0)
    assert (person.presence, person.due_s) == (ONLINE, 1.0 + SETTLE_S)
    assert person.read(BLANK, ONLINE_S + 0.1)
    assert absent.read(BLANK, 2.0)
    assert (person.presence, absent.presence) == (UNKNOWN, UNKNOWN)


def test_a_store_that_does_not_answer_makes_a_person_unknown_and_is_asked_again_soon() -> None:
    person = Person()
    person.read(gone(600), 0.0)

    assert person.unsure(10.0)
    assert not person.unsure(11.0)

    assert (person.presence, person.last_seen_ms, person.due_s) == (UNKNOWN, 0, 11.0 + RETRY_S)


class Life:
    """A person as the store sees it, with sessions that are refreshed and end."""

    def __init__(self) -> None:
        self.until_s = self.seen_s = float("-inf")

    def lives(self, now_s: float) -> None:
        self.until_s, self.seen_s = now_s + ONLINE_S, now_s

    def ends(self, now_s: float) -> None:
        self.until_s, self.seen_s = now_s, now_s

    def seen(self, now_s: float) -> Seen:
        if self.seen_s == float("-inf"):
            return BLANK
        return Seen(max(math.ceil((self.until_s - now_s) * 1000), 0), NOW_MS, int((now_s - self.seen_s) * 1000))


@given(
    st.lists(st.tuples(st.floats(0.01, 30), st.sampled_from(["lives", "ends", "nothing", "hidden life"])), max_size=40)
)
def test_nobody_is_believed_offline_who_is_not_and_nobody_online_for_long_after_the_end(
    steps: list[tuple[float, str]],
) -> None:
    person, life, now_s = Person(), Life(), 0.0
    person.read(life.seen(now_s), now_s)
    ended_s = float("inf")

    for pause_s, what in steps:
        now_s = look_until(person, life, now_s, now_s + pause_s)
        if what == "ends" and life.until_s > now_s:
            life.ends(now_s)
            person.left(now_s)
        elif what == "lives":
            life.lives(now_s)
            person.lived(now_s)
        elif what == "hidden life":
            life.lives(now_s)
        ended_s = life.until_s if life.seen_s > float("-inf") else float("inf")
        if now_s > ended_s + DEBOUNCE_S + ONLINE_S:
            assert person.presence is OFFLINE


def look_until(person: Person, life: Life, now_s: float, until_s: float) -> float:
    """Asks the store whenever that is due; whoever is announced to be offline really is."""
    while person.due_s < until_s:
        now_s = max(person.due_s, now_s + 0.001)
        if person.read(life.seen(now_s), now_s) and person.presence is OFFLINE:
            assert life.until_s <= now_s
    return max(now_s, until_s)


# Trust


def test_a_lease_that_ends_for_a_moment_stops_the_telling_and_nothing_more() -> None:
    trusting = Trusting(0.0)

    told = [trusting.follow(at_s, is_fresh=fresh) for at_s, fresh in [(0, True), (5, False), (6.9, False), (7, True)]]

    assert told == [True, False, False, True]
    assert trusting.trust is Trust.FULL


def test_a_lease_that_is_gone_lets_be_told_that_nobody_can_say() -> None:
    trusting, never = Trusting(0.0), Trusting(0.0)
    trusting.follow(0.0, is_fresh=True)

    told = [trusting.follow(at_s, is_fresh=False) for at_s in (5.0, 6.0, 5.0 + GRACE_S, 60.0)]
    begun = [never.follow(at_s, is_fresh=False) for at_s in (0.0, GRACE_S)]

    assert (told, begun) == ([False, False, True, False], [False, True])
    assert trusting.trust is never.trust is Trust.LOST


# Audience


class NoFeed:
    """A feed that tells nobody."""

    def tell_presence(self, number: int, view: View) -> None:
        raise NotImplementedError

    def tell_typing(self, number: int, typists: tuple[Typist, ...]) -> None:
        raise NotImplementedError


FEEDS = NoFeed(), NoFeed()
feeds = st.sampled_from(FEEDS)
numbers = st.integers(1, 5)
people = st.sampled_from([UserId(bytes([number])) for number in range(4)])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), feeds, numbers, people, people),
            st.tuples(st.just("remove"), feeds, numbers),
            st.tuples(st.just("end"), feeds),
        ),
        max_size=60,
    )
)
def test_an_audience_is_a_plain_table_of_who_looks_at_what(steps: list[Any]) -> None:
    audience: Audience[Watch] = Audience()
    model: dict[tuple[Any, int], tuple[UserId, UserId]] = {}

    for kind, feed, *rest in steps:
        if kind == "add":
            audience.add(Watch(feed, *rest))
            model[feed, rest[0]] = rest[1], rest[2]
        elif kind == "remove":
            removed = audience.remove(feed, rest[0])
            assert (removed is not None) == (model.pop((feed, rest[0]), None) is not None)
        else:
            ended = {watch.number for watch in audience.end(feed)}
            assert ended == {number for owner, number in list(model) if owner is feed}
            model = {key: value for key, value in model.items() if key[0] is not feed}
        assert len(audience) == len(model)
        for person in [UserId(bytes([number])) for number in range(4)]:
            assert names_of(audience.of(person)) == {key for key, (_, target) in model.items() if target == person}
            assert names_of(audience.viewing(person)) == {key for key, (viewer, _) in model.items() if viewer == person}
            assert (person in audience) == any(target == person for _, target in model.values())


def names_of(watches: Any) -> set[tuple[Any, int]]:
    return {(watch.feed, watch.number) for watch in watches}


# News


def test_of_each_watch_the_newest_state_is_told_and_equal_states_together() -> None:
    woken: list[int] = []
    news = News(lambda: woken.append(1))
    here, away = View(ONLINE, 0), View(OFFLINE, 7)

    for number, view in [(1, away), (2, here), (1, here), (3, away)]:
        news.tell_presence(number, view)
    news.tell_typing(4, (Typist(UserId(b"a"), TypingKind.TEXT),))
    news.grant(10)
    bulletin = news.take(100)

    assert bulletin.presences == {here: [1, 2], away: [3]}
    assert list(bulletin.typing.values()) == [[4]]
    assert (bulletin.size, news.credit, len(news)) == (4, 6, 0)
    assert len(woken) == 6


@given(st.lists(st.one_of(st.tuples(numbers, st.integers(0, 3)), st.integers(1, 3)), max_size=40))
def test_whatever_is_granted_in_the_end_everybody_knows_the_newest(steps: list[Any]) -> None:
    news = News(lambda: None)
    wanted: dict[int, View] = {}
    told: dict[int, View] = {}

    def deliver() -> None:
        before = news.credit
        bulletin = news.take(2)
        assert 0 <= bulletin.size <= min(2, before)
        told.update({number: view for view, numbers in bulletin.presences.items() for number in numbers})

    for step in steps:
        if isinstance(step, tuple):
            wanted[step[0]] = View(OFFLINE, step[1])
            news.tell_presence(step[0], wanted[step[0]])
        else:
            news.grant(step)
        deliver()
    news.grant(1000)
    while news.is_ready:
        deliver()

    assert told == wanted


def test_a_watch_that_ended_is_told_nothing() -> None:
    news = News(lambda: None)
    news.tell_presence(1, View(ONLINE, 0))
    news.tell_typing(1, ())
    news.grant(5)

    news.forget(1)
    news.forget(2)

    assert not news.is_ready
    assert news.take(5).size == 0
