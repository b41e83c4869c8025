-- The rows that flow 2 of the source document writes into its messages table: one for each member of a group, with the
-- status of that member. Here a message to a group is stored once, beside the direct ones, and what each member has of
-- it is a pointer in the member's inbox and a row of receipts.
-- Added: the version of the group and the number of its recipients at acceptance, because members come and go, and the
-- journal, because the pointers are written after the message was acknowledged and none may be forgotten.

ALTER TABLE messages
    -- Both only of a message to a group; its recipient_id is the group, which is the conversation too.
    ADD COLUMN members_version bigint,      -- who may see it: the members of this version of the group
    ADD COLUMN recipient_count integer;     -- how many members that were, without the sender
-- Where in a conversation a member's time in the group begins and ends.
CREATE INDEX messages_by_version ON messages (conversation_id, members_version, message_id)
    WHERE members_version IS NOT NULL;

-- What was accepted for groups, until every member has its pointer. A shard is what one process accepted.
CREATE TABLE journal (
    shard bigint NOT NULL,              -- the boot id of the process
    pos uuid NOT NULL,
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    sender_id uuid NOT NULL,            -- has its own pointer already
    members_version bigint NOT NULL,
    kind smallint NOT NULL,             -- as in inbox
    data bytea,                         -- as in inbox
    PRIMARY KEY (shard, pos)
);

-- Which shards there are. Nothing is written into one that has no row here, so none can be ended while it is in use.
CREATE TABLE journal_shards (
    shard bigint PRIMARY KEY,
    mark uuid NOT NULL,                 -- everything before it is done
    checkpointed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Entries that this program could not read; `python -m svc_message replay-parked` puts them back.
CREATE TABLE journal_parked (
    LIKE journal INCLUDING INDEXES,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    why text NOT NULL
);

-- How far messages to groups have come: a row for each message and member that has received it, whatever the group's
-- size. Who was a member when the message was accepted is counted, nobody else.
CREATE TABLE group_receipts (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    user_id uuid NOT NULL,              -- who received it
    delivered_ms bigint NOT NULL,
    read_ms bigint NOT NULL,            -- 0 until it was read
    state smallint NOT NULL,            -- 2 delivered, 3 read
    is_read_told boolean NOT NULL,      -- the sender may know that it was read
    PRIMARY KEY (conversation_id, message_id, user_id)
) WITH (fillfactor = 80);

-- Whose messages to which group came further without the sender's inbox saying so yet.
CREATE TABLE receipt_news (
    sender_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    changed_pos uuid NOT NULL,          -- of the latest change
    told_ms bigint NOT NULL,            -- when the inbox said so last; 0 before the first time
    due_ms bigint,                      -- when it is to say so; NULL when nothing has changed since
    PRIMARY KEY (sender_id, conversation_id)
) WITH (fillfactor = 80);
CREATE INDEX receipt_news_by_time ON receipt_news (due_ms) WHERE due_ms IS NOT NULL;
