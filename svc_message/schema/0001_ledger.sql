-- Messages and Message_Recipients tables of the source document, as its section on PostgreSQL has them: a direct message
-- is stored once, and how far it has come is a row of its own (receipts). One copy for each participant, as its section
-- on Cassandra has it, is for a store of Cassandra.
-- Other names: text and media_url are in envelope, which nobody here reads; timestamp is the beginning of message_id.
-- Added to messages: what a retry is known by (content_hash, kind, is_withheld), where it stands in the inboxes (pos), and
-- when it was accepted.
-- Added tables: inbox, because asking for what is not yet delivered is a queue that is searched, and a log is read on
-- from a place; conversations, for the list of chats; ledger, so that devices notice a restore.

-- The book of the ledger on PostgreSQL. Every uuid sorts by its bytes, and UUIDv7 bytes sort by time.

-- A direct message is stored once; what belongs to whom is said by the pointers in the inboxes.
CREATE TABLE messages (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,           -- UUIDv7, minted by the sender's device
    sender_id uuid NOT NULL,
    recipient_id uuid NOT NULL,         -- the sender itself in a note to self
    pos uuid NOT NULL,                  -- of the attempt that was stored first; the pointers are made from it
    accepted_ms bigint NOT NULL,
    sender_device_id integer NOT NULL,
    kind smallint NOT NULL,             -- 1 message, 15 void: declared never to be accepted
    is_withheld boolean NOT NULL,       -- the recipient had blocked the sender: only the sender ever sees it
    content_hash bytea NOT NULL,        -- empty when void
    envelope bytea NOT NULL,            -- opaque; empty when void
    PRIMARY KEY (conversation_id, message_id)
);
-- What is encrypted does not get smaller, so trying costs time only.
ALTER TABLE messages ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- The log of everything that a user's devices have to learn. Nothing is ever changed here.
CREATE TABLE inbox (
    user_id uuid NOT NULL,
    pos uuid NOT NULL,                  -- UUIDv7, minted by svc_message; events of one flush may share it
    conversation_id uuid,
    message_id uuid,                    -- of the message that the row points to
    kind smallint NOT NULL,             -- 1 message, 2 receipts, 3 own read, 4 event of another service
    data bytea                          -- of what is not a message
);
-- Not unique: an event written twice does no harm, and equal keys are stored once.
CREATE INDEX inbox_by_user ON inbox (user_id, pos);

-- How far messages have come: a row for each message that its recipient has received.
CREATE TABLE receipts (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    user_id uuid NOT NULL,              -- who received it
    delivered_ms bigint NOT NULL,
    read_ms bigint NOT NULL,            -- 0 until it was read
    state smallint NOT NULL,            -- 2 delivered, 3 read
    PRIMARY KEY (conversation_id, message_id, user_id)
) WITH (fillfactor = 80);

-- The chat list. A row exists once its user sees a message of the conversation.
CREATE TABLE conversations (
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    peer_id uuid NOT NULL,
    last_ms bigint NOT NULL,            -- the time in the id of a recent message, at most a minute behind
    read_upto uuid,                     -- the newest message up to which everything was read
    PRIMARY KEY (user_id, conversation_id)
) WITH (fillfactor = 80);
CREATE INDEX conversations_by_time ON conversations (user_id, last_ms DESC, conversation_id);

-- One row. A restore of a backup raises it, and every device then reads again what it may have missed.
CREATE TABLE ledger (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    epoch bigint NOT NULL
);
INSERT INTO ledger (epoch) VALUES (1);
