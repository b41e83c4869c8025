-- Not in the source document, which has no sign-in.

CREATE TABLE auth_sessions (
    session_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    device_id smallint NOT NULL,
    create_ms bigint NOT NULL,
    refresh_ms bigint NOT NULL,
    revoke_ms bigint,
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
) WITH (fillfactor = 80);

-- A device has one session that is not revoked.
CREATE UNIQUE INDEX auth_sessions_live ON auth_sessions (user_id, device_id) WHERE revoke_ms IS NULL;
CREATE INDEX auth_sessions_by_user ON auth_sessions (user_id);

-- A proof is taken once; a nonce is kept as long as its proof could be young enough.
CREATE TABLE session_nonces (
    user_id uuid NOT NULL,
    device_id smallint NOT NULL,
    nonce bytea NOT NULL,
    expire_ms bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, nonce)
);

-- The keys that sign access tokens. The two newest count.
CREATE TABLE signing_keys (
    key_id text PRIMARY KEY,
    private_key bytea NOT NULL CHECK (octet_length(private_key) = 32),
    create_ms bigint NOT NULL,
    sign_from_ms bigint NOT NULL  -- every edge has fetched a new key before the first token bears it
);
