"""What a reader sees of a message: fragments of SQL over `messages m` and the reader's own `private_views v`."""

from typing import Final

REACTIONS_SHOWN: Final = 50

_IS_PRIVATE: Final = "(v.edit_id > m.edit_id OR v.edit_id IS NOT NULL AND m.edit_id IS NULL)"
_IS_REVOKED: Final = "coalesce(m.revoked_ms, v.revoked_ms) IS NOT NULL"
_IS_THERE: Final = """(m.kind = 1
    AND (m.expires_ms IS NULL OR m.expires_ms > extract(epoch FROM statement_timestamp()) * 1000))"""
_CONTENT: Final = f"""
    CASE WHEN {_IS_REVOKED} THEN ''::bytea WHEN {_IS_PRIVATE} THEN v.envelope ELSE m.envelope END,
    CASE WHEN {_IS_REVOKED} THEN 0 WHEN {_IS_PRIVATE} THEN v.edited_ms ELSE coalesce(m.edited_ms, 0) END,
    coalesce(m.revoked_ms, v.revoked_ms, 0), coalesce(m.expires_ms, 0), coalesce(m.members_version, 0)
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
                SELECT DISTINCT ON (x.user_id) x.user_id, x.reaction_id, x.reacted_ms, x.envelope FROM reactions x
                WHERE x.conversation_id = m.conversation_id AND x.message_id = m.message_id
                    AND (NOT x.is_withheld OR x.user_id = {reader})
                ORDER BY x.user_id, x.reaction_id DESC
            ) own
            WHERE own.envelope <> '' ORDER BY own.reaction_id DESC LIMIT {reactions_shown}
        ) r
    ) reacted ON NOT {is_revoked}
"""


# Without a message: over `conversations c`. As `settings_of` reads it.
_PACKED_SETTINGS: Final = """(
    int8send(coalesce(c.muted_until_ms, 0)) || int8send(c.pinned_ms) || int8send(c.archived_ms)
    || uuid_send(coalesce(c.cleared_upto, '00000000-0000-0000-0000-000000000000'))
    || int4send(coalesce(c.expiry_s, 0))
    || uuid_send(coalesce(c.settings_pos, '00000000-0000-0000-0000-000000000000')))"""


def woven(statement: str, *, reader: str = "", **fragments: object) -> bytes:
    """Returns a statement with the fragments that it names in braces.

    Args:
        statement: Constant text. It may name `is_there` (a message that has not disappeared), `is_seen` (and that its
            reader has not hidden), `is_revoked`, `edit_id` (of the edit that stands), `content` (the last columns of a
            `MessageEvent`), `view` (joins `v`), `reactions` (joins `reacted.packed`, the newest first), and over
            `conversations c` `packed_settings`.
        reader: The column that holds the reader's id; `reader` in the statement, too.
        **fragments: Further fragments, constants too.
    """
    return statement.format(
        reader=reader,
        is_there=_IS_THERE,
        is_seen=f"({_IS_THERE} AND v.is_hidden IS NOT TRUE)",
        is_revoked=_IS_REVOKED,
        edit_id="greatest(m.edit_id, v.edit_id)",
        content=_CONTENT,
        packed_settings=_PACKED_SETTINGS,
        view=_VIEW.format(reader=reader),
        reactions=_REACTIONS.format(reader=reader, reactions_shown=REACTIONS_SHOWN, is_revoked=_IS_REVOKED),
        **fragments,
    ).encode()
