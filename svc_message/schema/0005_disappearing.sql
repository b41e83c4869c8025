-- Messages that disappear, and everything that is not kept for ever.
--
-- The source document lets keys of Redis expire by themselves and says nothing of messages. Added: what is left of a
-- message that has disappeared, so that a retry of its sender is answered as ever, and the indexes by which the
-- retention of the ledger finds what is to go. They hold no row but those.

-- Ids, a time and a hash; nothing of who wrote what to whom but what is in the id of the conversation.
CREATE TABLE disappeared (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    accepted_ms bigint NOT NULL,
    content_hash bytea NOT NULL,        -- as in messages: what makes two sends with one id the same
    is_withheld boolean NOT NULL,
    PRIMARY KEY (conversation_id, message_id)
);

-- A message that has disappeared is emptied at once: its kind is 14 then, which no reader shows. Its row goes when no
-- first attempt can come any more under its id.
CREATE INDEX messages_expiring ON messages (expires_ms) WHERE kind = 1 AND expires_ms IS NOT NULL;
CREATE INDEX messages_disappeared ON messages (message_id) WHERE kind = 14;
CREATE INDEX private_views_expiring ON private_views (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX reactions_expiring ON reactions (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX inbox_expiring ON inbox (expires_ms) WHERE expires_ms IS NOT NULL;
