"""Writes the pointers of members, and the lines of their chat lists."""

from collections.abc import Iterator, Sequence
from typing import Final

from svc_message.adapters.inbox_rows import ACTION, MESSAGE, row_of
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import bigint, pointer_ttl_s, slot_at
from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.ledger_cassandra.lines import TOUCH_INTERVAL_MS, TOUCHES_KEPT, stand
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.model import ConversationId, MessageId
from svc_message.model.group import Expansion, Touch

ROWS_TOGETHER: Final = 4
"""How many members' rows are repeated as a whole: as many as a direct message has."""

_TOUCH: Final = """
    UPDATE conversations USING TIMESTAMP ? SET peer_id = ?, last_ms = ? WHERE user_id = ? AND conversation_id = ?
"""


class GroupTouches:
    """Remembers which groups were moved up in the chat lists of which members within the last minute."""

    def __init__(self) -> None:
        self._last: dict[ConversationId, tuple[int, int]] = {}

    def due(self, touches: Sequence[Touch]) -> list[Touch]:
        """Returns what is to be written."""
        return [touch for touch in touches if self._is_due(touch)]

    def done(self, touches: Sequence[Touch]) -> None:
        """Remembers what was written."""
        if len(self._last) + len(touches) > TOUCHES_KEPT:
            self._last.clear()
        for touch in touches:
            self._last[touch.conversation_id] = (touch.version, touch.last_ms)

    def is_moving(self, touch: Touch) -> bool:
        """Tells whether what is due may be the first of its slot for some member."""
        version, last_ms = self._last.get(touch.conversation_id, (0, 0))
        return version != touch.version or slot_at(last_ms) != slot_at(touch.last_ms)

    def _is_due(self, touch: Touch) -> bool:
        version, last_ms = self._last.get(touch.conversation_id, (0, 0))
        return version != touch.version or not 0 <= touch.last_ms - last_ms < TOUCH_INTERVAL_MS


async def expand(
    connection: Connection,
    bounds: Bounds,
    memory: GroupTouches,
    expansions: Sequence[Expansion],
    touches: Sequence[Touch],
) -> None:
    """Writes pointers, and then lines of chat lists where a minute has passed."""
    if expansions:
        bounds.check(*[expansion.position for expansion in expansions])
    now_ms = bounds.now_ms()
    pointers = [row for expansion in expansions for row in _pointers(expansion, now_ms)]
    await connection.write(_together(pointers))
    if due := memory.due(touches):
        await connection.write(_together([row for touch in due for row in _lines(touch, memory)]))
        memory.done(due)


def _together(rows: Sequence[Write]) -> Iterator[Sequence[Write]]:
    for start in range(0, len(rows), ROWS_TOGETHER):
        yield rows[start : start + ROWS_TOGETHER]


def _pointers(expansion: Expansion, now_ms: int) -> Iterator[Write]:
    place, (kind, item_id, data, expires_ms) = Place(expansion.position), row_of(expansion.events)
    ttl_s, group_id = pointer_ttl_s(expires_ms, now_ms), expansion.conversation_id
    for user_id in expansion.user_ids:
        if kind == MESSAGE:
            yield place.message(user_id, group_id, MessageId(item_id), ttl_s)
        elif kind == ACTION:
            yield place.action(user_id, group_id, MessageId(item_id), ttl_s)
        else:
            yield place.row(user_id, kind, group_id, item_id, data, ttl_s)


def _lines(touch: Touch, memory: GroupTouches) -> Iterator[Write]:
    group_id, last_ms = touch.conversation_id, bigint(touch.last_ms)
    stamp, is_moving = bigint(touch.last_ms * 1000), memory.is_moving(touch)
    for user_id in touch.user_ids:
        yield Write(_TOUCH, (user_id,), (stamp, group_id, last_ms, user_id, group_id))
        if is_moving:
            yield stand(user_id, group_id, slot_at(touch.last_ms))
