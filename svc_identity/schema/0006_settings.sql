-- User_Settings table of the source document, one row for each user that has changed something, and one typed column for
-- each setting instead of text under keys: a typo is refused, and what an audience allows is answered by one statement.
-- Columns are called as in the document's settings. Added: online (who sees that a user is online; NULL follows
-- last_seen). Audiences hold 1 nobody, 2 contacts, 3 everyone. Whoever has no row has the defaults, which stand here.
-- Also profile_photo_url of the Users table, as photo_media_id: bytes that name the photo and open nothing by themselves.
CREATE TABLE user_settings (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    last_seen smallint NOT NULL DEFAULT 2 CHECK (last_seen BETWEEN 1 AND 3),
    online smallint CHECK (online BETWEEN 1 AND 3),
    profile_photo smallint NOT NULL DEFAULT 3 CHECK (profile_photo BETWEEN 1 AND 3),
    about smallint NOT NULL DEFAULT 2 CHECK (about BETWEEN 1 AND 3),
    groups smallint NOT NULL DEFAULT 3 CHECK (groups BETWEEN 1 AND 3),
    read_receipts boolean NOT NULL DEFAULT true,
    message_notifications boolean NOT NULL DEFAULT true,
    group_notifications boolean NOT NULL DEFAULT true,
    call_notifications boolean NOT NULL DEFAULT true,
    notification_sound text NOT NULL DEFAULT 'default' CHECK (char_length(notification_sound) <= 64),
    two_step_verification boolean NOT NULL DEFAULT false,
    show_security_notifications boolean NOT NULL DEFAULT true
) WITH (fillfactor = 80);

ALTER TABLE users ADD COLUMN photo_media_id bytea CHECK (octet_length(photo_media_id) = 16);
