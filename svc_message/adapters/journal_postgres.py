"""Keeps the journal in PostgreSQL, beside the book of the ledger."""

from collections.abc import Sequence
from typing import Final

from psycopg.types.numeric import Float8, Int4, Int8

from svc_message.adapters.inbox_rows import ACTION, MESSAGE
from svc_message.adapters.message_store_postgres.arrays import Uuid, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import NO_POSITION, MessageEvent, Position
from svc_message.model.action import ActionEvent, ActionKind, EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import Entry, Orphan, Shard, Undecodable
from svc_message.protocol.journal import adopted_from

_CHECKPOINT: Final = b"""
    WITH alive AS (
        INSERT INTO journal_shards AS s (shard, mark, checkpointed_at) VALUES (%b, %b, clock_timestamp())
        ON CONFLICT (shard) DO UPDATE
        SET mark = greatest(s.mark, excluded.mark), checkpointed_at = excluded.checkpointed_at
    )
    DELETE FROM journal WHERE shard = %b AND pos < %b
"""

_ADOPT: Final = b"""
    SELECT shard, mark FROM journal_shards
    WHERE checkpointed_at < clock_timestamp() - make_interval(secs => %b) ORDER BY shard
"""

# As nobody in particular sees them. Of what has disappeared nobody is to be told any more.
_GOES_ON: Final = """NOT EXISTS (
        SELECT FROM disappeared d WHERE d.conversation_id = j.conversation_id AND d.message_id = j.message_id)"""
_READ: Final = woven(
    """
    SELECT j.pos, j.conversation_id, j.sender_id, j.members_version, j.kind,
        a.kind, a.action_id, a.conversation_id, a.message_id, a.user_id, a.device_id, a.accepted_ms,
        coalesce(a.expires_ms, 0), r.envelope,
        coalesce(NOT {is_revoked} AND coalesce(r.reaction_id, {edit_id}) = a.action_id, false),
        m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms, {content}
    FROM (SELECT j.* FROM journal j WHERE j.shard = %b AND j.pos > %b AND {goes_on} ORDER BY j.pos LIMIT %b) j
    LEFT JOIN LATERAL (
        SELECT x.* FROM actions x
        WHERE j.kind = {action} AND x.conversation_id = j.conversation_id AND x.action_id = j.message_id LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT x.* FROM messages x
        WHERE x.conversation_id = j.conversation_id
            AND x.message_id = CASE j.kind WHEN {action} THEN a.message_id ELSE j.message_id END LIMIT 1
    ) m ON true
    LEFT JOIN LATERAL (
        SELECT x.* FROM reactions x
        WHERE a.kind = 5 AND x.conversation_id = a.conversation_id AND x.message_id = a.message_id
            AND x.user_id = a.user_id AND NOT x.is_withheld LIMIT 1
    ) r ON true
    LEFT JOIN private_views v ON false
""",
    goes_on=_GOES_ON,
    action=ACTION,
)

# Where in a row the action begins, then the message, and in it the content.
_ACTION: Final = 5
_MESSAGE: Final = 15
_ENVELOPE: Final = 6
_TOLD: Final = frozenset({ActionKind.EDIT, ActionKind.REVOKE, ActionKind.REACTION})

_ADVANCE: Final = b"UPDATE journal_shards SET mark = greatest(mark, %b) WHERE shard = %b"

_PARK: Final = b"""
    WITH moved AS (
        DELETE FROM journal WHERE shard = %b AND pos = ANY (%b)
        RETURNING shard, pos, conversation_id, message_id, sender_id, members_version, kind, data
    )
    INSERT INTO journal_parked (shard, pos, conversation_id, message_id, sender_id, members_version, kind, data, why)
    SELECT m.*, t.why FROM moved m JOIN unnest(%b, %b) AS t (pos, why) ON t.pos = m.pos
    ON CONFLICT DO NOTHING
"""

_REPLAY: Final = b"""
    WITH orphan AS (
        INSERT INTO journal_shards (shard, mark, checkpointed_at) SELECT %b, %b, '-infinity'
        WHERE EXISTS (SELECT FROM journal_parked)
    ), moved AS (
        DELETE FROM journal_parked RETURNING pos, conversation_id, message_id, sender_id, members_version, kind, data
    ), back AS (
        INSERT INTO journal (shard, pos, conversation_id, message_id, sender_id, members_version, kind, data)
        SELECT %b, moved.* FROM moved ON CONFLICT DO NOTHING
    )
    SELECT count(*) FROM moved
"""

# The row is locked first: whoever writes an entry holds it, and the second statement sees what they wrote.
_LOCK: Final = b"SELECT FROM journal_shards WHERE shard = %b FOR UPDATE"
_END: Final = woven(
    """
    DELETE FROM journal_shards s
    WHERE s.shard = %b AND s.checkpointed_at <= clock_timestamp() - make_interval(secs => %b)
        AND NOT EXISTS (SELECT FROM journal j WHERE j.shard = s.shard AND j.pos > %b AND {goes_on})
""",
    goes_on=_GOES_ON,
)
_IS_THERE: Final = b"SELECT shard FROM journal_shards WHERE shard = %b"
_FORGET: Final = b"""
    DELETE FROM journal j WHERE j.shard = %b AND NOT EXISTS (SELECT FROM journal_shards s WHERE s.shard = j.shard)
"""


class PostgresJournal:
    """The port `Journal` on PostgreSQL; dials when it is first used and again after failures."""

    def __init__(self, dsn: str, *, timeout_s: float = 5.0) -> None:
        """Prepares; nothing is dialled.

        Args:
            dsn: The database of the ledger.
            timeout_s: After how long a silent server counts as gone.
        """
        # One for the checkpoints, which must not wait for an adopter's pages.
        self._connections = Connections(dsn, size=2, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._connections.aclose()

    async def checkpoint(self, shard: Shard, mark: Position) -> None:
        """Begins a shard, or says that its process lives; deletes what lies H before the mark."""
        number = Int8(shard_number(shard))
        parameters = (number, Uuid(mark), number, Uuid(adopted_from(mark)))
        await self._connections.run(Statement(_CHECKPOINT, parameters))

    async def adopt(self, silence_s: float) -> list[Orphan]:
        """Returns the shards that were not checkpointed for so long."""
        rows = await self._connections.run(Statement(_ADOPT, (Float8(silence_s),)))
        return [Orphan(Shard(shard % 2**64), mark) for shard, mark in rows]

    async def read(self, shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        """Reads on in a shard, with the messages that its entries are about."""
        parameters = (Int8(shard_number(shard)), Uuid(after), Int4(limit))
        rows = await self._connections.run(Statement(_READ, parameters))
        rows.sort(key=_position)
        return [_entry(row) for row in rows]

    async def advance(self, shard: Shard, mark: Position) -> None:
        """Raises the mark of an orphan."""
        await self._connections.run(Statement(_ADVANCE, (Uuid(mark), Int8(shard_number(shard)))))

    async def park(self, shard: Shard, entries: Sequence[Undecodable]) -> None:
        """Moves entries to where replay finds them."""
        positions = uuids([entry.position for entry in entries])
        parameters = (Int8(shard_number(shard)), positions, positions, [entry.why for entry in entries])
        await self._connections.run(Statement(_PARK, parameters))

    async def replay(self, shard: Shard) -> int:
        """Moves everything that was parked into a new shard without an owner."""
        number = Int8(shard_number(shard))
        ((count,),) = await self._connections.run(Statement(_REPLAY, (number, Uuid(NO_POSITION), number)))
        return int(count)

    async def end(self, shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
        """Ends a shard unless something was written after a position, or its process has spoken of late."""
        number = Int8(shard_number(shard))
        *_, left = await self._connections.run_together(
            Statement(_LOCK, (number,)),
            Statement(_END, (number, Float8(silence_s), Uuid(last))),
            Statement(_FORGET, (number,)),
            Statement(_IS_THERE, (number,)),
        )
        return not left


def shard_number(shard: Shard) -> int:
    """Returns a shard as the signed number that the tables hold."""
    return shard - 2**64 if shard >= 2**63 else shard


def _entry(row: Row) -> Entry | Undecodable:
    position, conversation_id, sender_id, members_version, kind = row[:_ACTION]
    action, message = row[_ACTION:_MESSAGE], row[_MESSAGE:]
    if kind not in {MESSAGE, ACTION}:
        return Undecodable(position, f"kind {kind}: not one that this program knows")
    if (action if kind == ACTION else message)[0] is None:
        return Undecodable(position, "what it is about is gone")
    if kind == ACTION and action[0] not in _TOLD:
        return Undecodable(position, f"kind {action[0]} of an action: not one that members are told")
    entry = Entry(position, conversation_id, sender_id, members_version, MessageEvent(NO_POSITION, *message))
    return _with_action(entry, action, message[_ENVELOPE]) if kind == ACTION else entry


def _with_action(entry: Entry, action: Row, edited: bytes | None) -> Entry:
    """Returns an entry that is about an action; what does not stand any more is told by its pointer alone."""
    kind, action_id, conversation_id, message_id, user_id, device_id, accepted_ms, expires_ms, reaction, stands = action
    place = (NO_POSITION, action_id, conversation_id, message_id, user_id, device_id, accepted_ms)
    event: ActionEvent
    if kind == ActionKind.REVOKE:
        return entry._replace(event=RevokeEvent(*place, is_for_me=False, expires_ms=expires_ms))
    if kind == ActionKind.EDIT:
        event = EditEvent(*place, edited or b"", expires_ms)
    else:
        event = ReactionEvent(*place, reaction or b"", expires_ms)
    return entry._replace(event=event, is_quiet=not stands)


def _position(row: Row) -> Position:
    position: Position = row[0]
    return position
