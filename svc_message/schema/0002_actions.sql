-- What people do with messages that are there: edit, take back, hide, react; and when a message disappears.
--
-- The source document's table is Messages, "never updated, only status changes". Added: one row for each action, so that
-- a retry is known for ever; what stands of a message after its edits, in the message's own row, so that reading costs
-- no join; what one user alone sees of a message; and reactions. Content stands in three places and no fourth
-- (messages, private_views, reactions), so that taking a message back can reach all of it. Null costs no byte.
ALTER TABLE messages
    ADD COLUMN edit_id uuid,            -- of the edit whose content stands in envelope; null while it is the first
    ADD COLUMN edited_ms bigint,
    ADD COLUMN revoked_ms bigint,       -- taken back for everyone: envelope is empty and stays so
    ADD COLUMN expires_ms bigint;       -- from then on no read shows it; null when it stays

-- What was done. Without content: a row stays for ever, so that an action is never carried out twice.
CREATE TABLE actions (
    conversation_id uuid NOT NULL,
    action_id uuid NOT NULL,            -- UUIDv7, minted by the device; of several the greatest stands
    message_id uuid NOT NULL,           -- what it was done to; zero when void
    user_id uuid NOT NULL,              -- who did it
    peer_id uuid,                       -- who else learns of it; null for nobody
    pos uuid NOT NULL,                  -- of the attempt that was stored first
    accepted_ms bigint NOT NULL,
    expires_ms bigint,                  -- of the message
    device_id integer NOT NULL,
    kind smallint NOT NULL,             -- 2 edit, 3 revoke, 4 hide, 5 reaction, 15 void: declared never to be accepted
    is_withheld boolean NOT NULL,       -- it reaches its own user only: it was blocked, or never saw the message
    content_hash bytea NOT NULL,        -- empty when void
    PRIMARY KEY (conversation_id, action_id)
);

-- What one user alone sees of a message: it has hidden it, or has changed it and reached nobody else.
CREATE TABLE private_views (
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    is_hidden boolean NOT NULL,
    edit_id uuid,                       -- as in messages, for this user's eyes
    edited_ms bigint,
    revoked_ms bigint,
    expires_ms bigint,                  -- of the message
    envelope bytea,                     -- of the edit
    PRIMARY KEY (user_id, conversation_id, message_id)
);
ALTER TABLE private_views ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- Who reacted to what. A user has one reaction to a message, and while it is blocked another one that only it sees.
CREATE TABLE reactions (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    user_id uuid NOT NULL,
    is_withheld boolean NOT NULL,
    reaction_id uuid NOT NULL,
    reacted_ms bigint NOT NULL,
    expires_ms bigint,                  -- of the message
    envelope bytea NOT NULL,            -- empty when it was taken away
    PRIMARY KEY (conversation_id, message_id, user_id, is_withheld)
) WITH (fillfactor = 80);

-- A row of kind 5 points to an action: its message_id is the action's.
ALTER TABLE inbox ADD COLUMN expires_ms bigint;     -- of the message that the row is about
