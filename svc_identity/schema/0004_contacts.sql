-- Added to what the source document has here: created_at, the indexes by which a newcomer finds who waits for it and a
-- sender who has blocked it, and the budget of calls by which numbers could be guessed.
-- Contacts and Blocked_Users tables of the source document.
-- Contacts are keyed by the number that was typed, because the person may have no account yet; contact_user_id is
-- filled in when the number registers. There is no foreign key to other users: it would forbid sharding by owner.
CREATE TABLE contacts (
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    phone_e164 text NOT NULL CHECK (phone_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    contact_user_id uuid,
    contact_name text NOT NULL DEFAULT '' CHECK (char_length(contact_name) <= 64),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, phone_e164),
    CHECK (owner_id <> contact_user_id)
);

CREATE INDEX contacts_by_user ON contacts (contact_user_id, owner_id) WHERE contact_user_id IS NOT NULL;
CREATE INDEX contacts_waiting ON contacts (phone_e164, owner_id) WHERE contact_user_id IS NULL;

CREATE TABLE blocks (
    blocker_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    blocked_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (blocker_id, blocked_id),
    CHECK (blocker_id <> blocked_id)
);

CREATE INDEX blocks_reverse ON blocks (blocked_id, blocker_id);

-- Added: what an account has used up today of the calls that could be used for guessing.
CREATE TABLE account_budgets (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    budget text NOT NULL,
    day integer NOT NULL,  -- days since 1970
    used integer NOT NULL,
    PRIMARY KEY (user_id, budget)
) WITH (fillfactor = 80);
