"""The mark of a shard never passes what is not done, and nothing that was begun is ever out of an adopter's reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from svc_message.model import NO_POSITION, Position
from svc_message.protocol import HORIZON_S, LedgerClock, milliseconds_of, position_at
from svc_message.protocol.journal import LowWater, adopted_from
from tests.svc_message.fakes import ManualClock

seconds = st.floats(0, 30)


class Shard(RuleBasedStateMachine):
    """A process that begins entries, finishes them in any order, loses some, and checkpoints now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.ledger_clock = LedgerClock(self.clock, bytes(8))
        self.low_water = LowWater()
        self.written: list[Position] = []
        self.not_done: set[Position] = set()
        self.stored_mark = NO_POSITION
        self.marks: list[Position] = []

    @initialize()
    def begins(self) -> None:
        self.checkpoint()

    @rule(delay_s=seconds)
    def time_passes(self, delay_s: float) -> None:
        self.clock.pass_s(delay_s)

    @rule(count=st.integers(1, 5))
    def entries_are_written(self, count: int) -> None:
        positions = [stamp.position for stamp in self.ledger_clock.mint_many(count)]
        self.low_water.begin(positions)
        self.written += positions
        self.not_done.update(positions)

    @precondition(lambda self: self.not_done)
    @rule(data=st.data())
    def some_are_done(self, data: st.DataObject) -> None:
        done = data.draw(st.sets(st.sampled_from(sorted(self.not_done))))
        self.low_water.done(done)
        self.not_done -= done

    @rule()
    def checkpoint(self) -> None:
        self.stored_mark = self.low_water.mark(self.ledger_clock.bound())
        self.marks.append(self.stored_mark)

    @invariant()
    def nothing_that_is_not_done_lies_before_the_mark(self) -> None:
        assert all(position >= self.stored_mark for position in self.not_done)

    @invariant()
    def an_adopter_reads_everything_that_is_not_done(self) -> None:
        start = adopted_from(self.stored_mark)
        assert self.not_done <= {position for position in self.written if position > start}

    @invariant()
    def the_mark_never_goes_back(self) -> None:
        assert self.marks == sorted(self.marks)

    @invariant()
    def the_mark_never_passes_now_less_the_horizon(self) -> None:
        assert milliseconds_of(self.stored_mark) <= self.clock.wall_ms() - HORIZON_S * 1000

    @invariant()
    def what_is_not_done_is_counted(self) -> None:
        assert self.low_water.begun == len(self.not_done)


TestShard = pytest.mark.untraced(Shard.TestCase)


def test_a_shard_without_entries_moves_its_mark_with_the_time() -> None:
    low_water = LowWater()

    assert low_water.mark(position_at(1000)) == position_at(1000)
    assert low_water.mark(position_at(2000)) == position_at(2000)
    assert low_water.mark(position_at(500)) == position_at(2000)


@given(st.integers(0, 2**47))
def test_an_orphan_is_read_from_before_its_mark(unix_ms: int) -> None:
    mark = position_at(unix_ms)

    assert milliseconds_of(adopted_from(mark)) == max(unix_ms - HORIZON_S * 1000, 0)
