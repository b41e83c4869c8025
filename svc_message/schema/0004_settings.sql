-- How users keep their conversations: the chat list gets what is muted, pinned, archived, cleared and to disappear.
--
-- The source document has no table of conversations; this one was added for the chat list. A row with last_ms 0 holds
-- settings of a conversation in which its user has not seen a message yet, and is on no list.
ALTER TABLE conversations
    ADD COLUMN pinned_ms bigint NOT NULL DEFAULT 0,     -- when it was pinned; 0 when it is not
    ADD COLUMN archived_ms bigint NOT NULL DEFAULT 0,   -- when it was archived; 0 when it is not, or somebody wrote since
    ADD COLUMN muted_until_ms bigint,
    ADD COLUMN expiry_s integer,                        -- the timer of a direct conversation; both sides have the same
    ADD COLUMN cleared_upto uuid,       -- what is not after it, and was accepted by cleared_ms, is cleared: a message
    ADD COLUMN cleared_ms bigint,       -- that comes late, though its id is older, has not been seen by anybody
    ADD COLUMN cleared_floor uuid,      -- everything up to here is cleared, whenever it was accepted
    ADD COLUMN settings_pos uuid;       -- of the newest change: the log and this row know the changes in one order

-- A window of the list is one range of an index, the pinned first. Negative, because a range over several columns can
-- be read from a place on only while all of them rise.
CREATE INDEX conversations_listed ON conversations (user_id, (-pinned_ms), (-last_ms), conversation_id)
    WHERE archived_ms = 0 AND last_ms > 0;
CREATE INDEX conversations_archived ON conversations (user_id, (-pinned_ms), (-last_ms), conversation_id)
    WHERE archived_ms > 0 AND last_ms > 0;
-- The older program lists by another order; without this index it sorts, and is right.
DROP INDEX conversations_by_time;
-- What was archived just now may have to come back.
CREATE INDEX conversations_by_archiving ON conversations (archived_ms) WHERE archived_ms > 0;
