"""Says in the inboxes of senders that messages to groups came further.

What changed and what was told are places that only rise. A change may land behind a later one, which hides it. So what
was told stays behind the present as a cursor does, and what changed within that time is told once more, a minute later:
by then all that it may hide has landed.

When to look at them stands in a table of its own: whoever notes a change notes that, too, and whoever looks too early
notes when to look again. Looking twice does no harm.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import GROUP_RECEIPT
from svc_message.adapters.ledger_cassandra.cells import bigint, integer, stamp_of_position
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Write
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.model import NO_POSITION, ConversationId, Position, UserId
from svc_message.model.receipt import News
from svc_message.ports.receipt import NEWS_INTERVAL_MS
from svc_message.protocol import HORIZON_S, position_at

CLAIMED: Final = 1000
PAIRS_KEPT: Final = 200_000
_MINUTE_MS: Final = 60_000
_SLICES: Final = 4
_LATE_MINUTES: Final = 2
"""For how long after its time what is due may still be written."""
_LATE_MS: Final = 2_000
"""What is noted to be looked at so soon may have been looked at by somebody whose clock is ahead."""
_KEPT_MINUTES: Final = 2_880
"""How long the table keeps what is due."""
_BACKLOG_MINUTES: Final = 4
"""How many minutes of it one turn looks through, after a start, the newest first: all of it takes twelve minutes."""
_AGAIN_MS: Final = 30_000
"""After so long everything is looked at once more: a change may have been written after somebody looked."""

_STATE: Final = """
    SELECT uuid_as_blob(changed_pos), uuid_as_blob(claimed_pos), uuid_as_blob(told_pos), told_ms, until_ms
    FROM receipt_news WHERE sender_id = ? AND conversation_id = ?
"""
_CHANGE: Final = """
    UPDATE receipt_news USING TIMESTAMP ? SET changed_pos = ? WHERE sender_id = ? AND conversation_id = ?
"""
_CLAIM: Final = """
    UPDATE receipt_news USING TIMESTAMP ? SET claimed_pos = ? WHERE sender_id = ? AND conversation_id = ?
"""
_CLAIM_UNTIL: Final = """
    UPDATE receipt_news USING TIMESTAMP ? SET told_ms = ?, until_ms = ? WHERE sender_id = ? AND conversation_id = ?
"""
_TELL: Final = """
    UPDATE receipt_news USING TIMESTAMP ? SET told_pos = ? WHERE sender_id = ? AND conversation_id = ?
"""
_DUE: Final = "INSERT INTO receipt_news_due (minute, slice, due_ms, sender_id, conversation_id) VALUES (?, ?, ?, ?, ?)"
_LOOK: Final = """
    SELECT due_ms, uuid_as_blob(sender_id), uuid_as_blob(conversation_id) FROM receipt_news_due
    WHERE minute = ? AND slice = ? AND due_ms <= ?
"""

_Pair = tuple[UserId, ConversationId]


class _Due(NamedTuple):
    """When to look at what."""

    due_ms: int
    sender_id: UserId
    group_id: ConversationId

    def is_old(self, now_ms: int) -> bool:
        """Whether nothing is written any more that was to be looked at then."""
        return self.due_ms + _AGAIN_MS <= now_ms


class _State(NamedTuple):
    """What is known of the news of one sender in one group."""

    changed: Position = NO_POSITION
    claimed: Position = NO_POSITION
    told: Position = NO_POSITION
    told_ms: int = 0
    until_ms: int = 0

    @property
    def is_news(self) -> bool:
        """Whether something has changed that the inbox does not say."""
        return self.changed > self.told

    @property
    def due_ms(self) -> int:
        """From when on it is to be told: once who tells it has had its time, or a minute after it was told."""
        return self.until_ms if self.claimed > self.told else self.told_ms + NEWS_INTERVAL_MS


class Notes(NamedTuple):
    """What is to be written of changes, and when somebody looks at them."""

    units: list[list[Write]]
    due_ms: dict[_Pair, int]


class NewsDesk:
    """Notes news and claims them; what this process has noted or seen it does not note or look at again."""

    def __init__(self, connection: Connection) -> None:
        """Knows of none."""
        self._connection = connection
        self._noted_ms: dict[_Pair, int] = {}
        self._seen: set[_Due] = set()
        self._seen_again: set[_Due] = set()
        self._next_minute = 0
        self._backlog = range(0)

    async def note(self, pairs: Iterable[_Pair], change: Position, now_ms: int) -> Notes:
        """Returns what notes that messages of senders to groups came further, to be written with what they say."""
        wanted = list(dict.fromkeys(pairs))
        unsure = [pair for pair in wanted if self._noted_ms.get(pair, 0) <= now_ms + _LATE_MS]
        due_ms = {
            # Of what is noted at once there is one row for each second.
            pair: max(now_ms // 1000 * 1000, state.told_ms + NEWS_INTERVAL_MS)
            for pair, state in zip(unsure, await self._states(unsure), strict=True)
        }
        changes = [[_raise(_CHANGE, pair, change)] for pair in wanted]
        return Notes([*changes, *[[_due(*one)] for one in due_ms.items()]], due_ms)

    def noted(self, notes: Notes) -> None:
        """Remembers notes as written."""
        if len(self._noted_ms) + len(notes.due_ms) > PAIRS_KEPT:
            self._noted_ms.clear()
        self._noted_ms.update(notes.due_ms)

    async def claim(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        """Takes up to a thousand of what is due longest, and says so in the inboxes."""
        found = await self._look(now_ms)
        chosen = found[:CLAIMED]
        pairs = list(dict.fromkeys((due.sender_id, due.group_id) for due in chosen))
        states = dict(zip(pairs, await self._states(pairs), strict=True))
        news = {pair: state for pair, state in states.items() if state.is_news}
        due = {pair: state for pair, state in news.items() if state.due_ms <= now_ms}
        later = [[_due(pair, state.due_ms)] for pair, state in news.items() if pair not in due]
        # Whoever claims and dies before it has told is followed by whoever looks then.
        await self._connection.write([*later, *[[_due(pair, until_ms)] for pair in due]])
        await self._connection.write(
            [list(_claim(pair, state.changed, (now_ms, until_ms))) for pair, state in due.items()]
        )
        place, said = Place(position), bigint(now_ms)
        await self._connection.write([[place.row(sender, GROUP_RECEIPT, group, group, said)] for sender, group in due])
        self._saw(chosen, found, now_ms)
        return [News(*pair, state.changed) for pair, state in due.items()]

    async def settle(self, told: Sequence[News], now_ms: int) -> None:
        """Notes up to where news were told, which is never within the horizon, and that the rest has a minute."""
        settled = position_at(now_ms - int(HORIZON_S * 1000))
        await self._connection.write([list(_settle(one, min(one.changed, settled), now_ms)) for one in told])

    async def _states(self, pairs: Sequence[_Pair]) -> list[_State]:
        found = await self._connection.read([Read(_STATE, pair) for pair in pairs])
        return [_state(rows[0]) if rows else _State() for rows in found]

    async def _look(self, now_ms: int) -> list[_Due]:
        """Returns what is due and was not looked at, the oldest first."""
        minute = now_ms // _MINUTE_MS
        if not self._next_minute:
            self._next_minute = minute - _LATE_MINUTES
            self._backlog = range(minute - _KEPT_MINUTES, self._next_minute)
        minutes = [*self._backlog[-_BACKLOG_MINUTES:], *range(self._next_minute, minute + 1)]
        found = await self._connection.read(
            [Read(_LOOK, (integer(one), bytes((part,)), bigint(now_ms))) for one in minutes for part in range(_SLICES)]
        )
        due = {_Due(*row) for rows in found for row in rows}
        return sorted(one for one in due if one not in (self._seen_again if one.is_old(now_ms) else self._seen))

    def _saw(self, chosen: Sequence[_Due], found: Sequence[_Due], now_ms: int) -> None:
        """Remembers what was looked at, and which minutes that completes."""
        self._seen.update(chosen)
        self._seen_again.update(due for due in chosen if due.is_old(now_ms))
        if len(chosen) < len(found):
            return
        self._backlog = self._backlog[:-_BACKLOG_MINUTES]
        self._next_minute = max(self._next_minute, now_ms // _MINUTE_MS - _LATE_MINUTES)
        first_ms = self._next_minute * _MINUTE_MS
        self._seen = {due for due in self._seen if due.due_ms >= first_ms}
        self._seen_again &= self._seen


def _state(row: Sequence[bytes | int | None]) -> _State:
    return _State(*[given if given is not None else absent for given, absent in zip(row, _State(), strict=True)])  # type: ignore[arg-type]  # by column


def _claim(pair: _Pair, changed: Position, times_ms: tuple[int, int]) -> Iterator[Write]:
    now_ms, until_ms = times_ms
    yield _raise(_CLAIM, pair, changed)
    yield Write(_CLAIM_UNTIL, pair, (bigint(now_ms * 1000), bigint(now_ms), bigint(until_ms), *pair))


def _settle(news: News, told: Position, now_ms: int) -> Iterator[Write]:
    pair = (news.sender_id, news.group_id)
    yield _raise(_TELL, pair, told)
    # One microsecond later than the claim of the same time, which gave less.
    times_ms = (bigint(now_ms), bigint(now_ms + NEWS_INTERVAL_MS))
    yield Write(_CLAIM_UNTIL, pair, (bigint(now_ms * 1000 + 1), *times_ms, *pair))


def _raise(query: str, pair: _Pair, position: Position) -> Write:
    """Returns what raises a place: the greatest stands."""
    return Write(query, pair, (stamp_of_position(position), position, *pair))


def _due(pair: _Pair, due_ms: int) -> Write:
    """Returns what notes when to look at news."""
    partition = (integer(due_ms // _MINUTE_MS), bytes((pair[0][-1] % _SLICES,)))
    return Write(_DUE, partition, (*partition, bigint(due_ms), *pair))
