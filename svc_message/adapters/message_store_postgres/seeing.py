"""What a reader sees of a message: fragments of SQL over `messages m` and the reader's own `private_views v`."""

from typing import Final

REACTIONS_SHOWN: Final = 50

_IS_PRIVATE: Final = "(v.edit_id > m.edit_id OR v.edit_id IS NOT NULL AND m.edit_id IS NULL)"
_IS_REVOKED: Final = "coalesce(m.revoked_ms, v.revoked_ms) IS NOT NULL"
_IS_THERE: Final = """(m.kind = 1
    AND (m.expires_ms IS NULL OR m.expires_ms > extract(epoch FROM statement_timestamp()) * 1000))"""
_CONTENT: Final = f"""
    CASE WHEN {_IS_REVOKED} THEN ''::bytea {{later}} WHEN {_IS_PRIVATE} THEN v.envelope ELSE m.envelope END,
    CASE WHEN {_IS_REVOKED} THEN 0 {{later_ms}} WHEN {_IS_PRIVATE} THEN v.edited_ms ELSE coalesce(m.edited_ms, 0) END,
    coalesce(m.revoked_ms, v.revoked_ms, 0), coalesce(m.expires_ms, 0), coalesce(m.members_version, 0)
"""
# What stands was said after its reader had left: it sees what was said last before, and nothing if that is not there.
_LATER: Final = "WHEN m.edit_version >= {left} THEN coalesce(g.envelope, ''::bytea)"
_LATER_MS: Final = "WHEN m.edit_version >= {left} THEN coalesce(g.accepted_ms, 0)"
_BEFORE: Final = """
    LEFT JOIN LATERAL (
        SELECT x.* FROM group_contents x
        WHERE m.edit_version >= {left} AND x.conversation_id = m.conversation_id AND x.message_id = m.message_id
            AND x.user_id = '00000000-0000-0000-0000-000000000000' AND x.members_version < {left}
        ORDER BY x.action_id DESC LIMIT 1
    ) g ON true
"""
# The limit keeps the look-up as it is: joined freely, a plan that was made while the table was empty may look for the
# rows of a message, or of a conversation, and pass over everybody else's.
_VIEW: Final = """
    LEFT JOIN LATERAL (
        SELECT x.* FROM private_views x
        WHERE x.user_id = {reader} AND x.conversation_id = m.conversation_id AND x.message_id = m.message_id LIMIT 1
    ) v ON true
"""
# A user whose reactions are withheld sees the greatest of its own.
_REACTIONS: Final = """
    LEFT JOIN LATERAL (
        SELECT string_agg(
            uuid_send(r.reaction_id) || uuid_send(r.user_id) || int8send(r.reacted_ms) || int4send(length(r.envelope))
                || r.envelope, ''::bytea ORDER BY r.reaction_id DESC) AS packed
        FROM (
            SELECT own.* FROM (
                SELECT DISTINCT ON (x.user_id) x.user_id, x.reaction_id, x.reacted_ms, x.envelope FROM {reacted} x
                WHERE x.conversation_id = m.conversation_id AND x.message_id = m.message_id
                    AND (NOT x.is_withheld OR x.user_id = {reader})
                ORDER BY x.user_id, x.reaction_id DESC
            ) own
            WHERE own.envelope <> '' ORDER BY own.reaction_id DESC LIMIT {reactions_shown}
        ) r
    ) reacted ON NOT {is_revoked}
"""
# For whoever has left: the rest of what it may see are the reactions that others stand in the place of now.
_REACTED_BEFORE: Final = """(
                    SELECT y.conversation_id, y.message_id, y.user_id, y.is_withheld, y.reaction_id, y.reacted_ms,
                        y.envelope
                    FROM reactions y
                    WHERE y.conversation_id = m.conversation_id AND y.message_id = m.message_id
                        AND coalesce(y.members_version, 0) < {left}
                    UNION ALL
                    SELECT z.conversation_id, z.message_id, z.user_id, false, z.action_id, z.accepted_ms, z.envelope
                    FROM group_contents z
                    WHERE {left} < {for_ever} AND z.conversation_id = m.conversation_id AND z.message_id = m.message_id
                        AND z.user_id <> '00000000-0000-0000-0000-000000000000' AND z.members_version < {left}
                )"""
FOR_EVER: Final = 2**62
"""The version of a group in which a time ends that lasts."""


# Without a message: over `conversations c`. As `settings_of` reads it.
_PACKED_SETTINGS: Final = """(
    int8send(coalesce(c.muted_until_ms, 0)) || int8send(c.pinned_ms) || int8send(c.archived_ms)
    || uuid_send(coalesce(c.cleared_upto, '00000000-0000-0000-0000-000000000000'))
    || int4send(coalesce(c.expiry_s, 0))
    || int8send(coalesce(c.cleared_ms, 0))
    || uuid_send(coalesce(c.settings_pos, '00000000-0000-0000-0000-000000000000')))"""


def woven(statement: str, *, reader: str = "", left: str = "", **fragments: object) -> bytes:
    """Returns a statement with the fragments that it names in braces.

    Args:
        statement: Constant text. It may name `is_there` (a message that has not disappeared), `is_seen` (and that its
            reader has not hidden), `is_revoked`, `edit_id` (of the edit that stands), `content` (the last columns of a
            `MessageEvent`), `view` (joins `v`), `reactions` (joins `reacted.packed`, the newest first), and over
            `conversations c` `packed_settings`.
        reader: The column that holds the reader's id; `reader` in the statement, too.
        left: The column that holds the version of the group in which the reader left it, `FOR_EVER` or null when it did
            not; without it nobody has left. `content`, `edit_id` and `reactions` are then as they stood before, and the
            statement has to have `before` (joins `g`).
        **fragments: Further fragments, constants too.
    """
    edit_id = "greatest(m.edit_id, v.edit_id)"
    later = (_LATER.format(left=left), _LATER_MS.format(left=left)) if left else ("", "")
    reacted = _REACTED_BEFORE.format(left=left, for_ever=FOR_EVER) if left else "reactions"
    return statement.format(
        reader=reader,
        left=left,
        is_there=_IS_THERE,
        is_seen=f"({_IS_THERE} AND v.is_hidden IS NOT TRUE)",
        is_revoked=_IS_REVOKED,
        edit_id=f"CASE WHEN m.edit_version >= {left} THEN g.action_id ELSE {edit_id} END" if left else edit_id,
        content=_CONTENT.format(later=later[0], later_ms=later[1]),
        before=_BEFORE.format(left=left),
        packed_settings=_PACKED_SETTINGS,
        view=_VIEW.format(reader=reader),
        reactions=_REACTIONS.format(
            reader=reader, reactions_shown=REACTIONS_SHOWN, is_revoked=_IS_REVOKED, reacted=reacted
        ),
        **fragments,
    ).encode()
