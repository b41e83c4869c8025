-- Users table of the source document, one row for each account.
-- Added: version (readers keep the higher copy), next_device_id (an id of a device is never given out twice),
-- state (a deleted account is not an unknown one). phone_number is called phone_e164 and is NULL once released;
-- status_msg is called about. profile_photo_url and last_login come with media and presence.
CREATE TABLE users (
    user_id uuid PRIMARY KEY,
    phone_e164 text CHECK (phone_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    profile_name text NOT NULL DEFAULT '' CHECK (char_length(profile_name) <= 64),
    about text NOT NULL DEFAULT '' CHECK (char_length(about) <= 256),
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    version bigint NOT NULL DEFAULT 1,
    next_device_id smallint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);

CREATE UNIQUE INDEX users_phone_live ON users (phone_e164) WHERE phone_e164 IS NOT NULL;
