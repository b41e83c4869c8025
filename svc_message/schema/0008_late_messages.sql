-- Messages table of the source document, whose messages are marked as read one by one. Here a read names a place and
-- stands for what is unread up to there.
-- Added: an index of the messages that were accepted long after they were written, on a phone that was offline. A read
-- must find those without looking through all that was said in the minutes in which they may have come.

-- The id of a message that was accepted more than 30 s after the time in it; null for all others.
CREATE FUNCTION late_id(message_id uuid, accepted_ms bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN accepted_ms - ('x' || substr(encode(uuid_send(message_id), 'hex'), 1, 12))::bit(48)::bigint > 30000
        THEN message_id END;

CREATE INDEX messages_late ON messages (conversation_id, late_id(message_id, accepted_ms))
    WHERE late_id(message_id, accepted_ms) IS NOT NULL;
