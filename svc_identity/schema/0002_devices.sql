-- Not in the source document, which has no devices and no way in.
-- Columns that end in _ms hold Unix milliseconds of the program's clock, by which they are judged.

-- A device's key is its credential; an unlinked device keeps its row, so that its id and key are never used again.
CREATE TABLE devices (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id smallint NOT NULL CHECK (device_id > 0),
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    platform text NOT NULL DEFAULT '' CHECK (char_length(platform) <= 64),
    generation integer NOT NULL DEFAULT 1,  -- a token of a lower one is refused
    link_ms bigint NOT NULL,
    unlink_ms bigint,
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 90);

-- One row for each one-time code that was sent; rows of the last day are also the budget of a number.
CREATE TABLE verifications (
    verification_id uuid PRIMARY KEY,
    phone_e164 text NOT NULL,
    code_hmac bytea NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    send_ms bigint NOT NULL,
    expire_ms bigint NOT NULL,
    is_used boolean NOT NULL DEFAULT false
);

CREATE INDEX verifications_by_phone ON verifications (phone_e164, send_ms);

-- A used token remembers for whom, so that a retry that lost its answer gets the same again.
CREATE TABLE registration_tokens (
    token_hash bytea PRIMARY KEY,
    phone_e164 text NOT NULL,
    expire_ms bigint NOT NULL,
    public_key bytea,
    user_id uuid,
    device_id smallint
);

CREATE INDEX registration_tokens_by_expiry ON registration_tokens (expire_ms);

CREATE TABLE link_codes (
    code_hmac bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    expire_ms bigint NOT NULL,
    public_key bytea,
    device_id smallint
);

CREATE INDEX link_codes_by_expiry ON link_codes (expire_ms);
