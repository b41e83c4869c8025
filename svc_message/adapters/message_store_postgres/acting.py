"""Carries out actions on messages: the ids that are new are stored first, and what follows is made from those alone.

The statements of a batch travel together, as one transaction in one round trip. Each sees what those before it wrote,
and only actions that stand under the position of this very attempt count as new.
"""

from collections.abc import Sequence
from typing import Any, Final

from svc_message.adapters.inbox_rows import ACTION
from svc_message.adapters.message_store_postgres import contents
from svc_message.adapters.message_store_postgres.arrays import bools, byte_strings, int2s, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.contents import NEW
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import Verdict
from svc_message.model.action import (
    Acted,
    ActionKind,
    ActionRef,
    FoundAction,
    NewAction,
    Sight,
    Target,
)

VOID: Final = 15
_NOBODY: Final = bytes(16)

# An id that a message has is taken, too.
_SIGHT: Final = woven(
    """
    SELECT t.n, coalesce(a.kind, other.kind), coalesce(a.content_hash, ''), coalesce(a.accepted_ms, 0),
        m.sender_id, m.recipient_id, m.accepted_ms, m.is_withheld, coalesce(v.is_hidden, false),
        coalesce(m.members_version, 0)
    FROM unnest(%b, %b, %b, %b, %b) AS t (n, action_id, conversation_id, message_id, user_id)
    LEFT JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id
    LEFT JOIN messages other ON other.conversation_id = t.conversation_id AND other.message_id = t.action_id
    LEFT JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id AND {is_there} {view}
""",
    reader="t.user_id",
)

# Sorted by action id, so that two batches with the same ids never wait for each other in a circle.
_STORE: Final = b"""
    INSERT INTO actions (
        conversation_id, action_id, message_id, user_id, peer_id, device_id, kind, is_withheld, content_hash, pos,
        accepted_ms, expires_ms, members_version)
    SELECT t.conversation_id, t.action_id, t.message_id, t.user_id,
        nullif(t.peer_id, '00000000-0000-0000-0000-000000000000'), t.device_id, t.kind, t.is_withheld, t.content_hash,
        t.pos, t.accepted_ms, m.expires_ms, nullif(t.group_version, 0)
    FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b) AS t (
        action_id, conversation_id, kind, message_id, user_id, device_id, peer_id, content_hash, is_withheld, pos,
        accepted_ms, group_version)
    LEFT JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id
    WHERE NOT EXISTS (
        SELECT FROM messages other WHERE other.conversation_id = t.conversation_id AND other.message_id = t.action_id)
    ON CONFLICT DO NOTHING
"""

# In one order, before effects of several kinds lock the same messages in another.
_LOCK: Final = b"""
    SELECT FROM unnest(%b, %b) AS t (conversation_id, message_id)
    JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id
    ORDER BY m.conversation_id, m.message_id FOR NO KEY UPDATE OF m
"""

_EDIT: Final = woven(
    """
    UPDATE messages m SET envelope = e.envelope, edit_id = e.action_id, edited_ms = e.accepted_ms,
        edit_version = e.members_version
    FROM (
        SELECT DISTINCT ON (a.conversation_id, a.message_id) a.*, t.envelope FROM {new}
        WHERE a.kind = 2 AND NOT a.is_withheld
        ORDER BY a.conversation_id, a.message_id, a.action_id DESC
    ) e
    WHERE m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL AND (m.edit_id IS NULL OR m.edit_id < e.action_id)
""",
    new=NEW,
)
_REVOKE: Final = woven(
    """
    UPDATE messages m SET envelope = '', revoked_ms = e.accepted_ms
    FROM (
        SELECT DISTINCT ON (a.conversation_id, a.message_id) a.* FROM {new}
        WHERE a.kind = 3 AND NOT a.is_withheld
        ORDER BY a.conversation_id, a.message_id, a.action_id
    ) e
    WHERE m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1 AND m.revoked_ms IS NULL
""",
    new=NEW,
)
# The lock keeps a message from being taken back between the look at it and the commit.
_REACT: Final = woven(
    """
    INSERT INTO reactions AS r (
        conversation_id, message_id, user_id, is_withheld, reaction_id, reacted_ms, expires_ms, envelope,
        members_version)
    SELECT e.conversation_id, e.message_id, e.user_id, e.is_withheld, e.action_id, e.accepted_ms, e.expires_ms,
        e.envelope, e.members_version
    FROM (
        SELECT DISTINCT ON (a.conversation_id, a.message_id, a.user_id, a.is_withheld) a.*, t.envelope FROM {new}
        WHERE a.kind = 5
        ORDER BY a.conversation_id, a.message_id, a.user_id, a.is_withheld, a.action_id DESC
    ) e
    JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL
    FOR SHARE OF m
    ON CONFLICT (conversation_id, message_id, user_id, is_withheld) DO UPDATE
    SET reaction_id = excluded.reaction_id, reacted_ms = excluded.reacted_ms, envelope = excluded.envelope,
        members_version = excluded.members_version
    WHERE r.reaction_id < excluded.reaction_id
""",
    new=NEW,
)
_HIDE: Final = woven(
    """
    INSERT INTO private_views AS v (user_id, conversation_id, message_id, is_hidden, expires_ms)
    SELECT DISTINCT a.user_id, a.conversation_id, a.message_id, true, a.expires_ms FROM {new}
    WHERE a.kind = 4
    ORDER BY a.user_id, a.conversation_id, a.message_id
    ON CONFLICT (user_id, conversation_id, message_id) DO UPDATE SET is_hidden = true
""",
    new=NEW,
)
_EDIT_PRIVATELY: Final = woven(
    """
    INSERT INTO private_views AS v (
        user_id, conversation_id, message_id, is_hidden, edit_id, edited_ms, expires_ms, envelope)
    SELECT e.user_id, e.conversation_id, e.message_id, false, e.action_id, e.accepted_ms, e.expires_ms, e.envelope
    FROM (
        SELECT DISTINCT ON (a.user_id, a.conversation_id, a.message_id) a.*, t.envelope FROM {new}
        WHERE a.kind = 2 AND a.is_withheld
        ORDER BY a.user_id, a.conversation_id, a.message_id, a.action_id DESC
    ) e
    JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL
    FOR SHARE OF m
    ON CONFLICT (user_id, conversation_id, message_id) DO UPDATE
    SET edit_id = excluded.edit_id, edited_ms = excluded.edited_ms, envelope = excluded.envelope
    WHERE v.revoked_ms IS NULL AND (v.edit_id IS NULL OR v.edit_id < excluded.edit_id)
""",
    new=NEW,
)
_REVOKE_PRIVATELY: Final = woven(
    """
    INSERT INTO private_views AS v (user_id, conversation_id, message_id, is_hidden, revoked_ms, expires_ms)
    SELECT DISTINCT ON (a.user_id, a.conversation_id, a.message_id)
        a.user_id, a.conversation_id, a.message_id, false, a.accepted_ms, a.expires_ms FROM {new}
    WHERE a.kind = 3 AND a.is_withheld
    ORDER BY a.user_id, a.conversation_id, a.message_id, a.action_id
    ON CONFLICT (user_id, conversation_id, message_id) DO UPDATE
    SET revoked_ms = coalesce(v.revoked_ms, excluded.revoked_ms), envelope = NULL
""",
    new=NEW,
)
# After the messages' rows were locked, so that nothing that was written meanwhile is overlooked.
_EMPTY_REACTIONS: Final = woven(
    """
    UPDATE reactions r SET envelope = ''
    FROM (
        SELECT DISTINCT a.conversation_id, a.message_id FROM {new} WHERE a.kind = 3 AND NOT a.is_withheld
        ORDER BY a.conversation_id, a.message_id
    ) e
    WHERE r.conversation_id = e.conversation_id AND r.message_id = e.message_id AND r.envelope <> ''
""",
    new=NEW,
)
_EMPTY_PRIVATE_EDITS: Final = woven(
    """
    UPDATE private_views v SET envelope = NULL
    FROM (
        SELECT DISTINCT m.sender_id, m.conversation_id, m.message_id FROM {new}
        CROSS JOIN LATERAL (
            SELECT x.* FROM messages x
            WHERE x.conversation_id = a.conversation_id AND x.message_id = a.message_id LIMIT 1
        ) m
        WHERE a.kind = 3 AND NOT a.is_withheld
        ORDER BY m.sender_id, m.conversation_id, m.message_id
    ) e
    WHERE v.user_id = e.sender_id AND v.conversation_id = e.conversation_id AND v.message_id = e.message_id
        AND v.envelope IS NOT NULL
""",
    new=NEW,
)

# Who did it, and whom it reaches: for what is new, and again for what was found.
_POINT: Final = woven(
    """
    INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind, expires_ms)
    SELECT reached.user_id, t.pos, a.conversation_id, a.action_id, {action}, a.expires_ms
    FROM unnest(%b, %b, %b, %b) AS t (conversation_id, action_id, pos, content_hash)
    JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id AND a.kind <> 15
        AND a.content_hash = t.content_hash
    CROSS JOIN LATERAL (VALUES (a.user_id), (CASE WHEN NOT a.is_withheld THEN a.peer_id END)) AS reached (user_id)
    WHERE reached.user_id IS NOT NULL
""",
    action=ACTION,
)

_OUTCOME: Final = woven(
    """
    SELECT t.n, a.kind, a.content_hash = t.content_hash, a.pos = t.pos, a.accepted_ms,
        CASE WHEN NOT a.is_withheld THEN a.peer_id END,
        CASE a.kind
            WHEN 2 THEN NOT {is_revoked} AND {is_there} IS TRUE AND {edit_id} IS NOT DISTINCT FROM a.action_id
            WHEN 5 THEN NOT {is_revoked} AND {is_there} IS TRUE AND r.reaction_id IS NOT DISTINCT FROM a.action_id
            ELSE true
        END,
        coalesce(m.members_version, 0), coalesce(a.expires_ms, 0)
    FROM unnest(%b, %b, %b, %b, %b) AS t (n, conversation_id, action_id, pos, content_hash)
    JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id
    LEFT JOIN messages m ON m.conversation_id = a.conversation_id AND m.message_id = a.message_id
    LEFT JOIN private_views v ON a.is_withheld AND v.user_id = a.user_id AND v.conversation_id = a.conversation_id
        AND v.message_id = a.message_id
    LEFT JOIN reactions r ON r.conversation_id = a.conversation_id AND r.message_id = a.message_id
        AND r.user_id = a.user_id AND r.is_withheld = a.is_withheld
"""
)

_DECLARE_VOID: Final = b"""
    INSERT INTO actions (
        conversation_id, action_id, message_id, user_id, device_id, kind, is_withheld, content_hash, pos, accepted_ms)
    SELECT conversation_id, action_id, '00000000-0000-0000-0000-000000000000', user_id, 0, 15, false, '',
        '00000000-0000-0000-0000-000000000000', 0
    FROM unnest(%b, %b, %b) AS t (action_id, conversation_id, user_id)
    ON CONFLICT DO NOTHING
"""
_IS_VOID: Final = b"""
    SELECT t.n FROM unnest(%b, %b, %b) AS t (n, action_id, conversation_id)
    JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id AND a.kind = 15
"""


class PostgresActionStore:
    """The port `ActionStore` on PostgreSQL, over the connections of the message store."""

    def __init__(self, connections: Connections) -> None:
        """Prepares; nothing is dialled."""
        self._connections = connections

    async def sight(self, refs: Sequence[ActionRef]) -> list[Sight]:
        """Looks for actions and their messages; one round trip."""
        parameters = (
            int4s(range(len(refs))),
            uuids([ref.action_id for ref in refs]),
            uuids([ref.conversation_id for ref in refs]),
            uuids([ref.message_id for ref in refs]),
            uuids([ref.user_id for ref in refs]),
        )
        rows = await self._connections.run(Statement(_SIGHT, parameters))
        return [_sight(row) for row in sorted(rows)]

    async def act(self, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable; one round trip."""
        if not batch:
            return []
        *_, rows = await self._connections.run_together(*carry_out(batch))
        return outcomes_of(batch, rows)

    async def declare_actions_void(self, refs: Sequence[ActionRef]) -> list[bool]:
        """Writes void where nothing is; says of each whether it is void now."""
        if not refs:
            return []
        # Ids are written in the order in which actions are stored.
        places = sorted(range(len(refs)), key=lambda n: refs[n].action_id)
        ids = uuids([refs[n].action_id for n in places])
        conversations = uuids([refs[n].conversation_id for n in places])
        users = uuids([refs[n].user_id for n in places])
        _, rows = await self._connections.run_together(
            Statement(_DECLARE_VOID, (ids, conversations, users)),
            Statement(_IS_VOID, (int4s(places), ids, conversations)),
        )
        void = {row[0] for row in rows}
        return [n in void for n in range(len(refs))]


def _locks(batch: Sequence[NewAction]) -> list[Statement]:
    """Returns what locks the messages of a batch with several kinds of actions; one kind alone keeps the order."""
    if len({(action.kind, action.is_withheld) for action in batch}) == 1:
        return []
    conversations = uuids([action.conversation_id for action in batch])
    return [Statement(_LOCK, (conversations, uuids([action.message_id for action in batch])))]


def names_of(batch: Sequence[NewAction]) -> tuple[object, object, object]:
    """Returns the columns by which statements find the actions of a batch: conversation, id and position."""
    return (
        uuids([action.conversation_id for action in batch]),
        uuids([action.action_id for action in batch]),
        uuids([action.position for action in batch]),
    )


def hashes_of(batch: Sequence[NewAction]) -> object:
    """Returns the column by which an action that is found is known to be the same."""
    return byte_strings([action.content_hash for action in batch])


def carry_out(batch: Sequence[NewAction]) -> list[Statement]:
    """Returns the statements that carry a batch out; `outcomes_of` reads the rows of the last one."""
    named, hashes = names_of(batch), hashes_of(batch)
    envelopes = byte_strings([action.envelope for action in batch])
    return [
        _store(batch),
        *_locks(batch),
        *(Statement(query, (*named, envelopes)) for query in _effects(batch)),
        Statement(_POINT, (*named, hashes)),
        Statement(_OUTCOME, (int4s(range(len(batch))), *named, hashes)),
    ]


def outcomes_of(batch: Sequence[NewAction], rows: Sequence[Row]) -> list[Acted]:
    """Returns what became of the actions of a batch."""
    # What has no row has the id of a message.
    answers = [Acted(Verdict.CONFLICT)] * len(batch)
    for n, *outcome in rows:
        answers[n] = _acted(outcome)
    return answers


def _effects(batch: Sequence[NewAction]) -> list[bytes]:
    """Returns the statements that a batch needs beside those that every batch does, in their order."""
    shapes = {(action.kind, action.is_withheld) for action in batch}
    kinds = {kind for kind, _ in shapes}
    is_group = any(action.group_version for action in batch)
    wanted = {
        contents.KEEP_SENT: is_group and ActionKind.EDIT in kinds,
        contents.KEEP_EDITS: is_group and ActionKind.EDIT in kinds,
        contents.KEEP_REACTIONS: is_group and ActionKind.REACTION in kinds,
        _EDIT: (ActionKind.EDIT, False) in shapes,
        _EDIT_PRIVATELY: (ActionKind.EDIT, True) in shapes,
        _REACT: ActionKind.REACTION in kinds,
        _HIDE: ActionKind.HIDE in kinds,
        _REVOKE_PRIVATELY: (ActionKind.REVOKE, True) in shapes,
        _REVOKE: (ActionKind.REVOKE, False) in shapes,
        _EMPTY_REACTIONS: (ActionKind.REVOKE, False) in shapes,
        _EMPTY_PRIVATE_EDITS: (ActionKind.REVOKE, False) in shapes,
        contents.FORGET: is_group and ActionKind.REVOKE in kinds,
    }
    return [query for query, is_wanted in wanted.items() if is_wanted]


def _store(batch: Sequence[NewAction]) -> Statement:
    columns = zip(*sorted(action._replace(peer_id=action.peer_id or _NOBODY) for action in batch), strict=True)  # type: ignore[arg-type]  # nobody stands for None in the array
    ids, conversations, kinds, messages, users, devices, peers, _, hashes, withheld, positions, times, versions = (
        columns
    )
    parameters = (
        uuids(ids),
        uuids(conversations),
        int2s(kinds),
        uuids(messages),
        uuids(users),
        int4s(devices),
        uuids(peers),
        byte_strings(hashes),
        bools(withheld),
        uuids(positions),
        int8s(times),
        int8s(versions),
    )
    return Statement(_STORE, parameters)


def _sight(row: Row) -> Sight:
    _, kind, content_hash, accepted_ms, *message = row
    earlier = FoundAction(kind == VOID, content_hash, accepted_ms) if kind is not None else None
    return Sight(earlier, Target(*message) if message[0] is not None else None)


def _acted(outcome: Sequence[Any]) -> Acted:
    kind, is_same, is_new, *what = outcome
    if kind == VOID:
        return Acted(Verdict.VOID)
    if not is_same:
        return Acted(Verdict.CONFLICT)
    return Acted(Verdict.STORED if is_new else Verdict.DUPLICATE, *what)
