"""The doors of groups over a real loopback channel: who may do what, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import block_service_pb2, contact_service_pb2, directory_service_pb2, group_pb2
from chappe.api.identity.v1 import group_service_pb2 as wire
from svc_identity.model import DeviceRef
from tests.svc_identity.doors import BLOCK, CONTACT, DIRECTORY, GROUP, Door, config, open_door
from tests.svc_identity.people import RANDOM, new_phone

MEMBER, ADMIN, OWNER = item_pb2.GROUP_ROLE_MEMBER, item_pb2.GROUP_ROLE_ADMIN, item_pb2.GROUP_ROLE_OWNER
FORBIDDEN = ("PERMISSION_DENIED", "ROLE_REQUIRED")
UNKNOWN = ("NOT_FOUND", "GROUP_NOT_FOUND")
PAST = ("PERMISSION_DENIED", "NOT_A_MEMBER")
INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")
NO_INVITE = ("NOT_FOUND", "INVITE_NOT_FOUND")


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door(config()) as opened:
        yield opened


async def people(door: Door, count: int) -> list[DeviceRef]:
    return [await door.register(Ed25519PrivateKey.generate()) for _ in range(count)]


async def ask(door: Door, method: str, who: DeviceRef, **fields: Any) -> Any:
    """Calls a method of GroupService."""
    return await door.call(GROUP, method, request(method, **fields), who)


async def refusal(door: Door, method: str, who: DeviceRef, **fields: Any) -> tuple[str, str]:
    """Returns code and reason with which a method of GroupService is refused."""
    return await door.refusal(GROUP, method, request(method, **fields), who)


def request(method: str, **fields: Any) -> Any:
    message = getattr(wire, f"{method}Request")(**fields)
    if "request_id" in message.DESCRIPTOR.fields_by_name and not message.request_id:
        message.request_id = RANDOM.token(16)
    return message


async def found(door: Door, owner: DeviceRef, *others: DeviceRef) -> bytes:
    """Creates a group."""
    user_ids = [other.user_id for other in others]
    group_id: bytes = (await ask(door, "CreateGroup", owner, group_name="Towers", user_ids=user_ids)).group.group_id
    return group_id


async def invited(door: Door, owner: DeviceRef, group_id: bytes, **terms: Any) -> group_pb2.GroupInvite:
    """Makes an invite."""
    made: group_pb2.GroupInvite = (await ask(door, "CreateInvite", owner, group_id=group_id, **terms)).invite
    return made


async def test_group_lives_from_its_creation_to_its_last_member(door: Door) -> None:
    ada, bob, cid = await people(door, 3)
    created = await ask(
        door,
        "CreateGroup",
        ada,
        group_name=" Towers ",
        description="On hills\r\nacross France\n",
        user_ids=[bob.user_id, ada.user_id, bob.user_id],
        expiry_s=3600,
    )
    group_id = created.group.group_id

    await ask(door, "AddMembers", ada, group_id=group_id, user_ids=[cid.user_id])
    await ask(door, "SetRole", ada, group_id=group_id, user_id=bob.user_id, role=ADMIN)
    await ask(door, "UpdateGroup", bob, group_id=group_id, is_announcement_only=True, expiry_s=0)
    await ask(door, "LeaveGroup", ada, group_id=group_id)
    removed = await ask(door, "RemoveMember", bob, group_id=group_id, user_id=cid.user_id)

    assert (created.group.group_name, created.group.description) == ("Towers", "On hills\nacross France")
    assert (await ask(door, "GetGroup", bob, group_id=group_id)).group == removed.group
    assert list((await ask(door, "BatchGetGroups", bob, group_ids=[group_id])).groups) == [removed.group]
    assert (created.group.member_count, created.group.version, created.group.expiry_s) == (2, 1, 3600)
    assert (removed.group.owner_user_id, removed.group.role, removed.group.member_count) == (bob.user_id, OWNER, 1)
    assert (removed.group.is_announcement_only, removed.group.expiry_s, removed.group.version) == (True, 0, 7)
    assert removed.group.creator_user_id == ada.user_id


async def test_creating_again_with_the_same_request_creates_no_second_group(door: Door) -> None:
    ada, bob = await people(door, 2)

    answers = [
        await ask(door, "CreateGroup", who, request_id=b"r" * 16, group_name="Towers") for who in (ada, ada, bob)
    ]

    ids = [answer.group.group_id for answer in answers]
    assert ids[0] == ids[1] != ids[2]
    assert len((await ask(door, "ListGroups", ada)).groups) == 1


async def test_who_may_not_be_added_comes_back_with_the_reason(door: Door) -> None:
    ada, bob, cid, dee = await people(door, 4)
    nobody = RANDOM.token(16)
    await door.call(BLOCK, "BlockUser", block_service_pb2.BlockUserRequest(user_id=ada.user_id), bob)
    await door.call(BLOCK, "BlockUser", block_service_pb2.BlockUserRequest(user_id=cid.user_id), ada)
    group_id = await found(door, ada)

    asked = [bob.user_id, cid.user_id, dee.user_id, nobody]
    answer = await ask(door, "AddMembers", ada, group_id=group_id, user_ids=asked)

    assert [(refused.user_id, refused.reason) for refused in answer.refusals] == [
        (bob.user_id, group_pb2.MEMBER_REFUSAL_REASON_NOT_ALLOWED),
        (cid.user_id, group_pb2.MEMBER_REFUSAL_REASON_BLOCKED),
        (nobody, group_pb2.MEMBER_REFUSAL_REASON_USER_NOT_FOUND),
    ]
    members = await ask(door, "ListMembers", dee, group_id=group_id)
    assert {member.user_id for member in members.members} == {ada.user_id, dee.user_id}


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("UpdateGroup", {"group_name": "Mine"}),
        ("AddMembers", {"user_ids": ["stranger"]}),
        ("RemoveMember", {"user_id": "admin"}),
        ("SetRole", {"user_id": "member", "role": ADMIN}),
        ("CreateInvite", {}),
        ("RevokeInvite", {}),
    ],
)
async def test_changes_are_made_by_admins_alone(door: Door, method: str, fields: dict[str, Any]) -> None:
    owner, admin, member, stranger, gone = await people(door, 5)
    named = {"owner": owner, "admin": admin, "member": member, "stranger": stranger}
    group_id = await found(door, owner, admin, member, gone)
    await ask(door, "SetRole", owner, group_id=group_id, user_id=admin.user_id, role=ADMIN)
    await ask(door, "LeaveGroup", gone, group_id=group_id)

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(entry) for entry in value]
        return named[value].user_id if value in named else value

    ready = {"group_id": group_id} | {name: filled(value) for name, value in fields.items()}

    assert await refusal(door, method, member, **ready) == FORBIDDEN
    assert await refusal(door, method, stranger, **ready) == UNKNOWN
    assert await refusal(door, method, gone, **ready) == PAST
    await ask(door, method, admin, **ready) if method != "RemoveMember" else None
    await ask(door, method, owner, **ready)


async def test_nobody_learns_of_a_group_that_never_was_its_own(door: Door) -> None:
    owner, gone, stranger = await people(door, 3)
    group_id, nowhere = await found(door, owner, gone), RANDOM.token(16)
    await ask(door, "RemoveMember", owner, group_id=group_id, user_id=gone.user_id)

    for asked in (group_id, nowhere):
        for method in ("GetGroup", "ListMembers", "LeaveGroup"):
            assert await refusal(door, method, stranger, group_id=asked) == UNKNOWN
    assert await refusal(door, "GetGroup", gone, group_id=group_id) == PAST
    assert await refusal(door, "ListMembers", gone, group_id=group_id) == PAST
    await ask(door, "LeaveGroup", gone, group_id=group_id)
    batch = await ask(door, "BatchGetGroups", stranger, group_ids=[group_id, nowhere])
    assert [(group.group_id, group.version, group.group_name) for group in batch.groups] == [
        (group_id, 0, ""),
        (nowhere, 0, ""),
    ]


async def test_owner_is_out_of_reach_of_admins(door: Door) -> None:
    owner, admin = await people(door, 2)
    group_id = await found(door, owner, admin)
    await ask(door, "SetRole", owner, group_id=group_id, user_id=admin.user_id, role=ADMIN)
    protected = ("FAILED_PRECONDITION", "OWNER_PROTECTED")

    removing = await refusal(door, "RemoveMember", admin, group_id=group_id, user_id=owner.user_id)
    lowering = await refusal(door, "SetRole", admin, group_id=group_id, user_id=owner.user_id, role=MEMBER)
    usurping = await refusal(door, "SetRole", admin, group_id=group_id, user_id=admin.user_id, role=OWNER)
    itself = await refusal(door, "RemoveMember", owner, group_id=group_id, user_id=owner.user_id)
    nobody = await refusal(door, "RemoveMember", owner, group_id=group_id, user_id=RANDOM.token(16))

    assert (removing, lowering, usurping) == (protected, protected, FORBIDDEN)
    assert itself == ("INVALID_ARGUMENT", "SELF_NOT_ALLOWED")
    assert nobody == ("NOT_FOUND", "NOT_A_MEMBER")


async def test_group_takes_1024_and_not_one_more(door: Door) -> None:
    owner, late = await people(door, 2)
    everybody = [await door.registered_quickly() for _ in range(1023)]
    group_id = await found(door, owner, *everybody)
    code = (await invited(door, owner, group_id)).invite_code
    full = ("FAILED_PRECONDITION", "GROUP_FULL")

    adding = await refusal(door, "AddMembers", owner, group_id=group_id, user_ids=[late.user_id])
    joining = await refusal(door, "JoinByInvite", late, invite_code=code)

    assert (adding, joining) == (full, full)
    answer = await door.call(
        DIRECTORY,
        "ListGroupMembers",
        directory_service_pb2.ListGroupMembersRequest(group_id=group_id),
        caller="svc-message",
    )
    assert len(answer.group.member_user_ids) == 1024


async def test_lists_go_on_where_their_user_stopped(door: Door) -> None:
    owner, bob, cid = await people(door, 3)
    group_ids = sorted([await found(door, owner, bob, cid) for _ in range(2)])

    first = await ask(door, "ListGroups", owner, page_size=1)
    rest = await ask(door, "ListGroups", owner, page_size=10**9, page_token=first.next_page_token)
    some = await ask(door, "ListMembers", owner, group_id=group_ids[0], page_size=2)
    others = await ask(door, "ListMembers", owner, group_id=group_ids[0], page_token=some.next_page_token)

    assert [group.group_id for group in [*first.groups, *rest.groups]] == group_ids
    assert [len(some.members), len(others.members), others.next_page_token] == [2, 1, ""]
    assert (some.version, {member.role for member in [*some.members, *others.members]}) == (1, {MEMBER, OWNER})
    stolen = ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    assert await refusal(door, "ListGroups", bob, page_token=first.next_page_token) == stolen
    other = {"group_id": group_ids[1], "page_token": some.next_page_token}
    assert await refusal(door, "ListMembers", owner, **other) == stolen


async def test_invite_opens_the_group_until_it_ends(door: Door) -> None:
    owner, bob, cid = await people(door, 3)
    group_id = await found(door, owner)
    made = await invited(door, owner, group_id, request_id=b"r" * 16, lifetime_s=60, use_limit=5)
    again = await invited(door, owner, group_id, request_id=b"r" * 16, lifetime_s=90)

    joined = await ask(door, "JoinByInvite", bob, invite_code=made.invite_code)
    door.clock.pass_s(60)
    late = await refusal(door, "JoinByInvite", cid, invite_code=made.invite_code)

    assert made == again
    assert (len(made.invite_code), made.use_limit) == (22, 5)
    assert (joined.group.group_id, joined.group.role, joined.group.member_count) == (group_id, MEMBER, 2)
    assert late == NO_INVITE


@pytest.mark.parametrize("spoil", ["guessed", "not a code", "revoked", "all revoked", "used up", "removed", "altered"])
async def test_invite_that_does_not_work_says_nothing_more(door: Door, spoil: str) -> None:
    owner, bob, cid = await people(door, 3)
    group_id = await found(door, owner, bob)
    made = await invited(door, owner, group_id, use_limit=1)
    code = {"guessed": "A" * 22, "not a code": "' OR 1=1; --"}.get(spoil, made.invite_code)
    if spoil == "altered":
        code = code[:-2] + ("BB" if code[-2:] != "BB" else "CC")
    if spoil in {"revoked", "all revoked"}:
        invite_id = made.invite_id if spoil == "revoked" else b""
        await ask(door, "RevokeInvite", owner, group_id=group_id, invite_id=invite_id)
    if spoil == "used up":
        await ask(door, "JoinByInvite", cid, invite_code=code)
    if spoil in {"used up", "removed"}:
        await ask(door, "RemoveMember", owner, group_id=group_id, user_id=bob.user_id)
    stranger = await door.register(Ed25519PrivateKey.generate())

    assert await refusal(door, "JoinByInvite", bob if spoil == "removed" else stranger, invite_code=code) == NO_INVITE


async def test_guessing_codes_is_budgeted(door: Door) -> None:
    (bob,) = await people(door, 1)

    answers = [await refusal(door, "JoinByInvite", bob, invite_code="A" * 22) for _ in range(101)]

    assert answers[:100] == [NO_INVITE] * 100
    assert answers[100] == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


async def test_new_groups_are_budgeted(door: Door) -> None:
    (owner,) = await people(door, 1)
    for _ in range(20):
        await found(door, owner)

    refused = await refusal(door, "CreateGroup", owner, group_name="One more")

    assert refused == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("x" * 100, True),
        ("👩" * 100, True),
        ("'; DROP TABLE groups; --", True),
        ("%s %(x)s $1 {}", True),
        ("x" * 101, False),
        ("x" * 10_240, False),
        ("   ", False),
        ("", False),
        ("a\0b", False),
        ("a\nb", False),
        ("a\u202eb", False),
    ],
)
async def test_names_of_groups_are_stored_literally_or_refused(door: Door, name: str, *, is_allowed: bool) -> None:
    (owner,) = await people(door, 1)

    if is_allowed:
        assert (await ask(door, "CreateGroup", owner, group_name=name)).group.group_name == name
    else:
        assert await refusal(door, "CreateGroup", owner, group_name=name) == INVALID


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [("x" * 512, True), ("a\n\nb", True), ("x" * 513, False), ("a\0b", False), ("\u202ea", False)],
)
async def test_descriptions_may_have_lines_and_no_control_characters(
    door: Door, text: str, *, is_allowed: bool
) -> None:
    (owner,) = await people(door, 1)
    group_id = await found(door, owner)

    if is_allowed:
        answer = await ask(door, "UpdateGroup", owner, group_id=group_id, description=text)
        assert answer.group.description == text
    else:
        assert await refusal(door, "UpdateGroup", owner, group_id=group_id, description=text) == INVALID


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("CreateGroup", {"group_name": "x", "user_ids": [b"short"]}),
        ("CreateGroup", {"group_name": "x", "user_ids": [bytes(16)] * 1024}),
        ("CreateGroup", {"group_name": "x", "expiry_s": 7_776_001}),
        ("CreateGroup", {"group_name": "x", "request_id": b"short"}),
        ("GetGroup", {}),
        ("BatchGetGroups", {"group_ids": [bytes(16)] * 101}),
        ("AddMembers", {"group_id": bytes(16)}),
        ("SetRole", {"group_id": bytes(16), "user_id": bytes(16)}),
        ("SetRole", {"group_id": bytes(16), "user_id": bytes(16), "role": 4}),
        ("CreateInvite", {"group_id": bytes(16), "lifetime_s": 7_776_001}),
        ("JoinByInvite", {"invite_code": "x" * 65}),
    ],
)
async def test_what_breaks_a_limit_is_refused(door: Door, method: str, fields: dict[str, Any]) -> None:
    (owner,) = await people(door, 1)

    assert await refusal(door, method, owner, **fields) == INVALID


async def test_services_learn_who_is_in_a_group_and_since_when(door: Door) -> None:
    owner, bob = await people(door, 2)
    group_id, nowhere = await found(door, owner, bob), RANDOM.token(16)
    await ask(door, "RemoveMember", owner, group_id=group_id, user_id=bob.user_id)
    pairs = directory_service_pb2.BatchGetMembershipsRequest(
        group_ids=[group_id, group_id, nowhere], user_ids=[bob.user_id, owner.user_id, bob.user_id]
    )

    answer = await door.call(DIRECTORY, "BatchGetMemberships", pairs, caller="svc-message")
    listed = await door.call(
        DIRECTORY,
        "ListGroupMembers",
        directory_service_pb2.ListGroupMembersRequest(group_id=group_id),
        caller="svc-fanout",
    )
    unknown = await door.call(
        DIRECTORY,
        "ListGroupMembers",
        directory_service_pb2.ListGroupMembersRequest(group_id=nowhere),
        caller="svc-presence",
    )

    gone, here, nothing = answer.memberships
    assert (gone.is_member, gone.role, gone.group_version) == (False, item_pb2.GROUP_ROLE_UNSPECIFIED, 2)
    assert [(window.joined_version, window.left_version) for window in gone.windows] == [(1, 2)]
    assert (here.is_member, here.role, here.windows[0].left_version) == (True, OWNER, 0)
    assert (nothing.group_version, len(nothing.windows), nothing.group_id) == (0, 0, nowhere)
    assert (listed.group.exists, listed.group.version, list(listed.group.member_user_ids)) == (True, 2, [owner.user_id])
    assert (list(listed.group.roles), list(listed.group.joined_versions)) == ([OWNER], [1])
    assert (unknown.group.exists, unknown.group.group_id) == (False, nowhere)
    pairs.user_ids.pop()
    refused = await door.refusal(DIRECTORY, "BatchGetMemberships", pairs, caller="svc-message")
    assert refused == INVALID


async def test_services_learn_who_may_see_what(door: Door) -> None:
    phone = new_phone()
    ada, bob = await door.register(Ed25519PrivateKey.generate(), phone), (await people(door, 1))[0]
    await door.call(CONTACT, "AddContact", contact_service_pb2.AddContactRequest(phone_number=phone), bob)

    def pairs(aspect: int, count: int = 3) -> directory_service_pb2.CheckPrivacyRequest:
        return directory_service_pb2.CheckPrivacyRequest(
            aspect=directory_service_pb2.PrivacyAspect.ValueType(aspect),
            viewer_user_ids=[ada.user_id, bob.user_id, ada.user_id],
            target_user_ids=[bob.user_id, ada.user_id, RANDOM.token(16)][:count],
        )

    last_seen = await door.call(DIRECTORY, "CheckPrivacy", pairs(1), caller="svc-presence")
    photo = await door.call(DIRECTORY, "CheckPrivacy", pairs(3), caller="svc-message")

    assert list(last_seen.may_see) == [True, False, False]
    assert list(photo.may_see) == [True, True, False]
    assert await door.refusal(DIRECTORY, "CheckPrivacy", pairs(0), caller="svc-presence") == INVALID
    assert await door.refusal(DIRECTORY, "CheckPrivacy", pairs(1, 2), caller="svc-presence") == INVALID
    assert await door.refusal(DIRECTORY, "CheckPrivacy", pairs(1), caller="svc-fanout") == (
        "PERMISSION_DENIED",
        "CALLER_NOT_ALLOWED",
    )
