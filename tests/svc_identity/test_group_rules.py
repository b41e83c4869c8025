"""The pure rules of groups and invites: who may do what, and who owns what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.runtime.errors import ChappeError, InvalidFieldError
from svc_identity.errors import (
    GroupFullError,
    GroupNotFoundError,
    InviteNotFoundError,
    ListFullError,
    MemberNotFoundError,
    NotAMemberError,
    OwnerProtectedError,
    RoleRequiredError,
)
from svc_identity.model import UserId
from svc_identity.model.group import GroupId, GroupMember, GroupRole
from svc_identity.protocol import group, invite
from svc_identity.protocol.group import RoleStep
from svc_identity.protocol.identifier import requested_id
from svc_identity.service.group import checked_text

MEMBER, ADMIN, OWNER = GroupRole.MEMBER, GroupRole.ADMIN, GroupRole.OWNER
ADA, BOB = UserId(b"a" * 16), UserId(b"b" * 16)
ROLES = st.sampled_from(GroupRole)
PEPPER = b"p" * 32
MEMBERS = st.lists(
    st.builds(
        GroupMember,
        st.binary(min_size=16, max_size=16).map(UserId),
        st.sampled_from([MEMBER, ADMIN]),
        st.integers(min_value=1, max_value=5),
        st.just(0),
    ),
    unique_by=lambda member: member.user_id,
)


@pytest.mark.parametrize(
    ("actor", "target", "is_past", "outcome"),
    [
        (OWNER, MEMBER, False, True),
        (OWNER, ADMIN, False, True),
        (ADMIN, MEMBER, False, True),
        (ADMIN, ADMIN, False, True),
        (ADMIN, OWNER, False, OwnerProtectedError),
        (MEMBER, MEMBER, False, RoleRequiredError),
        (MEMBER, ADMIN, False, RoleRequiredError),
        (MEMBER, OWNER, False, RoleRequiredError),
        (ADMIN, None, True, False),
        (ADMIN, None, False, MemberNotFoundError),
        (MEMBER, None, False, RoleRequiredError),
    ],
)
def test_members_are_removed_by_admins_and_owners_by_nobody(
    actor: GroupRole, target: GroupRole | None, outcome: object, *, is_past: bool
) -> None:
    if isinstance(outcome, type) and issubclass(outcome, ChappeError):
        with pytest.raises(outcome):
            group.is_removal(actor, target, is_past=is_past)
    else:
        assert group.is_removal(actor, target, is_past=is_past) is outcome


@pytest.mark.parametrize(
    ("actor", "target", "wanted", "outcome"),
    [
        (OWNER, MEMBER, ADMIN, [RoleStep(BOB, ADMIN)]),
        (OWNER, MEMBER, OWNER, [RoleStep(ADA, ADMIN), RoleStep(BOB, OWNER)]),
        (ADMIN, ADMIN, MEMBER, [RoleStep(BOB, MEMBER)]),
        (ADMIN, MEMBER, MEMBER, []),
        (ADMIN, MEMBER, OWNER, RoleRequiredError),
        (ADMIN, OWNER, MEMBER, OwnerProtectedError),
        (ADMIN, OWNER, OWNER, RoleRequiredError),
        (MEMBER, MEMBER, ADMIN, RoleRequiredError),
        (OWNER, None, ADMIN, MemberNotFoundError),
        (ADMIN, None, OWNER, RoleRequiredError),
    ],
)
def test_roles_are_given_as_the_matrix_says(
    actor: GroupRole, target: GroupRole | None, wanted: GroupRole, outcome: list[RoleStep] | type[ChappeError]
) -> None:
    if isinstance(outcome, list):
        assert group.role_steps(RoleStep(ADA, actor), target, RoleStep(BOB, wanted)) == outcome
    else:
        with pytest.raises(outcome):
            group.role_steps(RoleStep(ADA, actor), target, RoleStep(BOB, wanted))


@given(ROLES, ROLES, ROLES)
def test_a_group_with_one_owner_has_one_whatever_role_is_given(
    actor: GroupRole, target: GroupRole, wanted: GroupRole
) -> None:
    other = UserId(b"c" * 16)
    roles = {ADA: actor, BOB: target, other: MEMBER if OWNER in (actor, target) else OWNER}
    if list(roles.values()).count(OWNER) != 1:
        return

    try:
        steps = group.role_steps(RoleStep(ADA, actor), target, RoleStep(BOB, wanted))
    except ChappeError:
        return

    for step in steps:
        roles[step.user_id] = step.role
        assert list(roles.values()).count(OWNER) <= 1
    assert list(roles.values()).count(OWNER) == 1


@given(MEMBERS)
def test_heir_is_the_oldest_of_the_highest_role(members: list[GroupMember]) -> None:
    heir = group.heir_of(members)

    if heir is None:
        assert not members
        return
    rivals = [member for member in members if member.role == max(member.role for member in members)]
    assert heir in rivals
    assert all((heir.joined_version, heir.user_id) <= (rival.joined_version, rival.user_id) for rival in rivals)


def test_actors_who_are_no_members_learn_as_little_as_they_may() -> None:
    assert group.acting_role(MEMBER, is_past=True) is MEMBER
    with pytest.raises(NotAMemberError):
        group.acting_role(None, is_past=True)
    with pytest.raises(GroupNotFoundError):
        group.acting_role(None, is_past=False)


def test_room_and_invites_end_where_they_should() -> None:
    group.check_room(1000, 24)
    group.check_invites(99)
    with pytest.raises(GroupFullError, match="24 more fit in"):
        group.check_room(1000, 25)
    with pytest.raises(ListFullError):
        group.check_invites(100)


def test_of_many_only_the_first_are_named() -> None:
    many = [UserId(number.to_bytes(16)) for number in range(100)]

    assert group.named(many) == tuple(many[:64])


def test_request_fixes_the_id_of_a_group_for_its_creator_alone() -> None:
    made = requested_id("chappe-group", ADA, b"r" * 16)

    assert made == requested_id("chappe-group", ADA, b"r" * 16)
    assert made != requested_id("chappe-group", BOB, b"r" * 16)
    assert made != requested_id("chappe-other", ADA, b"r" * 16)
    assert (len(made), made[6] >> 4, made[8] >> 6) == (16, 7, 2)


def test_code_of_an_invite_is_fixed_by_its_request_and_the_pepper() -> None:
    terms = (GroupId(b"g" * 16), ADA, b"r" * 16)
    code = invite.invite_code(PEPPER, *terms)

    others = {
        invite.invite_code(b"q" * 32, *terms),
        invite.invite_code(PEPPER, GroupId(b"h" * 16), ADA, b"r" * 16),
        invite.invite_code(PEPPER, GroupId(b"g" * 16), BOB, b"r" * 16),
        invite.invite_code(PEPPER, GroupId(b"g" * 16), ADA, b"s" * 16),
    }

    assert code == invite.invite_code(PEPPER, *terms)
    assert len(others - {code}) == 4
    assert len(invite.invite_id_of(invite.invite_hash(code))) == 16


@given(request_id=st.binary(min_size=16, max_size=16))
def test_no_code_looks_like_an_option_of_a_command(request_id: bytes) -> None:
    code = invite.invite_code(PEPPER, GroupId(b"g" * 16), ADA, request_id)

    assert (len(code), "-" in code) == (22, False)


@given(st.text(max_size=30))
def test_any_text_is_a_code_or_is_refused(text: str) -> None:
    try:
        kept = invite.invite_hash(text)
    except InviteNotFoundError:
        return

    assert len(kept) == 32
    assert text.encode() not in kept


@given(st.text(max_size=60))
def test_any_text_is_a_description_or_is_refused(text: str) -> None:
    try:
        kept = checked_text(text)
    except InvalidFieldError:
        return

    assert checked_text(kept) == kept
    assert "\0" not in kept
    assert "\r" not in kept
