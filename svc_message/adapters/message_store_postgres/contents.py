"""Keeps what was said in which version of a group, for those who leave: statements that go with those of `acting`.

All begin with the actions that are new, and come before the effects on the messages' own rows.
"""

from typing import Final

from svc_message.adapters.message_store_postgres.seeing import woven

# In an order in which two batches never lock rows in a circle.
NEW: Final = """
    unnest(%b, %b, %b, %b) AS t (conversation_id, action_id, pos, envelope)
    JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id AND a.pos = t.pos
"""

# That a message is to a group is asked so that the index by version is left alone: by it, one message of a group is
# found only by going through all of them.

# What stands now, before an edit takes its place. Edits keep themselves, so that it is there already unless it is what
# was sent.
KEEP_SENT: Final = woven(
    """
    INSERT INTO group_contents (
        conversation_id, message_id, user_id, members_version, action_id, accepted_ms, expires_ms, envelope)
    SELECT m.conversation_id, m.message_id, '00000000-0000-0000-0000-000000000000',
        coalesce(m.edit_version, m.members_version), coalesce(m.edit_id, m.message_id), coalesce(m.edited_ms, 0),
        m.expires_ms, m.envelope
    FROM (
        SELECT DISTINCT a.conversation_id, a.message_id FROM {new} WHERE a.kind = 2 AND a.members_version IS NOT NULL
        ORDER BY a.conversation_id, a.message_id
    ) e
    JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL AND coalesce(m.members_version, 0) > 0
    FOR NO KEY UPDATE OF m
    ON CONFLICT DO NOTHING
""",
    new=NEW,
)
KEEP_EDITS: Final = woven(
    """
    INSERT INTO group_contents AS g (
        conversation_id, message_id, user_id, members_version, action_id, accepted_ms, expires_ms, envelope)
    SELECT e.conversation_id, e.message_id, '00000000-0000-0000-0000-000000000000', e.members_version, e.action_id,
        e.accepted_ms, e.expires_ms, e.envelope
    FROM (
        SELECT DISTINCT ON (a.conversation_id, a.message_id, a.members_version) a.*, t.envelope FROM {new}
        WHERE a.kind = 2 AND a.members_version IS NOT NULL
        ORDER BY a.conversation_id, a.message_id, a.members_version, a.action_id DESC
    ) e
    JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL AND coalesce(m.members_version, 0) > 0
    ON CONFLICT (conversation_id, message_id, user_id, members_version) DO UPDATE
    SET action_id = excluded.action_id, accepted_ms = excluded.accepted_ms, envelope = excluded.envelope
    WHERE g.action_id < excluded.action_id
""",
    new=NEW,
)
# The lock keeps a message from being taken back between the look at it and the commit.
KEEP_REACTIONS: Final = woven(
    """
    INSERT INTO group_contents AS g (
        conversation_id, message_id, user_id, members_version, action_id, accepted_ms, expires_ms, envelope)
    SELECT e.conversation_id, e.message_id, e.user_id, e.members_version, e.action_id, e.accepted_ms, e.expires_ms,
        e.envelope
    FROM (
        SELECT DISTINCT ON (a.conversation_id, a.message_id, a.user_id, a.members_version) a.*, t.envelope FROM {new}
        WHERE a.kind = 5 AND a.members_version IS NOT NULL
        ORDER BY a.conversation_id, a.message_id, a.user_id, a.members_version, a.action_id DESC
    ) e
    JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_id = e.message_id AND m.kind = 1
        AND m.revoked_ms IS NULL AND coalesce(m.members_version, 0) > 0
    FOR SHARE OF m
    ON CONFLICT (conversation_id, message_id, user_id, members_version) DO UPDATE
    SET action_id = excluded.action_id, accepted_ms = excluded.accepted_ms, envelope = excluded.envelope
    WHERE g.action_id < excluded.action_id
""",
    new=NEW,
)
# After the messages' rows were locked, so that nothing that was written meanwhile is overlooked.
FORGET: Final = woven(
    """
    DELETE FROM group_contents g USING (
        SELECT DISTINCT a.conversation_id, a.message_id FROM {new} WHERE a.kind = 3 AND NOT a.is_withheld
    ) e
    WHERE g.conversation_id = e.conversation_id AND g.message_id = e.message_id
""",
    new=NEW,
)
