"""Changes how users keep their conversations, and tells their devices."""

from collections.abc import Callable
from struct import Struct
from typing import Final

from psycopg.types.numeric import Int4, Int8

from svc_message.adapters.inbox_rows import SETTING
from svc_message.adapters.message_store_postgres.arrays import Uuid, bools, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import Position, UserId
from svc_message.model.ids import ConversationId
from svc_message.model.setting import Changed, SettingEvent, Settings, SettingUpdate

_NO_ID: Final = bytes(16)
# As `packed` in `seeing` writes it.
_SETTINGS: Final = Struct("!qqq16siq16s")

# The user's own row where it may begin one, and the peer's with it: by user, as those who write to each other begin
# theirs, so that nobody waits for another in a circle. Else the peer's where the user has one.
_BEGIN: Final = b"""
    INSERT INTO conversations (user_id, conversation_id, peer_id, last_ms)
    SELECT t.user_id, %b, t.peer_id, 0 FROM unnest(%b, %b) AS t (user_id, peer_id) ON CONFLICT DO NOTHING
"""
_BEGIN_FOR_PEER: Final = b"""
    INSERT INTO conversations (user_id, conversation_id, peer_id, last_ms)
    SELECT peer_id, conversation_id, user_id, 0 FROM conversations WHERE user_id = %b AND conversation_id = %b
    ON CONFLICT DO NOTHING
"""

# All or nothing of a change, by the user's own row. What is cleared comes down to the newest message that is seen. Of a
# place before one that was cleared already everything is cleared that came no later than the last message up to it, and
# not what came late between the two. That a user is one of all is said twice, for the plan.
_CHANGE: Final = b"""
    WITH change AS (
        SELECT %b::uuid AS conversation_id, %b::bigint AS muted_until_ms, %b::boolean AS is_pinned,
            %b::boolean AS is_archived, %b::uuid AS cleared_upto, %b::integer AS expiry_s, %b::bigint AS now_ms,
            %b::uuid AS floor, %b::uuid AS pos
    )
    UPDATE conversations c SET
        muted_until_ms = CASE WHEN t.is_own THEN coalesce(h.muted_until_ms, c.muted_until_ms) ELSE c.muted_until_ms END,
        pinned_ms = CASE
            WHEN NOT t.is_own OR h.is_pinned IS NULL THEN c.pinned_ms
            WHEN NOT h.is_pinned THEN 0 WHEN c.pinned_ms > 0 THEN c.pinned_ms ELSE h.now_ms END,
        archived_ms = CASE
            WHEN NOT t.is_own OR h.is_archived IS NULL THEN c.archived_ms WHEN h.is_archived THEN h.now_ms ELSE 0 END,
        cleared_upto = CASE WHEN seen.message_id IS NULL THEN c.cleared_upto
            ELSE greatest(c.cleared_upto, seen.message_id) END,
        cleared_floor = CASE WHEN seen.message_id IS NULL THEN c.cleared_floor
            WHEN h.cleared_upto < c.cleared_upto THEN greatest(c.cleared_floor, least(h.floor, h.cleared_upto))
            ELSE greatest(c.cleared_floor, least(h.floor, greatest(c.cleared_upto, seen.message_id))) END,
        cleared_ms = CASE WHEN seen.message_id IS NULL THEN c.cleared_ms
            WHEN h.cleared_upto < c.cleared_upto THEN greatest(c.cleared_ms, late.accepted_ms) ELSE h.now_ms END,
        expiry_s = coalesce(h.expiry_s, c.expiry_s),
        settings_pos = h.pos
    FROM change h, unnest(%b, %b) AS t (user_id, is_own)
    LEFT JOIN LATERAL (
        SELECT m.message_id FROM change, messages m
        WHERE t.is_own AND m.conversation_id = change.conversation_id AND m.message_id <= change.cleared_upto
            AND m.kind = 1 AND (m.sender_id = t.user_id OR m.recipient_id = t.user_id AND NOT m.is_withheld
                OR m.members_version IS NOT NULL)
        ORDER BY m.message_id DESC LIMIT 1
    ) seen ON true
    LEFT JOIN LATERAL (
        SELECT max(m.accepted_ms) AS accepted_ms FROM change, messages m
        WHERE t.is_own AND m.conversation_id = change.conversation_id AND m.message_id <= change.cleared_upto
            AND m.message_id > change.floor
            AND m.kind = 1 AND (m.sender_id = t.user_id OR m.recipient_id = t.user_id AND NOT m.is_withheld
                OR m.members_version IS NOT NULL)
    ) late ON true
    WHERE c.user_id = t.user_id AND c.user_id = ANY (%b) AND c.conversation_id = h.conversation_id
        AND (c.settings_pos IS NULL OR c.settings_pos < h.pos)
        AND NOT EXISTS (
            SELECT FROM unnest(%b) AS all_of (user_id)
            CROSS JOIN LATERAL (
                SELECT x.settings_pos FROM conversations x
                WHERE x.user_id = all_of.user_id AND x.conversation_id = h.conversation_id LIMIT 1
            ) other
            WHERE other.settings_pos >= h.pos)
"""
_POINT: Final = woven(
    """
    INSERT INTO inbox (user_id, pos, conversation_id, kind)
    SELECT c.user_id, c.settings_pos, c.conversation_id, {setting} FROM unnest(%b) AS t (user_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM conversations x WHERE x.user_id = t.user_id AND x.conversation_id = %b LIMIT 1
    ) c
    WHERE c.settings_pos = %b
""",
    setting=SETTING,
)
_SELECT: Final = woven("""
    SELECT c.user_id, c.settings_pos IS NOT DISTINCT FROM %b, {packed_settings} FROM unnest(%b) AS t (user_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM conversations x WHERE x.user_id = t.user_id AND x.conversation_id = %b LIMIT 1
    ) c
""")


class PostgresSettingStore:
    """The port `SettingStore` on PostgreSQL, over the connections of the message store."""

    def __init__(self, connections: Connections, forget: Callable[[bytes], None]) -> None:
        """Prepares; nothing is dialled.

        Args:
            connections: Those of the message store.
            forget: Called with a conversation that was archived: its next message is to bring it back. Processes that
                do not hear of it leave that to the retention.
        """
        self._connections = connections
        self._forget = forget

    async def change(self, update: SettingUpdate, floor: bytes) -> Changed | None:
        """Changes the rows and appends the events in one transaction and one round trip."""
        user, conversation = Uuid(update.user_id), Uuid(update.conversation_id)
        users = sorted({update.user_id, update.peer_id} if update.reaches_peer else {update.user_id})
        peers = [update.user_id if one == update.peer_id else update.peer_id for one in users]
        packed, position = uuids(users), Uuid(update.position)
        begin = Statement(_BEGIN_FOR_PEER, (user, conversation))
        if update.may_begin:
            begin = Statement(_BEGIN, (conversation, packed, uuids(peers)))
        *_, rows = await self._connections.run_together(
            *([begin] if update.may_begin or len(users) > 1 else []),
            _change(update, users, floor),
            Statement(_POINT, (packed, conversation, position)),
            Statement(_SELECT, (position, packed, conversation)),
        )
        if update.change.is_archived:
            self._forget(update.conversation_id)
        return _changed(update, rows)


def settings_of(packed: bytes) -> Settings:
    """Reads settings as `packed_settings` of `seeing` writes them."""
    muted_until_ms, pinned_ms, archived_ms, cleared_upto, expiry_s, cleared_ms, _ = _SETTINGS.unpack(packed)
    cleared = b"" if cleared_upto == _NO_ID else cleared_upto
    return Settings(muted_until_ms, pinned_ms, archived_ms > 0, cleared, expiry_s, cleared_ms)


def settings_position_of(packed: bytes) -> bytes:
    """Reads where the newest change of them stands; empty when there was none."""
    *_, position = _SETTINGS.unpack(packed)
    return b"" if position == _NO_ID else position


def setting_of(position: Position, user_id: UserId, conversation_id: ConversationId, packed: bytes) -> SettingEvent:
    """Reads how a user keeps a conversation."""
    return SettingEvent(position, user_id, conversation_id, settings_of(packed))


def _change(update: SettingUpdate, users: list[UserId], floor: bytes) -> Statement:
    change, packed = update.change, uuids(users)
    parameters = (
        Uuid(update.conversation_id),
        None if change.muted_until_ms is None else Int8(change.muted_until_ms),
        change.is_pinned,
        change.is_archived,
        None if change.cleared_upto is None else Uuid(change.cleared_upto),
        None if change.expiry_s is None else Int4(change.expiry_s),
        Int8(update.changed_ms),
        Uuid(floor),
        Uuid(update.position),
        packed,
        bools([user_id == update.user_id for user_id in users]),
        packed,
        packed,
    )
    return Statement(_CHANGE, parameters)


def _changed(update: SettingUpdate, rows: list[Row]) -> Changed | None:
    found = {row[0]: row for row in rows}
    if update.user_id not in found:
        return None
    if not all(is_stored for _, is_stored, _ in rows):
        return Changed(is_stored=False, events=())
    users = [user_id for user_id in (update.user_id, update.peer_id) if user_id in found]
    return Changed(
        is_stored=True,
        events=tuple(
            setting_of(update.position, user_id, update.conversation_id, found[user_id][2])
            for user_id in dict.fromkeys(users)
        ),
    )
