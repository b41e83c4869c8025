"""What people may not do to groups and to the privacy of others, by the list of attacks, through the edge."""

import asyncio
import itertools
import secrets
from typing import Any

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    directory_service_pb2,
    directory_service_pb2_grpc,
    group_pb2,
    profile_service_pb2,
    settings_pb2,
)
from chappe.api.identity.v1 import group_service_pb2 as wire
from chappe.api.type.v1 import privacy_audience_pb2
from chappe.client import methods
from chappe.client.methods import Method
from tests.system.bad_input.conftest import Dial, Issue, Newcomer
from tests.system.bad_input.people import Person, reason_of

pytestmark = pytest.mark.system

N = privacy_audience_pb2.PRIVACY_AUDIENCE_NOBODY
C = privacy_audience_pb2.PRIVACY_AUDIENCE_CONTACTS
E = privacy_audience_pb2.PRIVACY_AUDIENCE_EVERYONE
MEMBER, ADMIN = item_pb2.GROUP_ROLE_MEMBER, item_pb2.GROUP_ROLE_ADMIN
GET_SETTINGS = Method(
    "chappe.api.identity.v1.ProfileService/GetSettings",
    profile_service_pb2.GetSettingsRequest,
    profile_service_pb2.GetSettingsResponse,
)
UPDATE_SETTINGS = Method(
    "chappe.api.identity.v1.ProfileService/UpdateSettings",
    profile_service_pb2.UpdateSettingsRequest,
    profile_service_pb2.UpdateSettingsResponse,
)


def of_groups(name: str) -> Method[Any, Any]:
    """Returns a method of GroupService."""
    full_name = f"chappe.api.identity.v1.GroupService/{name}"
    return Method(full_name, getattr(wire, f"{name}Request"), getattr(wire, f"{name}Response"))


async def ask(person: Person, name: str, **fields: Any) -> Any:
    """Calls a method of GroupService that has to succeed."""
    return await person.call(of_groups(name), of_groups(name).question(**fields))


async def refused(person: Person, name: str, **fields: Any) -> str:
    """Calls a method of GroupService that has to refuse; returns why it did."""
    return reason_of(await person.refusal(of_groups(name), of_groups(name).question(**fields)))


async def found(owner: Person, *others: Person) -> bytes:
    """Creates a group."""
    request_id, user_ids = secrets.token_bytes(16), [other.user_id for other in others]
    created = await ask(owner, "CreateGroup", request_id=request_id, group_name="Towers", user_ids=user_ids)
    assert not created.refusals
    group_id: bytes = created.group.group_id
    return group_id


async def invited(owner: Person, group_id: bytes, **terms: Any) -> group_pb2.GroupInvite:
    """Makes an invite."""
    request_id = secrets.token_bytes(16)
    made: group_pb2.GroupInvite = (
        await ask(owner, "CreateInvite", request_id=request_id, group_id=group_id, **terms)
    ).invite
    return made


async def change_of(person: Person, group_id: bytes) -> item_pb2.GroupChangeEvent:
    """Returns the next change of a group that a person is told of."""
    async with asyncio.timeout(20):
        while True:
            for item in (await person.client.expect("events")).items:
                if item.group_change.group_id == group_id:
                    change: item_pb2.GroupChangeEvent = item.group_change
                    return change


async def set_privacy(person: Person, **fields: Any) -> None:
    """Changes what a person allows."""
    settings = settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(**fields))
    await person.call(UPDATE_SETTINGS, profile_service_pb2.UpdateSettingsRequest(settings=settings))


async def test_everybody_learns_what_became_of_a_group_and_the_removed_learn_it_too(alice: Person, bob: Person) -> None:
    group_id = await found(alice, bob)
    created = await change_of(bob, group_id)
    await ask(alice, "RemoveMember", group_id=group_id, user_id=bob.user_id)
    removed = await change_of(bob, group_id)

    assert (created.change, created.version, list(created.user_ids)) == (
        item_pb2.GROUP_CHANGE_CREATED,
        1,
        [bob.user_id],
    )
    assert (created.group_name, created.member_count, created.actor_user_id) == ("Towers", 2, alice.user_id)
    assert (removed.change, removed.version) == (item_pb2.GROUP_CHANGE_REMOVED, 2)
    assert (list(removed.user_ids), removed.member_count) == ([bob.user_id], 1)


async def test_38_settings_are_the_callers_own_whoever_else_is_named(alice: Person, mallory: Person) -> None:
    await set_privacy(alice, last_seen=N)
    naming = b"\x7a\x10" + alice.user_id + b"\x0a\x10" + alice.user_id

    read = await mallory.attempt(GET_SETTINGS.name, naming)
    change = profile_service_pb2.UpdateSettingsRequest(
        settings=settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(last_seen=E))
    )
    await mallory.attempt(UPDATE_SETTINGS.name, change.SerializeToString() + b"\x7a\x10" + alice.user_id)

    own = await alice.call(GET_SETTINGS, profile_service_pb2.GetSettingsRequest())
    assert GET_SETTINGS.answer.FromString(read.payload).settings.privacy.last_seen == C
    assert own.settings.privacy.last_seen == N


@pytest.mark.parametrize(
    ("audience", "relation"), list(itertools.product([N, C, E], ["stranger", "contact", "blocked contact"]))
)
async def test_39_64_profiles_and_presence_are_shown_as_their_owner_allows(
    newcomer: Newcomer,
    dial: Dial,
    issue: Issue,
    audience: privacy_audience_pb2.PrivacyAudience.ValueType,
    relation: str,
) -> None:
    viewer, target = await newcomer(), await newcomer()
    own = await viewer.call(methods.GET_PROFILE, profile_service_pb2.GetProfileRequest())
    update = profile_service_pb2.UpdateProfileRequest(about="at home", photo_media_id=bytes(16))
    await target.call(methods.UPDATE_PROFILE, update)
    await set_privacy(target, last_seen=audience, profile_photo=audience, about=audience)
    if relation != "stranger":
        contact = contact_service_pb2.AddContactRequest(phone_number=own.profile.phone_number)
        await target.call(methods.ADD_CONTACT, contact)
    if relation == "blocked contact":
        await target.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=viewer.user_id))
    is_shown = audience == E if relation == "stranger" else relation == "contact" and audience != N

    seen = await viewer.call(methods.GET_PROFILE, profile_service_pb2.GetProfileRequest(user_id=target.user_id))
    directory: Any = directory_service_pb2_grpc.DirectoryServiceStub(dial("identity", issue("svc-presence")))
    presence = [
        await directory.CheckPrivacy(
            directory_service_pb2.CheckPrivacyRequest(
                aspect=aspect, viewer_user_ids=[viewer.user_id], target_user_ids=[target.user_id]
            )
        )
        for aspect in (directory_service_pb2.PRIVACY_ASPECT_LAST_SEEN, directory_service_pb2.PRIVACY_ASPECT_ONLINE)
    ]

    assert (bool(seen.profile.about), bool(seen.profile.photo_media_id)) == (is_shown, is_shown)
    assert [list(answer.may_see) for answer in presence] == [[is_shown], [is_shown]]


async def test_68_whoever_hides_when_it_was_seen_sees_that_of_nobody(
    alice: Person, mallory: Person, dial: Dial, issue: Issue
) -> None:
    directory: Any = directory_service_pb2_grpc.DirectoryServiceStub(dial("identity", issue("svc-presence")))
    request = directory_service_pb2.CheckPrivacyRequest(
        aspect=directory_service_pb2.PRIVACY_ASPECT_LAST_SEEN,
        viewer_user_ids=[mallory.user_id],
        target_user_ids=[alice.user_id],
    )
    await set_privacy(alice, last_seen=E)

    before = await directory.CheckPrivacy(request)
    await set_privacy(mallory, last_seen=N)
    after = await directory.CheckPrivacy(request)

    assert (list(before.may_see), list(after.may_see)) == ([True], [False])


async def test_53_groups_are_changed_by_those_who_may(alice: Person, bob: Person, mallory: Person) -> None:
    group_id = await found(alice, bob)
    changes: dict[str, dict[str, Any]] = {
        "UpdateGroup": {"group_name": "Mine"},
        "AddMembers": {"user_ids": [mallory.user_id]},
        "RemoveMember": {"user_id": alice.user_id},
        "SetRole": {"user_id": bob.user_id, "role": ADMIN},
        "CreateInvite": {"request_id": bytes(16)},
        "RevokeInvite": {},
    }

    by_member = {name: await refused(bob, name, group_id=group_id, **fields) for name, fields in changes.items()}
    by_stranger = {name: await refused(mallory, name, group_id=group_id, **fields) for name, fields in changes.items()}

    assert set(by_member.values()) == {"ROLE_REQUIRED"}
    assert set(by_stranger.values()) == {"GROUP_NOT_FOUND"}
    assert (await ask(alice, "GetGroup", group_id=group_id)).group.version == 1


async def test_53_a_group_has_one_owner_whatever_its_admins_do_at_once(
    alice: Person, bob: Person, mallory: Person
) -> None:
    group_id = await found(alice, bob, mallory)
    for admin in (bob, mallory):
        await ask(alice, "SetRole", group_id=group_id, user_id=admin.user_id, role=ADMIN)

    await asyncio.gather(
        alice.attempt(of_groups("LeaveGroup").name, wire.LeaveGroupRequest(group_id=group_id).SerializeToString()),
        bob.attempt(
            of_groups("SetRole").name,
            wire.SetRoleRequest(group_id=group_id, user_id=bob.user_id, role=MEMBER).SerializeToString(),
        ),
        mallory.attempt(
            of_groups("RemoveMember").name,
            wire.RemoveMemberRequest(group_id=group_id, user_id=bob.user_id).SerializeToString(),
        ),
    )

    members = (await ask(mallory, "ListMembers", group_id=group_id)).members
    assert [member.role for member in members].count(item_pb2.GROUP_ROLE_OWNER) == 1
    assert alice.user_id not in {member.user_id for member in members}


@pytest.mark.parametrize("audience", [N, C])
async def test_54_whoever_lets_nobody_add_it_is_invited_instead(alice: Person, bob: Person, audience: Any) -> None:
    await set_privacy(bob, groups=audience)
    group_id = await found(alice)

    answer = await ask(alice, "AddMembers", group_id=group_id, user_ids=[bob.user_id])
    code = (await invited(alice, group_id)).invite_code
    joined = await ask(bob, "JoinByInvite", invite_code=code)

    assert [(refusal.user_id, refusal.reason) for refusal in answer.refusals] == [
        (bob.user_id, group_pb2.MEMBER_REFUSAL_REASON_NOT_ALLOWED)
    ]
    assert (answer.group.member_count, joined.group.member_count) == (1, 2)


async def test_54_the_blocked_add_nobody_and_learn_no_more_than_strangers(bob: Person, mallory: Person) -> None:
    await bob.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=mallory.user_id))

    answer = await ask(
        mallory, "CreateGroup", request_id=secrets.token_bytes(16), group_name="x", user_ids=[bob.user_id]
    )

    assert [refusal.reason for refusal in answer.refusals] == [group_pb2.MEMBER_REFUSAL_REASON_NOT_ALLOWED]
    assert answer.group.member_count == 1


async def test_55_invites_that_do_not_work_all_say_the_same(alice: Person, bob: Person, mallory: Person) -> None:
    group_id = await found(alice, mallory)
    old = await invited(alice, group_id)
    used_up, revoked = await invited(alice, group_id, use_limit=1), await invited(alice, group_id)
    await ask(alice, "RevokeInvite", group_id=group_id, invite_id=revoked.invite_id)
    await ask(bob, "JoinByInvite", invite_code=used_up.invite_code)
    await ask(alice, "RemoveMember", group_id=group_id, user_id=mallory.user_id)
    codes = [old.invite_code, used_up.invite_code, revoked.invite_code, "A" * 22, "'; DROP TABLE groups; --"]

    errors = [
        await mallory.refusal(of_groups("JoinByInvite"), wire.JoinByInviteRequest(invite_code=code)) for code in codes
    ]

    assert {(error.code, reason_of(error), error.detail) for error in errors} == {
        (5, "INVITE_NOT_FOUND", "this invite does not work; ask an admin of the group for a new one")
    }
    assert (await ask(alice, "GetGroup", group_id=group_id)).group.member_count == 2
