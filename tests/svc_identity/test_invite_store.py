"""What every InviteStore does, in memory and on PostgreSQL."""

import asyncio

import pytest

from chappe.runtime.errors import RateLimitedError
from svc_identity.errors import (
    GroupFullError,
    GroupNotFoundError,
    InviteNotFoundError,
    ListFullError,
    RoleRequiredError,
)
from svc_identity.model import UserId
from svc_identity.model.group import GroupChangeKind, GroupId, Invite, InviteId
from svc_identity.ports import IdentityStore
from tests.svc_identity.groups import add, by, found, membership, roles, version
from tests.svc_identity.people import RANDOM, START_MS, charge, crowd, register

WEEK_MS = 7 * 86_400_000


def invite(use_limit: int = 0, life_ms: int = WEEK_MS) -> Invite:
    return Invite(
        invite_id=InviteId(RANDOM.token(16)),
        code_hash=RANDOM.token(32),
        expire_ms=START_MS + life_ms,
        use_limit=use_limit,
    )


async def opened(store: IdentityStore, owner: UserId, use_limit: int = 0) -> tuple[GroupId, Invite]:
    """Creates a group with an invite."""
    group_id = await found(store, owner)
    return group_id, await store.invites.create_invite(by(group_id, owner), invite(use_limit))


async def test_whoever_has_the_code_joins_once(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    group_id, made = await opened(store, owner, use_limit=1)

    joined = [await store.invites.join(bob, made.code_hash, START_MS) for _ in range(2)]

    assert joined == [group_id, group_id]
    assert await version(store, group_id) == 2
    news = await store.changes.group_news(group_id, 2)
    assert news is not None
    assert (news.change.kind, news.change.actor_id, news.change.user_ids) == (GroupChangeKind.JOINED, bob, (bob,))


async def test_retry_of_making_an_invite_gets_the_first(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    group_id, made = await opened(store, owner)
    again = Invite(invite_id=made.invite_id, code_hash=made.code_hash, expire_ms=START_MS + 1, use_limit=5)

    assert await store.invites.create_invite(by(group_id, owner), again) == made


async def test_unknown_expired_and_revoked_codes_open_nothing(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    group_id, made = await opened(store, owner)
    revoked, other = [await store.invites.create_invite(by(group_id, owner), invite()) for _ in range(2)]
    await store.invites.revoke_invites(by(group_id, owner), revoked.invite_id)
    await store.invites.revoke_invites(by(group_id, owner), revoked.invite_id)

    for code_hash, now_ms in (
        (RANDOM.token(32), START_MS),
        (made.code_hash, made.expire_ms),
        (revoked.code_hash, START_MS),
    ):
        with pytest.raises(InviteNotFoundError):
            await store.invites.join(bob, code_hash, now_ms)
    await store.invites.revoke_invites(by(group_id, owner), None)
    for code_hash in (made.code_hash, other.code_hash):
        with pytest.raises(InviteNotFoundError):
            await store.invites.join(bob, code_hash, START_MS)

    assert set(await roles(store, group_id)) == {owner}
    with pytest.raises(InviteNotFoundError):
        await store.invites.revoke_invites(by(group_id, owner), InviteId(bytes(16)))


async def test_invite_lets_in_as_many_as_it_says_also_at_once(store: IdentityStore) -> None:
    owner, *others = await crowd(store, 9)
    group_id, made = await opened(store, owner, use_limit=3)

    results = await asyncio.gather(
        *(store.invites.join(other, made.code_hash, START_MS) for other in others), return_exceptions=True
    )

    assert results.count(group_id) == 3
    assert sum(isinstance(result, InviteNotFoundError) for result in results) == 5
    assert len(await roles(store, group_id)) == 4


async def test_full_group_says_that_it_is_full_and_no_use_is_counted(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, bob, cid = await crowd(store, 3)
    group_id, made = await opened(store, owner, use_limit=2)
    monkeypatch.setattr("svc_identity.protocol.group.MOST_MEMBERS", 2)
    await store.invites.join(bob, made.code_hash, START_MS)

    with pytest.raises(GroupFullError):
        await store.invites.join(cid, made.code_hash, START_MS)
    await store.groups.leave_group(by(group_id, bob))
    await store.invites.join(cid, made.code_hash, START_MS)

    assert set(await roles(store, group_id)) == {owner, cid}


async def test_removed_person_does_not_come_back_by_an_old_invite(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    group_id, old = await opened(store, owner)
    await store.invites.join(bob, old.code_hash, START_MS)
    await store.groups.remove_member(by(group_id, owner), bob)

    with pytest.raises(InviteNotFoundError):
        await store.invites.join(bob, old.code_hash, START_MS)
    await add(store, group_id, owner, bob)
    await store.groups.leave_group(by(group_id, bob))
    with pytest.raises(InviteNotFoundError):
        await store.invites.join(bob, old.code_hash, START_MS)
    newer = await store.invites.create_invite(by(group_id, owner), invite())

    assert await store.invites.join(bob, newer.code_hash, START_MS) == group_id


async def test_whoever_left_may_come_back_by_an_old_invite(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    group_id, old = await opened(store, owner)
    await store.invites.join(bob, old.code_hash, START_MS)
    await store.groups.leave_group(by(group_id, bob))

    await store.invites.join(bob, old.code_hash, START_MS)

    assert [window.joined_version for window in (await membership(store, group_id, bob)).windows] == [2, 4]


async def test_invites_end_with_the_last_member(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    group_id, made = await opened(store, owner)
    await store.groups.leave_group(by(group_id, owner))

    with pytest.raises(InviteNotFoundError):
        await store.invites.join(bob, made.code_hash, START_MS)
    with pytest.raises(InviteNotFoundError):
        await store.invites.join(owner, made.code_hash, START_MS)


async def test_invites_are_made_and_ended_by_admins(store: IdentityStore) -> None:
    owner, bob, stranger = await crowd(store, 3)
    group_id = await found(store, owner, bob)

    for who, error in ((bob, RoleRequiredError), (stranger, GroupNotFoundError)):
        with pytest.raises(error):
            await store.invites.create_invite(by(group_id, who), invite())
        with pytest.raises(error):
            await store.invites.revoke_invites(by(group_id, who), None)


async def test_group_has_so_many_invites_that_work(store: IdentityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_identity.protocol.group.MOST_INVITES", 2)
    owner, bob = await crowd(store, 2)
    group_id, made = await opened(store, owner, use_limit=1)
    await store.invites.create_invite(by(group_id, owner), invite())

    with pytest.raises(ListFullError):
        await store.invites.create_invite(by(group_id, owner), invite())
    await store.invites.join(bob, made.code_hash, START_MS)
    await store.invites.create_invite(by(group_id, owner), invite())


async def test_attempts_to_join_are_budgeted(store: IdentityStore) -> None:
    bob = (await register(store)).user_id

    await store.invites.charge_join(bob, charge(limit=1))

    with pytest.raises(RateLimitedError):
        await store.invites.charge_join(bob, charge(limit=1))
