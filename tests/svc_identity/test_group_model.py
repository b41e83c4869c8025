"""The stores of groups do the same, whatever is done to them in whatever order, and keep what is promised of groups."""

import asyncio
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from chappe.runtime.errors import ChappeError
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.identity_store_memory import memory_identity_store
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.model import UserId
from svc_identity.model.group import GroupActor, GroupId, GroupRole, GroupUpdate, Invite, InviteId
from svc_identity.ports import IdentityStore
from tests.svc_identity.groups import ADDITION, CHARGES, by, draft
from tests.svc_identity.people import START_MS, ToldClock, crowd

PEOPLE, STEPS = 7, 70


@dataclass(kw_only=True, slots=True)
class World:
    """One store, its people by number, and the one group that they quarrel about."""

    store: IdentityStore
    people: list[UserId]
    group_id: GroupId
    codes: list[bytes] = field(default_factory=list[bytes])

    def number(self, user_id: UserId) -> int:
        return self.people.index(user_id)


class Deed:
    """Something that somebody does, drawn by lot."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.number = number
        self.who, self.whom = rng.randrange(PEOPLE), rng.randrange(PEOPLE)
        self.some = rng.sample(range(PEOPLE), rng.randint(1, 3))
        self.role = rng.choice(list(GroupRole))
        self.place, self.is_true = rng.random(), rng.random() < 0.5
        kinds = [self.add, self.set_role, self.join] * 3 + [self.remove, self.leave, self.invite] * 2
        self.act = rng.choice([*kinds, self.rename, self.revoke, self.block])

    def by(self, world: World) -> GroupActor:
        return by(world.group_id, world.people[self.who])

    async def add(self, world: World) -> Any:
        people = [world.people[number] for number in self.some]
        refusals = await world.store.groups.add_members(self.by(world), people, ADDITION)
        return [(world.number(refusal.user_id), refusal.reason) for refusal in refusals]

    async def remove(self, world: World) -> Any:
        await world.store.groups.remove_member(self.by(world), world.people[self.whom])

    async def leave(self, world: World) -> Any:
        await world.store.groups.leave_group(self.by(world))

    async def set_role(self, world: World) -> Any:
        await world.store.groups.set_role(self.by(world), world.people[self.whom], self.role)

    async def rename(self, world: World) -> Any:
        update = GroupUpdate(name=f"Name {self.number % 3}", is_announcement_only=self.is_true)
        await world.store.groups.update_group(self.by(world), update)

    async def invite(self, world: World) -> Any:
        code = self.number.to_bytes(32)
        made = Invite(
            invite_id=InviteId(code[16:]), code_hash=code, expire_ms=START_MS + 1, use_limit=len(self.some) - 1
        )
        await world.store.invites.create_invite(self.by(world), made)
        world.codes.append(code)

    async def revoke(self, world: World) -> Any:
        await world.store.invites.revoke_invites(self.by(world), None)

    async def join(self, world: World) -> Any:
        code = world.codes[int(self.place * len(world.codes))] if world.codes else bytes(32)
        await world.store.invites.join(world.people[self.who], code, START_MS)

    async def block(self, world: World) -> Any:
        if self.who != self.whom:
            await world.store.contacts.block(world.people[self.who], world.people[self.whom])


async def outcome(world: World, deed: Deed) -> Any:
    """Returns what came of a deed: an answer, or why it was refused."""
    try:
        return await deed.act(world)
    except ChappeError as error:
        return error.code, error.reason, str(error)


async def state(world: World) -> Any:
    """Returns everything that can be asked of the group, with people by number."""
    store, group_id = world.store, world.group_id
    group = await store.memberships.directory_group(group_id)
    memberships = await store.memberships.memberships([(group_id, user_id) for user_id in world.people])
    seen = [(await store.groups.groups(user_id, [group_id]))[0] for user_id in world.people]
    news = await store.changes.group_news(group_id, group.version)
    assert news is not None
    return (
        (group.version, group.name, group.is_announcement_only),
        sorted(zip(map(world.number, group.member_ids), group.roles, group.joined_versions, strict=True)),
        [(membership.role, membership.windows, membership.group_version) for membership in memberships],
        [(view.version, view.member_count, view.role, view.joined_version, view.is_past) for view in seen],
        [view.version and world.number(view.owner_id) for view in seen],
        (news.change.kind, world.number(news.change.actor_id), news.change.role, news.change.member_count),
        sorted(map(world.number, news.change.user_ids)),
        sorted(map(world.number, news.recipients)),
    )


async def check_promises(world: World, version_before: int) -> int:
    """Makes sure of what holds always; returns the version."""
    group = await world.store.memberships.directory_group(world.group_id)
    memberships = await world.store.memberships.memberships([(world.group_id, user_id) for user_id in world.people])
    assert group.roles.count(GroupRole.OWNER) == (1 if group.member_ids else 0)
    # A change that hands over is two.
    assert 0 <= group.version - version_before <= 2
    for membership in memberships:
        assert all(window.joined_version < window.left_version for window in membership.windows if window.left_version)
        assert all(before.left_version <= after.joined_version for before, after in pairwise(membership.windows))
        assert (membership.role is not None) == any(not window.left_version for window in membership.windows)
    for version in range(version_before + 1, group.version + 1):
        assert await world.store.changes.group_news(world.group_id, version) is not None
    return group.version


async def world_of(store: IdentityStore) -> World:
    people = sorted(await crowd(store, PEOPLE))
    made = draft(people[0], people[1:4])
    await store.groups.create_group(made, CHARGES)
    return World(store=store, people=people, group_id=made.group_id)


@pytest.mark.untraced
@pytest.mark.parametrize("seed", range(6))
async def test_stores_agree_and_promises_hold(database: Database, clock: ToldClock, seed: int) -> None:
    rng = random.Random(seed)
    memory = await world_of(memory_identity_store(asyncio.Event(), clock.wall_ms))
    postgres = await world_of(postgres_identity_store(database))
    version = 1

    for number in range(STEPS):
        deed = Deed(rng, number + 1)
        outcomes = [await outcome(world, deed) for world in (memory, postgres)]

        assert outcomes[0] == outcomes[1], (number, deed.act)
        assert await state(memory) == await state(postgres), (number, deed.act)
        version = await check_promises(memory, version)
