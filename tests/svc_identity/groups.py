"""Groups for tests."""

from collections.abc import Sequence

from svc_identity.model import Charge, UserId
from svc_identity.model.group import GroupActor, GroupDraft, GroupId, GroupRole, Membership, Refusal
from svc_identity.ports import IdentityStore
from svc_identity.protocol.identifier import requested_id
from tests.svc_identity.people import RANDOM, START_MS, charge

CHARGES = (charge(limit=1_000_000), Charge(budget="people", amount=1, limit=1_000_000, now_ms=START_MS))
ADDITION = CHARGES[1]


def draft(owner: UserId, others: Sequence[UserId] = (), name: str = "Towers", request_id: bytes = b"") -> GroupDraft:
    """Returns a group that is to be created."""
    return GroupDraft(
        group_id=GroupId(requested_id("chappe-group", owner, request_id or RANDOM.token(16))),
        creator_id=owner,
        name=name,
        description="",
        user_ids=tuple(others),
        is_announcement_only=False,
        expiry_s=0,
        now_ms=START_MS,
    )


async def found(store: IdentityStore, owner: UserId, *others: UserId) -> GroupId:
    """Creates a group."""
    made = draft(owner, others)
    assert await store.groups.create_group(made, CHARGES) == []
    return made.group_id


def by(group_id: GroupId, user_id: UserId, now_ms: int = START_MS) -> GroupActor:
    """Returns who acts."""
    return GroupActor(group_id, user_id, now_ms)


async def add(store: IdentityStore, group_id: GroupId, actor: UserId, *others: UserId) -> list[Refusal]:
    """Adds people to a group."""
    return await store.groups.add_members(by(group_id, actor), others, ADDITION)


async def roles(store: IdentityStore, group_id: GroupId) -> dict[UserId, GroupRole]:
    """Returns who has which role."""
    group = await store.memberships.directory_group(group_id)
    return dict(zip(group.member_ids, group.roles, strict=True))


async def version(store: IdentityStore, group_id: GroupId) -> int:
    """Returns the version of a group."""
    return (await store.memberships.directory_group(group_id)).version


async def membership(store: IdentityStore, group_id: GroupId, user_id: UserId) -> Membership:
    """Returns what a user has to do with a group."""
    (answer,) = await store.memberships.memberships([(group_id, user_id)])
    return answer
