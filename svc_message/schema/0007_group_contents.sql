-- What somebody who has left a group still sees: messages and reactions as they stood when it left.
--
-- The source document's messages are never edited. Added: with every edit and reaction in a group the group's version, and
-- what was said in each version in a row of its own, because what is said after a member has left is not for it. With
-- this, content of groups stands in one more place, which taking a message back reaches too.
ALTER TABLE messages
    ADD COLUMN edit_version bigint;     -- of the group, when the edit was made whose content stands in envelope
ALTER TABLE actions
    ADD COLUMN members_version bigint;  -- of the group, when it was done; null in a direct conversation
ALTER TABLE reactions
    ADD COLUMN members_version bigint;  -- the same, of reaction_id

CREATE TABLE group_contents (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    user_id uuid NOT NULL,              -- whose reaction it is; zero for what the message says
    members_version bigint NOT NULL,
    action_id uuid NOT NULL,            -- the greatest of its version; the message's own for what was sent
    accepted_ms bigint NOT NULL,        -- 0 for what was sent
    expires_ms bigint,                  -- of the message
    envelope bytea NOT NULL,
    PRIMARY KEY (conversation_id, message_id, user_id, members_version)
) WITH (fillfactor = 80);
ALTER TABLE group_contents ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE INDEX group_contents_expiring ON group_contents (expires_ms) WHERE expires_ms IS NOT NULL;
