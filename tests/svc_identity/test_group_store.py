"""What every GroupStore does, in memory and on PostgreSQL."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chappe.runtime.errors import RateLimitedError
from svc_identity.errors import (
    GroupFullError,
    GroupNotFoundError,
    MemberNotFoundError,
    NotAMemberError,
    OwnerProtectedError,
    RoleRequiredError,
)
from svc_identity.model import UserId
from svc_identity.model.group import (
    GroupChangeKind,
    GroupId,
    GroupMember,
    GroupRole,
    GroupUpdate,
    Refusal,
    RefusalReason,
    Window,
)
from svc_identity.model.privacy import Audience
from svc_identity.ports import IdentityStore
from svc_identity.protocol.group import MOST_MEMBERS
from tests.svc_identity.groups import ADDITION, CHARGES, add, by, draft, found, membership, roles, version
from tests.svc_identity.people import START_MS, charge, crowd, new_phone, register

MEMBER, ADMIN, OWNER = GroupRole.MEMBER, GroupRole.ADMIN, GroupRole.OWNER
NOBODY = UserId(bytes(15) + b"\1")
NOWHERE = GroupId(bytes(16))
ROOM = 200
"""For so many there is still room when more than that ask at once."""


async def with_admin(store: IdentityStore) -> tuple[GroupId, UserId, UserId, UserId]:
    """Returns a group, its owner, an admin and a member."""
    owner, admin, member = await crowd(store, 3)
    group_id = await found(store, owner, admin, member)
    await store.groups.set_role(by(group_id, owner), admin, ADMIN)
    return group_id, owner, admin, member


async def test_creator_owns_the_group_and_the_others_are_members(store: IdentityStore) -> None:
    owner, bob, cid = await crowd(store, 3)
    made = draft(owner, [bob, cid])

    refusals = await store.groups.create_group(made, CHARGES)

    (seen,) = await store.groups.groups(bob, [made.group_id])
    assert refusals == []
    assert (seen.name, seen.creator_id, seen.owner_id, seen.create_ms) == ("Towers", owner, owner, START_MS)
    assert (seen.version, seen.member_count, seen.role, seen.joined_version) == (1, 3, MEMBER, 1)
    assert await roles(store, made.group_id) == {owner: OWNER, bob: MEMBER, cid: MEMBER}


async def test_retry_of_creating_creates_no_second_group(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    made = draft(owner, [bob, NOBODY])

    answers = [await store.groups.create_group(made, (charge(limit=1), ADDITION)) for _ in range(3)]

    assert answers == [[Refusal(NOBODY, RefusalReason.USER_NOT_FOUND)]] * 3
    assert [group.group_id for group in await store.groups.list_groups(owner, b"", 10)] == [made.group_id]
    assert await version(store, made.group_id) == 1


async def test_creating_twice_at_once_creates_one_group(store: IdentityStore) -> None:
    owner, bob = await crowd(store, 2)
    made = draft(owner, [bob])

    await asyncio.gather(*(store.groups.create_group(made, CHARGES) for _ in range(4)))

    group = await store.memberships.directory_group(made.group_id)
    assert (group.version, len(group.member_ids)) == (1, 2)


async def test_new_groups_are_budgeted_by_groups_and_by_people(store: IdentityStore) -> None:
    owner, bob, cid = await crowd(store, 3)

    await store.groups.create_group(draft(owner, [bob]), (charge(limit=2), replace(ADDITION, limit=2)))
    with pytest.raises(RateLimitedError):
        await store.groups.create_group(draft(owner, [bob, cid]), (charge(limit=2), replace(ADDITION, limit=2)))
    with pytest.raises(RateLimitedError):
        await store.groups.create_group(draft(owner), (charge(limit=1), ADDITION))

    assert len(await store.groups.list_groups(owner, b"", 10)) == 1


async def test_those_who_may_not_be_added_come_back_and_the_others_are_added(store: IdentityStore) -> None:
    phone = new_phone()
    owner = (await register(store, phone)).user_id
    hidden, known, blocker, blocked, open_to_all = await crowd(store, 5)
    await store.privacy.update_settings(hidden, lambda settings: replace(settings, groups=Audience.NOBODY))
    for user_id in (hidden, known):
        await store.contacts.add_contact(user_id, phone, "Owner", charge())
    await store.privacy.update_settings(known, lambda settings: replace(settings, groups=Audience.CONTACTS))
    await store.contacts.block(blocker, owner)
    await store.contacts.block(owner, blocked)
    asked = [hidden, known, NOBODY, blocker, open_to_all, blocked]
    expected = [
        Refusal(hidden, RefusalReason.NOT_ALLOWED),
        Refusal(NOBODY, RefusalReason.USER_NOT_FOUND),
        Refusal(blocker, RefusalReason.NOT_ALLOWED),
        Refusal(blocked, RefusalReason.BLOCKED),
    ]

    made, empty = draft(owner, asked), draft(owner)
    at_creation = await store.groups.create_group(made, CHARGES)
    await store.groups.create_group(empty, CHARGES)
    later = await store.groups.add_members(by(empty.group_id, owner), asked, ADDITION)

    assert at_creation == later == expected
    for group_id in (made.group_id, empty.group_id):
        assert set(await roles(store, group_id)) == {owner, known, open_to_all}


async def test_stranger_whose_contacts_alone_may_add_it_is_not_added(store: IdentityStore) -> None:
    owner, stranger = await crowd(store, 2)
    await store.privacy.update_settings(stranger, lambda settings: replace(settings, groups=Audience.CONTACTS))
    group_id = await found(store, owner)

    refusals = await add(store, group_id, owner, stranger)

    assert refusals == [Refusal(stranger, RefusalReason.NOT_ALLOWED)]
    assert await version(store, group_id) == 1


async def test_adding_is_one_change_however_many_are_added(store: IdentityStore) -> None:
    owner, bob, cid, dee = await crowd(store, 4)
    group_id = await found(store, owner, bob)

    await add(store, group_id, owner, bob, cid, dee)
    await add(store, group_id, owner, dee, cid)

    assert await version(store, group_id) == 2
    assert (await membership(store, group_id, cid)).windows == (Window(2, 0),)
    assert (await membership(store, group_id, bob)).windows == (Window(1, 0),)


async def test_people_who_do_not_all_fit_are_not_added_at_all(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_identity.protocol.group.MOST_MEMBERS", 3)
    owner, bob, cid, dee = await crowd(store, 4)
    group_id = await found(store, owner, bob)

    with pytest.raises(GroupFullError) as refused:
        await add(store, group_id, owner, cid, dee)
    await add(store, group_id, owner, bob, cid)

    assert refused.value.metadata == {"limit": "3"}
    assert set(await roles(store, group_id)) == {owner, bob, cid}


async def test_adding_is_budgeted_by_people(store: IdentityStore) -> None:
    owner, bob, cid, dee = await crowd(store, 4)
    group_id = await found(store, owner)

    await store.groups.add_members(by(group_id, owner), [bob], replace(ADDITION, budget="new", limit=2))
    with pytest.raises(RateLimitedError):
        await store.groups.add_members(by(group_id, owner), [bob, cid, dee], replace(ADDITION, budget="new", limit=2))
    await store.groups.add_members(by(group_id, owner), [bob, cid], replace(ADDITION, budget="new", limit=2))

    assert set(await roles(store, group_id)) == {owner, bob, cid}


async def at_once(store: IdentityStore, everybody: Sequence[UserId]) -> None:
    """Makes a group of as many as there may be in one call, and looks who is in it."""
    group_id = await found(store, everybody[0], *everybody[1:])

    group = await store.memberships.directory_group(group_id)
    assert group.member_ids == tuple(sorted(everybody))
    assert set(group.joined_versions) == {1}
    assert [group.roles[group.member_ids.index(user_id)] for user_id in everybody[:2]] == [OWNER, MEMBER]


@pytest.mark.untraced
async def test_exactly_as_many_get_in_as_there_is_room_for(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    everybody = await crowd(store, MOST_MEMBERS + 1)
    await at_once(store, everybody[:MOST_MEMBERS])
    group_id = await found(store, owner)
    await add(store, group_id, owner, *everybody[: MOST_MEMBERS - ROOM])
    for admin in everybody[:20]:
        await store.groups.set_role(by(group_id, owner), admin, ADMIN)
    before = await version(store, group_id)

    # All of them ask at once, as far as there are connections: who waits for one for 5 s is told so.
    room = asyncio.Semaphore(64)

    async def attempt(admin: UserId, person: UserId) -> list[Refusal]:
        async with room:
            return await add(store, group_id, admin, person)

    admins = itertools.cycle([owner, *everybody[:20]])
    late = everybody[MOST_MEMBERS - ROOM :]
    results = await asyncio.gather(*map(attempt, admins, late), return_exceptions=True)

    group = await store.memberships.directory_group(group_id)
    assert len(group.member_ids) == MOST_MEMBERS
    assert sum(isinstance(result, GroupFullError) for result in results) == 2
    assert sum(result == [] for result in results) == ROOM - 1
    assert group.version == before + ROOM - 1
    assert len({joined for joined in group.joined_versions if joined > before}) == ROOM - 1


async def test_removed_member_keeps_its_window_and_nothing_more(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)

    await store.groups.remove_member(by(group_id, admin), member)
    await store.groups.remove_member(by(group_id, admin), member)
    gone = await membership(store, group_id, member)
    await add(store, group_id, owner, member)

    assert (gone.role, gone.windows, gone.group_version) == (None, (Window(1, 3),), 3)
    assert await membership(store, group_id, member) == (group_id, member, MEMBER, (Window(1, 3), Window(4, 0)), 4)
    (seen,) = await store.groups.groups(member, [group_id])
    assert (seen.member_count, seen.joined_version) == (3, 4)


async def test_those_who_may_not_change_a_group_are_refused(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)
    stranger, gone = await crowd(store, 2)
    await add(store, group_id, owner, gone)
    await store.groups.leave_group(by(group_id, gone))
    before = await version(store, group_id)

    for who, error in ((member, RoleRequiredError), (stranger, GroupNotFoundError), (gone, NotAMemberError)):
        with pytest.raises(error):
            await store.groups.update_group(by(group_id, who), GroupUpdate(name="Mine"))
        with pytest.raises(error):
            await add(store, group_id, who, stranger)
        with pytest.raises(error):
            await store.groups.remove_member(by(group_id, who), admin)
        with pytest.raises(error):
            await store.groups.set_role(by(group_id, who), member, ADMIN)

    assert await version(store, group_id) == before


async def test_group_that_does_not_exist_is_told_like_one_of_strangers(store: IdentityStore) -> None:
    stranger = (await register(store)).user_id

    with pytest.raises(GroupNotFoundError):
        await store.groups.update_group(by(NOWHERE, stranger), GroupUpdate(name="Mine"))
    with pytest.raises(GroupNotFoundError):
        await store.groups.leave_group(by(NOWHERE, stranger))
    with pytest.raises(GroupNotFoundError):
        await store.groups.list_members(stranger, NOWHERE, b"", 10)

    assert [group.version for group in await store.groups.groups(stranger, [NOWHERE])] == [0]
    assert (await store.memberships.directory_group(NOWHERE)).version == 0
    assert await membership(store, NOWHERE, stranger) == (NOWHERE, stranger, None, (), 0)


async def test_owner_can_be_neither_removed_nor_demoted(store: IdentityStore) -> None:
    group_id, owner, admin, _ = await with_admin(store)

    with pytest.raises(OwnerProtectedError):
        await store.groups.remove_member(by(group_id, admin), owner)
    with pytest.raises(OwnerProtectedError):
        await store.groups.set_role(by(group_id, admin), owner, MEMBER)
    with pytest.raises(OwnerProtectedError):
        await store.groups.set_role(by(group_id, owner), owner, ADMIN)
    with pytest.raises(RoleRequiredError) as refused:
        await store.groups.set_role(by(group_id, admin), admin, OWNER)

    assert refused.value.metadata == {"role": "OWNER"}
    assert (await roles(store, group_id))[owner] is OWNER


async def test_admins_raise_and_lower_members_and_each_other(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)

    await store.groups.set_role(by(group_id, admin), member, ADMIN)
    await store.groups.set_role(by(group_id, admin), member, ADMIN)
    await store.groups.set_role(by(group_id, member), admin, MEMBER)
    await store.groups.set_role(by(group_id, member), member, MEMBER)

    assert await roles(store, group_id) == {owner: OWNER, admin: MEMBER, member: MEMBER}
    assert await version(store, group_id) == 5
    with pytest.raises(MemberNotFoundError):
        await store.groups.set_role(by(group_id, owner), NOBODY, ADMIN)
    with pytest.raises(MemberNotFoundError):
        await store.groups.remove_member(by(group_id, owner), NOBODY)


async def test_owner_hands_over_and_becomes_an_admin(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)

    await store.groups.set_role(by(group_id, owner), member, OWNER)

    assert await roles(store, group_id) == {owner: ADMIN, admin: ADMIN, member: OWNER}
    news = [await store.changes.group_news(group_id, number) for number in (3, 4)]
    assert [(found.change.user_ids, found.change.role) for found in news if found] == [
        ((owner,), ADMIN),
        ((member,), OWNER),
    ]


async def test_owner_who_leaves_hands_over_to_the_oldest_admin(store: IdentityStore) -> None:
    group_id, owner, admin, _ = await with_admin(store)
    late = (await register(store)).user_id
    await add(store, group_id, owner, late)
    await store.groups.set_role(by(group_id, owner), late, ADMIN)

    await store.groups.leave_group(by(group_id, owner))
    await store.groups.leave_group(by(group_id, owner))

    assert (await roles(store, group_id))[admin] is OWNER
    assert (await membership(store, group_id, owner)).windows == (Window(1, 5),)
    left, raised = [await store.changes.group_news(group_id, number) for number in (5, 6)]
    assert left is not None
    assert raised is not None
    assert (left.change.kind, left.change.actor_id, owner in left.recipients) == (GroupChangeKind.LEFT, owner, True)
    assert (raised.change.kind, raised.change.role, owner in raised.recipients) == (GroupChangeKind.ROLE, OWNER, False)


async def test_without_an_admin_the_oldest_member_becomes_the_owner(store: IdentityStore) -> None:
    owner, first, second = await crowd(store, 3)
    group_id = await found(store, owner)
    await add(store, group_id, owner, second)
    await add(store, group_id, owner, first)

    await store.groups.leave_group(by(group_id, owner))

    assert await roles(store, group_id) == {second: OWNER, first: MEMBER}


async def test_last_one_to_leave_leaves_nobody(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    group_id = await found(store, owner)

    await store.groups.leave_group(by(group_id, owner))

    group = await store.memberships.directory_group(group_id)
    assert (group.version, group.member_ids, group.roles) == (2, (), ())
    (seen,) = await store.groups.groups(owner, [group_id])
    assert (seen.version, seen.is_past) == (0, True)
    assert await store.groups.list_groups(owner, b"", 10) == []


async def test_there_is_one_owner_whatever_happens_at_once(store: IdentityStore) -> None:
    owner, *others = await crowd(store, 9)
    group_id = await found(store, owner, *others)
    for admin in others[:4]:
        await store.groups.set_role(by(group_id, owner), admin, ADMIN)

    await asyncio.gather(
        store.groups.leave_group(by(group_id, owner)),
        store.groups.set_role(by(group_id, owner), others[5], OWNER),
        *(store.groups.leave_group(by(group_id, admin)) for admin in others[:3]),
        *(store.groups.set_role(by(group_id, admin), admin, MEMBER) for admin in others[:4]),
        return_exceptions=True,
    )

    left = await roles(store, group_id)
    assert [role for role in left.values() if role is OWNER] == [OWNER]
    assert set(left) == set(others[3:])


async def test_what_is_changed_is_seen_and_what_is_not_is_no_change(store: IdentityStore) -> None:
    group_id, owner, admin, _ = await with_admin(store)

    await store.groups.update_group(by(group_id, admin), GroupUpdate(name="Hills", expiry_s=60))
    await store.groups.update_group(by(group_id, admin), GroupUpdate(name="Hills", description=""))
    await store.groups.update_group(by(group_id, admin), GroupUpdate(is_announcement_only=True, description="a\nb"))

    (seen,) = await store.groups.groups(owner, [group_id])
    assert (seen.name, seen.description, seen.is_announcement_only, seen.expiry_s) == ("Hills", "a\nb", True, 60)
    group = await store.memberships.directory_group(group_id)
    assert (group.version, group.name, group.is_announcement_only, group.expiry_s) == (4, "Hills", True, 60)


async def test_members_and_groups_are_listed_by_id(store: IdentityStore) -> None:
    owner, *others = await crowd(store, 4)
    group_ids = sorted([await found(store, owner, *others) for _ in range(3)])
    everybody = sorted([owner, *others])

    first = await store.groups.list_members(owner, group_ids[0], b"", 3)
    rest = await store.groups.list_members(owner, group_ids[0], first.members[-1].user_id, 3)

    assert [member.user_id for member in first.members + rest.members] == everybody
    assert GroupMember(owner, OWNER, 1, START_MS) in first.members + rest.members
    assert (first.version, rest.version) == (1, 1)
    assert [group.group_id for group in await store.groups.list_groups(owner, b"", 2)] == group_ids[:2]
    assert [group.group_id for group in await store.groups.list_groups(owner, group_ids[1], 2)] == group_ids[2:]
    assert await store.groups.list_members(owner, group_ids[0], everybody[-1], 3) == ((), 1)


async def test_members_are_shown_to_members_only(store: IdentityStore) -> None:
    group_id, owner, _, member = await with_admin(store)
    stranger = (await register(store)).user_id
    await store.groups.remove_member(by(group_id, owner), member)

    with pytest.raises(GroupNotFoundError):
        await store.groups.list_members(stranger, group_id, b"", 10)
    with pytest.raises(NotAMemberError):
        await store.groups.list_members(member, group_id, b"", 10)


async def test_groups_in_common_are_those_of_both(store: IdentityStore) -> None:
    ada, bob, cid = await crowd(store, 3)
    common = sorted([await found(store, ada, bob) for _ in range(2)])
    await found(store, ada, cid)
    left = await found(store, bob, ada)
    await store.groups.leave_group(by(left, ada))

    mutual = await store.memberships.mutual_groups(ada, bob, b"", 10)

    assert [group.group_id for group in mutual] == common
    assert {group.name for group in mutual} == {"Towers"}
    assert [group.group_id for group in await store.memberships.mutual_groups(bob, ada, common[0], 10)] == common[1:]
    assert await store.memberships.mutual_groups(bob, cid, b"", 10) == []


async def test_memberships_answer_in_the_order_of_the_question(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)
    other = await found(store, member)

    answers = await store.memberships.memberships(
        [(group_id, admin), (NOWHERE, owner), (other, owner), (other, member), (group_id, owner), (group_id, admin)]
    )

    assert [(answer.role, answer.group_version) for answer in answers] == [
        (ADMIN, 2),
        (None, 0),
        (None, 1),
        (OWNER, 1),
        (OWNER, 2),
        (ADMIN, 2),
    ]


async def test_news_reach_those_before_and_those_after_the_change(store: IdentityStore) -> None:
    group_id, owner, admin, member = await with_admin(store)
    late = (await register(store)).user_id
    await add(store, group_id, owner, late)
    await store.groups.remove_member(by(group_id, admin), member)
    await store.groups.update_group(by(group_id, owner), GroupUpdate(name="Hills"))

    news = [await store.changes.group_news(group_id, number) for number in range(1, 7)]

    told = [None if found is None else set(found.recipients) for found in news]
    assert told == [
        {owner, admin, member},
        {owner, admin, member},
        {owner, admin, member, late},
        {owner, admin, member, late},
        {owner, admin, late},
        None,
    ]
    changes = [found.change for found in news if found is not None]
    assert [change.kind.name for change in changes] == ["CREATED", "ROLE", "ADDED", "REMOVED", "UPDATED"]
    assert [change.user_ids for change in changes] == [(admin, member), (admin,), (late,), (member,), ()]
    assert [change.actor_id for change in changes] == [owner, owner, owner, admin, owner]
    assert [change.member_count for change in changes] == [3, 3, 4, 3, 3]
    assert changes[-1].group_name == "Hills"


async def test_changes_of_a_group_are_numbered_in_the_order_of_its_versions(store: IdentityStore) -> None:
    owner, *others = await crowd(store, 12)
    group_id = await found(store, owner)
    start = (await store.changes.read(None)).cursor

    await asyncio.gather(*(add(store, group_id, owner, other) for other in others))

    page = await store.changes.read(start)
    changes = list(page.changes)
    while not page.is_last:
        page = await store.changes.read(start, page)
        changes += page.changes
    versions = [change.version for change in sorted(changes, key=lambda change: change.number)]
    assert versions == list(range(2, 13))
    assert {GroupId(change.user_id) for change in changes} == {group_id}
