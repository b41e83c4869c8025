"""Statements read by index at the sizes that matter: no plan may grow with a table."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from svc_identity.adapters import (
    change_log_postgres,
    group_store_postgres,
    groups_postgres,
    invite_store_postgres,
    membership_store_postgres,
    privacy_store_postgres,
    profile_store_postgres,
)
from svc_identity.model.privacy import PrivacyAspect
from tests.svc_identity.conftest import empty

# Each person has a device, five contacts, has blocked five, has settings of its own and is in five groups of ten.
PEOPLE, GROUPS = 30_000, 15_000
_SEED = """
    INSERT INTO users (user_id, phone_e164, profile_name)
        SELECT lpad(to_hex(n), 32, '0')::uuid, '+4477' || lpad(n::text, 8, '0'), 'x'
        FROM generate_series(1, {people}) n;
    INSERT INTO user_settings (user_id, about)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 3 FROM generate_series(1, {people}) n;
    INSERT INTO devices (user_id, device_id, public_key, link_ms)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 1, sha256(int4send(n)), 0 FROM generate_series(1, {people}) n;
    INSERT INTO contacts (owner_id, phone_e164, contact_user_id)
        SELECT lpad(to_hex(n), 32, '0')::uuid, '+4477' || lpad(other::text, 8, '0'), lpad(to_hex(other), 32, '0')::uuid
        FROM generate_series(1, {people}) n, LATERAL (SELECT 1 + (n + k * 997) % {people} AS other
        FROM generate_series(1, 5) k) o WHERE other <> n;
    INSERT INTO blocks (blocker_id, blocked_id)
        SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n + k), 32, '0')::uuid
        FROM generate_series(1, {people}) n, generate_series(1, 5) k;
    INSERT INTO groups (group_id, group_name, creator_id, create_ms, member_count)
        SELECT ('b' || lpad(to_hex(n), 31, '0'))::uuid, 'x', lpad(to_hex(n), 32, '0')::uuid, 0, 10
        FROM generate_series(1, {groups}) n;
    INSERT INTO group_members
        SELECT ('b' || lpad(to_hex(n), 31, '0'))::uuid, lpad(to_hex(1 + (n * 2 + k * 7) % {people}), 32, '0')::uuid,
               CASE k WHEN 0 THEN 3 ELSE 1 END, 1, 0
        FROM generate_series(1, {groups}) n, generate_series(0, 9) k;
    INSERT INTO group_departures
        SELECT ('b' || lpad(to_hex(n), 31, '0'))::uuid, lpad(to_hex(n), 32, '0')::uuid, 1, 2, 0, false
        FROM generate_series(1, {groups}) n;
    INSERT INTO group_changes
        SELECT ('b' || lpad(to_hex(n), 31, '0'))::uuid, 1, 1, lpad(to_hex(n), 32, '0')::uuid, '{{}}', 'x', 1, 10, 0
        FROM generate_series(1, {groups}) n;
    INSERT INTO group_invites (code_hash, group_id, invite_id, creator_id, group_version, create_ms, expire_ms)
        SELECT int4send(n), ('b' || lpad(to_hex(n), 31, '0'))::uuid, gen_random_uuid(), gen_random_uuid(), 1, 0, 0
        FROM generate_series(1, {groups}) n;
"""


def person(number: int) -> UUID:
    return UUID(int=number)


def group(number: int) -> UUID:
    return UUID(f"b{number:031x}")


SOME = [person(number) for number in range(100, 150)]
OTHERS = [person(number) for number in range(9_000, 9_050)]
PLACES = [group(number) for number in range(100, 150)]
STATEMENTS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "profile_with_settings": (privacy_store_postgres._PROFILE_WITH_SETTINGS, (person(7),)),
    "mutual_groups": (membership_store_postgres._MUTUAL_GROUPS, (person(7), person(8), UUID(int=0), 200)),
    "profiles": (profile_store_postgres._PROFILES, (person(7), SOME)),
    "users": (profile_store_postgres._USERS, (SOME,)),
    "judge": (group_store_postgres._JUDGE, (person(7), SOME)),
    "groups": (group_store_postgres._GROUPS, (person(7), PLACES, person(7))),
    "groups of": (group_store_postgres._GROUPS_OF, (person(7), UUID(int=0), 200)),
    "members": (group_store_postgres._MEMBERS, (person(7), person(7), UUID(int=0), 200, group(7))),
    "heir": (group_store_postgres._HEIR, (group(7),)),
    "lock": (groups_postgres._LOCK, (group(7),)),
    "roles": (groups_postgres._ROLES, (group(7), SOME, group(7))),
    "directory group": (membership_store_postgres._GROUP, (group(7),)),
    "memberships": (membership_store_postgres._MEMBERSHIPS, (PLACES, SOME)),
    "invite": (invite_store_postgres._FIND, (b"0007",)),
    "invites": (invite_store_postgres._COUNT, (group(7), 0)),
    "use": (invite_store_postgres._USE, (b"0007", 0, person(7))),
    "group news": (change_log_postgres._GROUP_NEWS, (group(7), 1)),
} | {f"may_see {aspect.name}": (privacy_store_postgres._MAY_SEE[aspect], (SOME, OTHERS)) for aspect in PrivacyAspect}


@pytest.fixture(scope="module")
def seeded(postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    empty(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(_SEED.format(people=PEOPLE, groups=GROUPS).encode())
        connection.execute("VACUUM ANALYZE")
        yield connection
    empty(postgres_dsn)


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_reads_no_table_from_end_to_end(seeded: psycopg.Connection[Any], name: str) -> None:
    query, parameters = STATEMENTS[name]

    plan = "\n".join(row[0] for row in seeded.execute(f"EXPLAIN {query}".encode(), parameters))

    assert re.findall(r"Seq Scan on (\w+)", plan) == [], plan


def test_groups_in_common_are_found_in_the_index_alone(seeded: psycopg.Connection[Any]) -> None:
    query, parameters = STATEMENTS["mutual_groups"]

    plan = "\n".join(row[0] for row in seeded.execute(f"EXPLAIN {query}".encode(), parameters))

    assert plan.count("Index Only Scan using group_members_by_user") == 2, plan
