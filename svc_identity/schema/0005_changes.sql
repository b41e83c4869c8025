-- Not in the source document: the log of changes that caches and inboxes follow.
-- Every mutation writes its row in its own transaction. Readers hold a snapshot instead of the last id, because ids are
-- given out before commits and a reader of `id > last` would lose what commits late.
CREATE TABLE identity_changes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind smallint NOT NULL,
    entity uuid NOT NULL,
    version bigint NOT NULL,
    device_id smallint NOT NULL DEFAULT 0,
    session_id uuid,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (xid, id)
);

CREATE INDEX identity_changes_by_time ON identity_changes USING brin (at);

-- One row. The epoch is raised by an operator after a restore, when old cursors mean nothing any more;
-- the floor is the newest transaction whose changes were removed; the mark is how far inboxes have been told.
CREATE TABLE identity_log (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    epoch bigint NOT NULL DEFAULT 1,
    floor_xid xid8 NOT NULL DEFAULT '0',
    mark bytea
);

INSERT INTO identity_log DEFAULT VALUES;
