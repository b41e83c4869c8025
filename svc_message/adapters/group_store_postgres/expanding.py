"""Writes the pointers of members: one statement for several conversations, each with all of its members."""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Final

from svc_message.adapters.inbox_rows import Row, row_of
from svc_message.adapters.message_store_postgres.accepting import TOUCH_INTERVAL_MS, TOUCHES_KEPT
from svc_message.adapters.message_store_postgres.arrays import byte_strings, int2s, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.model import ConversationId
from svc_message.model.group import Expansion, Touch

# Members are sent once, one conversation's after the other's, and each expansion takes its slice.
_EXPAND_TEXT: Final = """
    INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind, data{expires})
    SELECT u.user_id, e.pos, e.conversation_id, CASE WHEN e.kind <> 6 THEN e.message_id END, e.kind, nullif(e.data, '')
        {expiry}
    FROM unnest(%b, %b, %b, %b, %b, %b, %b{parameter}) AS e (
        pos, conversation_id, message_id, kind, data, first, last{name})
    CROSS JOIN LATERAL unnest((%b)[e.first : e.last]) AS u (user_id)
"""
_EXPAND: Final = _EXPAND_TEXT.format(expires="", expiry="", parameter="", name="").encode()
_EXPAND_EXPIRING: Final = _EXPAND_TEXT.format(
    expires=", expires_ms", expiry=", nullif(e.expires_ms, 0)", parameter=", %b", name=", expires_ms"
).encode()

# Lines are written by conversation and then by user, so that two statements never wait for each other in a circle.
_TOUCH: Final = b"""
    INSERT INTO conversations AS c (user_id, conversation_id, peer_id, last_ms)
    SELECT u.user_id, t.conversation_id, t.conversation_id, t.last_ms
    FROM unnest(%b, %b, %b, %b) AS t (conversation_id, last_ms, first, last)
    CROSS JOIN LATERAL unnest((%b)[t.first : t.last]) AS u (user_id)
    ON CONFLICT (user_id, conversation_id) DO UPDATE
    SET last_ms = excluded.last_ms,
        archived_ms = CASE WHEN c.archived_ms < excluded.last_ms THEN 0 ELSE c.archived_ms END
    WHERE c.last_ms < excluded.last_ms
"""


class Touches:
    """Remembers which groups were moved up in the chat lists of which members within the last minute."""

    def __init__(self) -> None:
        self._last: dict[ConversationId, tuple[int, int]] = {}

    def due(self, touches: Sequence[Touch]) -> list[Touch]:
        """Returns what is to be written."""
        return sorted(touch for touch in touches if self._is_due(touch))

    def _is_due(self, touch: Touch) -> bool:
        version, last_ms = self._last.get(touch.conversation_id, (0, 0))
        return version != touch.version or not 0 <= touch.last_ms - last_ms < TOUCH_INTERVAL_MS

    def done(self, touches: Sequence[Touch]) -> None:
        """Remembers what was written."""
        if len(self._last) + len(touches) > TOUCHES_KEPT:
            self._last.clear()
        for touch in touches:
            self._last[touch.conversation_id] = (touch.version, touch.last_ms)


async def expand(
    connections: Connections, memory: Touches, expansions: Sequence[Expansion], touches: Sequence[Touch]
) -> None:
    """Writes pointers, and lines of chat lists where a minute has passed."""
    due = memory.due(touches)
    statements = [_expand(expansions)] if expansions else []
    if due:
        statements.append(_touch(due))
    if statements:
        await connections.run_together(*statements)
        memory.done(due)


def _expand(expansions: Sequence[Expansion]) -> Statement:
    rows: list[Row] = [row_of(expansion.events) for expansion in expansions]
    lengths = [len(expansion.user_ids) for expansion in expansions]
    lasts = list(accumulate(lengths))
    parameters = (
        uuids([expansion.position for expansion in expansions]),
        uuids([expansion.conversation_id for expansion in expansions]),
        uuids([row.message_id for row in rows]),
        int2s([row.kind for row in rows]),
        byte_strings([row.data for row in rows]),
        int4s([last - length + 1 for last, length in zip(lasts, lengths, strict=True)]),
        int4s(lasts),
    )
    users = uuids(list(chain.from_iterable(expansion.user_ids for expansion in expansions)))
    ends = [row.expires_ms for row in rows]
    if any(ends):
        return Statement(_EXPAND_EXPIRING, (*parameters, int8s(ends), users))
    return Statement(_EXPAND, (*parameters, users))


def _touch(touches: Sequence[Touch]) -> Statement:
    lengths = [len(touch.user_ids) for touch in touches]
    lasts = list(accumulate(lengths))
    parameters = (
        uuids([touch.conversation_id for touch in touches]),
        int8s([touch.last_ms for touch in touches]),
        int4s([last - length + 1 for last, length in zip(lasts, lengths, strict=True)]),
        int4s(lasts),
        uuids(list(chain.from_iterable(touch.user_ids for touch in touches))),
    )
    return Statement(_TOUCH, parameters)
