-- Not in the source document: programs that speak. A bot is an ordinary user without a phone and with one device; its
-- credential is the certificate of the service whose SPIFFE id stands here.
CREATE TABLE bots (
    spiffe_id text PRIMARY KEY CHECK (char_length(spiffe_id) <= 255),
    user_id uuid NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE,
    device_id smallint NOT NULL
);
