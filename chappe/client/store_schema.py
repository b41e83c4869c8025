"""The tables of the local store, and how an older file becomes one of this version."""

import sqlite3

VERSION = 7

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- What has no answer; with a reason, was refused and nobody was told. AUTOINCREMENT: a number is never used twice.
CREATE TABLE outbox (
    draft INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, peer_id BLOB NOT NULL, conversation_id BLOB NOT NULL,
    action BLOB NOT NULL, message_id BLOB NOT NULL, attempt INTEGER NOT NULL, reason TEXT, detail TEXT
);
CREATE TABLE messages (
    arrival INTEGER PRIMARY KEY, message_id BLOB NOT NULL UNIQUE, conversation_id BLOB NOT NULL,
    sender_id BLOB NOT NULL, sender_device_id INTEGER NOT NULL, recipient_id BLOB NOT NULL,
    accepted_ms INTEGER NOT NULL, suite INTEGER NOT NULL, content BLOB NOT NULL, is_seen INTEGER NOT NULL
);
CREATE INDEX messages_by_conversation ON messages (conversation_id, message_id);
CREATE INDEX messages_unseen ON messages (arrival) WHERE is_seen = 0;
CREATE TABLE ticks (
    message_id BLOB PRIMARY KEY, state INTEGER NOT NULL, by_user_id BLOB NOT NULL, recorded_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE conversations (
    conversation_id BLOB PRIMARY KEY, peer_id BLOB NOT NULL, last_message_id BLOB NOT NULL, read_upto BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE people (
    user_id BLOB PRIMARY KEY, phone_number TEXT NOT NULL, contact_name TEXT NOT NULL, profile_name TEXT NOT NULL
) WITHOUT ROWID;
"""

_SECOND = """
ALTER TABLE messages ADD COLUMN edited_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX messages_by_expiry ON messages (expires_ms) WHERE expires_ms > 0;
-- What became of a message, whether it is here already or not: a push may come before what it is about.
CREATE TABLE alterations (
    message_id BLOB PRIMARY KEY, conversation_id BLOB NOT NULL, edit_id BLOB NOT NULL DEFAULT x'',
    edited_ms INTEGER NOT NULL DEFAULT 0, suite INTEGER NOT NULL DEFAULT 0, content BLOB NOT NULL DEFAULT x'',
    revoked_ms INTEGER NOT NULL DEFAULT 0, is_hidden INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
-- One for each user and message; without content once it was taken away.
CREATE TABLE reactions (
    message_id BLOB NOT NULL, user_id BLOB NOT NULL, conversation_id BLOB NOT NULL, reaction_id BLOB NOT NULL,
    reacted_ms INTEGER NOT NULL, suite INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (message_id, user_id)
) WITHOUT ROWID;
ALTER TABLE conversations ADD COLUMN muted_until_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN pinned_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN is_archived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN expiry_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN cleared_upto BLOB NOT NULL DEFAULT x'';
ALTER TABLE conversations ADD COLUMN cleared_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN settings_position BLOB NOT NULL DEFAULT x'';
"""

_THIRD = """
-- The columns are those of KnownGroup, in its order.
CREATE TABLE groups (
    group_id BLOB PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, owner_id BLOB NOT NULL,
    member_count INTEGER NOT NULL, role INTEGER NOT NULL, is_announcement_only INTEGER NOT NULL,
    expiry_s INTEGER NOT NULL, create_ms INTEGER NOT NULL, version INTEGER NOT NULL, event_version INTEGER NOT NULL,
    told_version INTEGER NOT NULL, details_version INTEGER NOT NULL, members_version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE group_members (
    group_id BLOB NOT NULL, user_id BLOB NOT NULL, role INTEGER NOT NULL, join_ms INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_id)
) WITHOUT ROWID;
-- How many of its recipients have an own message to a group, and how many read it.
CREATE TABLE group_ticks (
    message_id BLOB PRIMARY KEY, delivered INTEGER NOT NULL, read INTEGER NOT NULL, recipients INTEGER NOT NULL
) WITHOUT ROWID;
"""

_FOURTH = """
ALTER TABLE outbox ADD COLUMN token BLOB NOT NULL DEFAULT x'';
-- What became of changes that one process of the profile handed over to another; only the newest.
CREATE TABLE answers (
    number INTEGER PRIMARY KEY, token BLOB NOT NULL UNIQUE, message_id BLOB NOT NULL, accepted_ms INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL
);
"""

_FIFTH = """
-- What happened to groups; `change` is a GroupChangeEvent.
CREATE TABLE notices (
    group_id BLOB NOT NULL, version INTEGER NOT NULL, changed_ms INTEGER NOT NULL, change BLOB NOT NULL,
    is_seen INTEGER NOT NULL, PRIMARY KEY (group_id, version)
) WITHOUT ROWID;
CREATE INDEX notices_unseen ON notices (changed_ms, group_id, version) WHERE is_seen = 0;
"""

_SIXTH = """
-- Groups to which own messages came further: how far is still to be asked where more was heard than was asked for.
CREATE TABLE group_news (
    group_id BLOB PRIMARY KEY, told_ms INTEGER NOT NULL, heard INTEGER NOT NULL, asked INTEGER NOT NULL
) WITHOUT ROWID;
"""

_SEVENTH = """
-- Until now it stayed after whoever waited for it had been told.
DELETE FROM outbox WHERE reason IS NOT NULL;
"""

_STEPS = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH, _SIXTH, _SEVENTH)


def version_of(db: sqlite3.Connection) -> int:
    """Returns the version of a file's tables; zero for an empty one."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(db: sqlite3.Connection) -> None:
    """Makes the tables what this version needs, wholly or not at all."""
    steps = "".join(_STEPS[version_of(db) :])
    if steps:
        db.executescript(f"BEGIN;{steps}PRAGMA user_version = {VERSION};COMMIT;")
