-- Not in the source document: whoever registers a number ends the other registration tokens of it.
CREATE INDEX registration_tokens_by_phone ON registration_tokens (phone_e164);
