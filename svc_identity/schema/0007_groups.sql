-- Groups and Group_Members tables of the source document.
-- Added to groups: version (rises by one with every change, under the lock of the row), the cap, description, settings.
-- Added to members: the version with which a membership began. Roles hold 1 member, 2 admin, 3 owner.
-- Columns that end in _ms hold Unix milliseconds of the program's clock. There is no foreign key to users: it would
-- forbid sharding by owner.
CREATE TABLE groups (
    group_id uuid PRIMARY KEY,
    group_name text NOT NULL CHECK (char_length(group_name) BETWEEN 1 AND 100),
    description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 512),
    creator_id uuid NOT NULL,
    create_ms bigint NOT NULL,
    member_count integer NOT NULL CHECK (member_count BETWEEN 0 AND 1024),
    version bigint NOT NULL DEFAULT 1,
    is_announcement_only boolean NOT NULL DEFAULT false,
    expiry_s integer NOT NULL DEFAULT 0 CHECK (expiry_s BETWEEN 0 AND 7776000)
) WITH (fillfactor = 80);

CREATE TABLE group_members (
    group_id uuid NOT NULL REFERENCES groups ON DELETE CASCADE,
    user_id uuid NOT NULL,
    role smallint NOT NULL CHECK (role BETWEEN 1 AND 3),
    joined_version bigint NOT NULL,
    join_ms bigint NOT NULL,
    PRIMARY KEY (group_id, user_id)
);

-- The document's index on user_id: a user's groups in their order, and the groups that two users have in common.
CREATE INDEX group_members_by_user ON group_members (user_id, group_id) INCLUDE (role, joined_version);
CREATE UNIQUE INDEX group_owner ON group_members (group_id) WHERE role = 3;

-- Not in the document: who was a member from which version of the group until before which, so that history stays
-- visible to those who had it, and to nobody else.
CREATE TABLE group_departures (
    group_id uuid NOT NULL REFERENCES groups ON DELETE CASCADE,
    user_id uuid NOT NULL,
    joined_version bigint NOT NULL,
    left_version bigint NOT NULL CHECK (left_version > joined_version),
    leave_ms bigint NOT NULL,
    is_removed boolean NOT NULL,  -- by somebody else: invites that are older do not bring the user back
    PRIMARY KEY (group_id, user_id, joined_version)
);

CREATE INDEX group_departures_by_version ON group_departures (group_id, left_version);

-- Not in the document. Whoever has a code may join; only its hash is kept.
CREATE TABLE group_invites (
    code_hash bytea PRIMARY KEY,
    group_id uuid NOT NULL REFERENCES groups ON DELETE CASCADE,
    invite_id uuid NOT NULL,
    creator_id uuid NOT NULL,
    group_version bigint NOT NULL,  -- when it was made
    create_ms bigint NOT NULL,
    expire_ms bigint NOT NULL,
    use_limit integer NOT NULL DEFAULT 0,  -- 0: no limit
    uses integer NOT NULL DEFAULT 0,
    is_revoked boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX group_invites_by_group ON group_invites (group_id, invite_id);
CREATE INDEX group_invites_by_expiry ON group_invites (expire_ms);

-- Not in the document. What each change was, for the inboxes of those who were there; it goes with its row of the log.
CREATE TABLE group_changes (
    group_id uuid NOT NULL REFERENCES groups ON DELETE CASCADE,
    version bigint NOT NULL,
    kind smallint NOT NULL,
    actor_id uuid NOT NULL,
    user_ids uuid[] NOT NULL,
    group_name text NOT NULL,
    role smallint NOT NULL,
    member_count integer NOT NULL,
    change_ms bigint NOT NULL,
    PRIMARY KEY (group_id, version)
);
