"""What the carrier remembers of where users are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from svc_fanout.model import Route, UserId
from svc_fanout.protocol import ABSENCE_MEMORY_S, ROUTE_MEMORY_S, Pace, RouteMemory
from tests.svc_fanout.fakes import route, user


def answer(memory: RouteMemory, now_s: float, *routes: Route, asked: tuple[UserId, ...] = ()) -> None:
    """Asks and answers at once."""
    found = {one.user_id: [one] for one in routes}
    question = memory.begin()
    memory.keep(question, asked or tuple(found), found, now_s, are_arrivals_told=True)
    memory.end()


def test_who_was_found_is_remembered_for_a_while() -> None:
    memory = RouteMemory()
    answer(memory, 100.0, route(1))

    known, unknown = memory.recall([user(1), user(2)], 100.0 + ROUTE_MEMORY_S - 0.1)
    assert (known, unknown) == ({user(1): [route(1)]}, [user(2)])
    assert memory.recall([user(1)], 100.0 + ROUTE_MEMORY_S) == ({}, [user(1)])


def test_who_was_nowhere_is_asked_for_again_soon() -> None:
    memory = RouteMemory()
    answer(memory, 100.0, asked=(user(1),))

    assert memory.recall([user(1)], 100.0 + ABSENCE_MEMORY_S / 2) == ({}, [])
    assert memory.recall([user(1)], 100.0 + ABSENCE_MEMORY_S) == ({}, [user(1)])


def test_nobody_is_remembered_to_be_nowhere_while_an_edge_cannot_tell_of_arrivals() -> None:
    memory = RouteMemory()
    question = memory.begin()
    memory.keep(question, [user(1), user(2)], {user(2): [route(2)]}, 100.0, are_arrivals_told=False)
    memory.end()

    assert memory.recall([user(1), user(2)], 100.0) == ({user(2): [route(2)]}, [user(1)])


def test_who_arrived_is_forgotten() -> None:
    memory = RouteMemory()
    answer(memory, 100.0, route(1), route(2))

    memory.forget([user(1)])

    assert memory.recall([user(1), user(2)], 100.0)[1] == [user(1)]


def test_an_answer_is_not_kept_for_who_arrived_after_its_question() -> None:
    memory = RouteMemory()
    early = memory.begin()
    memory.forget([user(1)])
    late = memory.begin()
    memory.keep(early, [user(1), user(2)], {user(2): [route(2)]}, 100.0, are_arrivals_told=True)
    memory.end()

    assert memory.recall([user(1), user(2)], 100.0)[1] == [user(1)]

    memory.keep(late, [user(1)], {user(1): [route(1)]}, 100.0, are_arrivals_told=True)
    memory.end()
    assert memory.recall([user(1)], 100.0)[1] == []


def test_nothing_that_was_asked_before_arrivals_went_unheard_is_kept() -> None:
    memory = RouteMemory()
    answer(memory, 100.0, route(1))
    question = memory.begin()

    memory.clear()
    memory.keep(question, [user(2)], {user(2): [route(2)]}, 100.0, are_arrivals_told=True)
    memory.end()

    assert memory.recall([user(1), user(2)], 100.0)[1] == [user(1), user(2)]


@given(st.lists(st.integers(0, 5), max_size=20))
def test_recall_answers_for_every_user_once(numbers: list[int]) -> None:
    memory = RouteMemory()
    answer(memory, 0.0, route(1), route(2), asked=(user(1), user(2), user(3)))
    asked = dict.fromkeys(user(number) for number in numbers)

    known, unknown = memory.recall(asked, 0.0)

    nowhere = {user(3)} & asked.keys()
    assert {*known, *unknown} | nowhere == set(asked)
    assert not known.keys() & set(unknown)


class Travellers(RuleBasedStateMachine):
    """People move between edges, which tell of each arrival; questions may be answered late."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = RouteMemory()
        self.now_s = 0.0
        self.truth: dict[UserId, list[Route]] = {}
        self.open: list[tuple[int, float, dict[UserId, list[Route]]]] = []

    @rule(number=st.integers(1, 3), session=st.integers(1, 9))
    def arrive(self, number: int, session: int) -> None:
        self.truth[user(number)] = [route(number, session_id=session)]
        self.memory.forget([user(number)])

    @rule()
    def ask(self) -> None:
        self.open.append((self.memory.begin(), self.now_s, dict(self.truth)))

    @rule(index=st.integers(0, 5))
    def hear(self, index: int) -> None:
        if self.open:
            question, asked_s, found = self.open.pop(index % len(self.open))
            self.memory.keep(question, [user(1), user(2), user(3)], found, asked_s, are_arrivals_told=True)
            self.memory.end()

    @rule(seconds=st.floats(0.1, 6.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def whoever_is_remembered_is_where_it_is_remembered(self) -> None:
        known, unknown = self.memory.recall([user(1), user(2), user(3)], self.now_s)
        for number in (1, 2, 3):
            if user(number) not in unknown:
                assert known.get(user(number), []) == self.truth.get(user(number), [])


TestTravellers = pytest.mark.untraced(Travellers.TestCase)


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2)), max_size=30))
def test_what_goes_out_is_capped_over_any_time_but_for_what_is_due_at_once(spent: list[tuple[int, float]]) -> None:
    now_s, begun_s, total = 0.0, 0.0, 0
    pace = Pace(1000, now_s)

    for count, pause_s in spent:
        now_s += pause_s
        now_s += pace.delay_s(now_s)
        assert total <= (now_s - begun_s) * 1000 + 1e-6
        pace.spend(count, now_s)
        total += count

    assert pace.delay_s(now_s + 5 + total / 1000) == 0
