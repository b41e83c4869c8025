"""The doors of settings, profiles and groups in common over a real loopback channel: what is shown to whom."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    directory_service_pb2,
    group_service_pb2,
    profile_service_pb2,
    settings_pb2,
)
from chappe.api.type.v1 import privacy_audience_pb2
from svc_identity.model import ChangeKind, DeviceRef
from tests.svc_identity.doors import BLOCK, CONTACT, DIRECTORY, GROUP, PROFILE, Door, config, open_door
from tests.svc_identity.people import RANDOM, new_phone
from tests.svc_identity.test_worker import until

UNSET = privacy_audience_pb2.PRIVACY_AUDIENCE_UNSPECIFIED
N = privacy_audience_pb2.PRIVACY_AUDIENCE_NOBODY
C = privacy_audience_pb2.PRIVACY_AUDIENCE_CONTACTS
E = privacy_audience_pb2.PRIVACY_AUDIENCE_EVERYONE
INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")
PHOTO = b"p" * 16


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door(config()) as opened:
        yield opened


async def person(door: Door, phone: str = "") -> DeviceRef:
    return await door.register(Ed25519PrivateKey.generate(), phone)


async def set_privacy(door: Door, who: DeviceRef, **fields: Any) -> profile_service_pb2.UpdateSettingsResponse:
    settings = settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(**fields))
    request = profile_service_pb2.UpdateSettingsRequest(settings=settings)
    answer: profile_service_pb2.UpdateSettingsResponse = await door.call(PROFILE, "UpdateSettings", request, who)
    return answer


async def own(door: Door, who: DeviceRef) -> profile_service_pb2.GetSettingsResponse:
    request = profile_service_pb2.GetSettingsRequest()
    answer: profile_service_pb2.GetSettingsResponse = await door.call(PROFILE, "GetSettings", request, who)
    return answer


async def keep(door: Door, owner: DeviceRef, phone: str) -> None:
    request = contact_service_pb2.AddContactRequest(phone_number=phone, contact_name="x")
    await door.call(CONTACT, "AddContact", request, owner)


async def block(door: Door, blocker: DeviceRef, blocked: DeviceRef) -> None:
    await door.call(BLOCK, "BlockUser", block_service_pb2.BlockUserRequest(user_id=blocked.user_id), blocker)


async def may_see(door: Door, aspect: int, viewer: DeviceRef, target: DeviceRef) -> bool:
    request = directory_service_pb2.CheckPrivacyRequest(
        aspect=directory_service_pb2.PrivacyAspect.ValueType(aspect),
        viewer_user_ids=[viewer.user_id],
        target_user_ids=[target.user_id],
    )
    (answer,) = (await door.call(DIRECTORY, "CheckPrivacy", request, caller="svc-presence")).may_see
    return bool(answer)


async def test_settings_begin_with_the_defaults_of_the_source_document(door: Door) -> None:
    phone = new_phone()
    ada = await person(door, phone)

    answer = await own(door, ada)

    assert answer.settings == settings_pb2.Settings(
        privacy=settings_pb2.PrivacySettings(
            last_seen=C, profile_photo=E, about=C, read_receipts=True, groups=E, online=UNSET
        ),
        notifications=settings_pb2.NotificationSettings(
            message_notifications=True, group_notifications=True, call_notifications=True, notification_sound="default"
        ),
        security=settings_pb2.SecuritySettings(two_step_verification=False, show_security_notifications=True),
    )
    assert (answer.profile.profile_name, answer.profile.phone_number) == ("Ada", phone)


async def test_what_is_not_set_in_a_change_stays(door: Door) -> None:
    ada = await person(door)
    await set_privacy(door, ada, last_seen=E, online=N)
    request = profile_service_pb2.UpdateSettingsRequest(
        settings=settings_pb2.Settings(
            notifications=settings_pb2.NotificationSettings(notification_sound="semaphore", call_notifications=False),
            security=settings_pb2.SecuritySettings(two_step_verification=True, show_security_notifications=False),
        )
    )

    changed = await door.call(PROFILE, "UpdateSettings", request, ada)
    again = await door.call(PROFILE, "UpdateSettings", request, ada)
    followed = await set_privacy(door, ada, online=UNSET)

    privacy, notifications = changed.settings.privacy, changed.settings.notifications
    assert (privacy.last_seen, privacy.online, privacy.read_receipts) == (E, N, True)
    assert (notifications.notification_sound, notifications.call_notifications) == ("semaphore", False)
    assert notifications.message_notifications
    assert changed.settings.security.two_step_verification
    assert not changed.settings.security.show_security_notifications
    assert changed == again
    assert followed.version == changed.version + 1
    assert (followed.settings.privacy.online, followed.settings.privacy.last_seen) == (UNSET, E)


async def test_empty_change_changes_nothing(door: Door) -> None:
    ada = await person(door)
    request = profile_service_pb2.UpdateSettingsRequest(settings=settings_pb2.Settings())

    before = (await own(door, ada)).profile.version
    answer = await door.call(PROFILE, "UpdateSettings", request, ada)

    assert answer.version == before


async def test_settings_are_the_users_own_and_nobody_elses(door: Door) -> None:
    ada, bob = await person(door), await person(door)
    await set_privacy(door, ada, last_seen=N)
    request = profile_service_pb2.GetSettingsRequest()
    unnamed = request.SerializeToString() + b"\x0a\x10" + ada.user_id

    theirs = await own(door, bob)
    smuggled = await door.call(PROFILE, "GetSettings", profile_service_pb2.GetSettingsRequest.FromString(unnamed), bob)

    assert theirs.settings.privacy.last_seen == smuggled.settings.privacy.last_seen == C
    assert smuggled.profile.user_id == bob.user_id
    for caller in ("svc-message", "svc-presence", "tool"):
        refused = await door.refusal(PROFILE, "GetSettings", request, caller=caller)
        assert refused == ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED")
    assert await door.refusal(PROFILE, "GetSettings", request) == ("UNAUTHENTICATED", "INVALID_PRINCIPAL")


@pytest.mark.parametrize(
    "settings",
    [
        settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(last_seen=UNSET)),
        settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(about=4)),  # type: ignore[arg-type]  # no audience
        settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(online=4)),  # type: ignore[arg-type]  # no audience
        settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(online=-1)),  # type: ignore[arg-type]  # no audience
        settings_pb2.Settings(notifications=settings_pb2.NotificationSettings(notification_sound="")),
        settings_pb2.Settings(notifications=settings_pb2.NotificationSettings(notification_sound="x" * 65)),
        settings_pb2.Settings(notifications=settings_pb2.NotificationSettings(notification_sound="a\0b")),
    ],
)
async def test_settings_that_cannot_be_are_refused(door: Door, settings: settings_pb2.Settings) -> None:
    ada = await person(door)
    request = profile_service_pb2.UpdateSettingsRequest(settings=settings)

    assert await door.refusal(PROFILE, "UpdateSettings", request, ada) == INVALID
    assert await door.refusal(PROFILE, "UpdateSettings", profile_service_pb2.UpdateSettingsRequest(), ada) == INVALID


async def test_changed_settings_reach_the_users_own_devices(door: Door) -> None:
    ada = await person(door)

    await set_privacy(door, ada, last_seen=N)

    await until(lambda: ChangeKind.SETTINGS in [event.kind for event in door.inbox.of(ada.user_id)])


async def test_services_learn_who_gives_no_read_receipts(door: Door) -> None:
    ada = await person(door)
    request = directory_service_pb2.BatchGetUsersRequest(user_ids=[ada.user_id])

    before = await door.call(DIRECTORY, "BatchGetUsers", request, caller="svc-message")
    await set_privacy(door, ada, read_receipts=False)
    after = await door.call(DIRECTORY, "BatchGetUsers", request, caller="svc-message")

    assert [answer.users[0].gives_read_receipts for answer in (before, after)] == [True, False]


@pytest.mark.parametrize(
    ("audience", "relation"), list(itertools.product([N, C, E], ["stranger", "contact", "blocked contact"]))
)
async def test_photo_text_last_seen_and_online_are_shown_as_the_rule_says(
    door: Door, audience: privacy_audience_pb2.PrivacyAudience.ValueType, relation: str
) -> None:
    phone = new_phone()
    viewer, target = await person(door, phone), await person(door)
    update = profile_service_pb2.UpdateProfileRequest(about="At the telegraph", photo_media_id=PHOTO)
    await door.call(PROFILE, "UpdateProfile", update, target)
    await set_privacy(door, target, last_seen=audience, profile_photo=audience, about=audience, groups=audience)
    if relation != "stranger":
        await keep(door, target, phone)
    if relation == "blocked contact":
        await block(door, target, viewer)
    is_shown = relation != "blocked contact" and (audience == E or (audience == C and relation == "contact"))

    one = await door.call(PROFILE, "GetProfile", profile_service_pb2.GetProfileRequest(user_id=target.user_id), viewer)
    batch = profile_service_pb2.BatchGetProfilesRequest(user_ids=[target.user_id, viewer.user_id])
    many = await door.call(PROFILE, "BatchGetProfiles", batch, viewer)
    request = group_service_pb2.CreateGroupRequest(
        request_id=RANDOM.token(16), group_name="x", user_ids=[target.user_id]
    )
    created = await door.call(GROUP, "CreateGroup", request, viewer)

    expected = ("At the telegraph", PHOTO) if is_shown else ("", b"")
    for profile in (one.profile, many.profiles[0]):
        assert (profile.about, profile.photo_media_id, profile.profile_name) == (*expected, "Ada")
    assert [await may_see(door, aspect, viewer, target) for aspect in range(1, 6)] == [is_shown] * 5
    assert [refused.user_id for refused in created.refusals] == ([] if is_shown else [target.user_id])


async def test_whoever_blocks_sees_no_more_than_the_blocked(door: Door) -> None:
    viewer, target = await person(door), await person(door)
    update = profile_service_pb2.UpdateProfileRequest(photo_media_id=PHOTO)
    await door.call(PROFILE, "UpdateProfile", update, target)
    await set_privacy(door, target, last_seen=E)
    request = profile_service_pb2.GetProfileRequest(user_id=target.user_id)

    before = await door.call(PROFILE, "GetProfile", request, viewer)
    await block(door, viewer, target)
    after = await door.call(PROFILE, "GetProfile", request, viewer)

    assert (before.profile.photo_media_id, after.profile.photo_media_id) == (PHOTO, b"")
    assert not await may_see(door, 1, viewer, target)


async def test_whoever_hides_when_it_was_seen_sees_that_of_nobody(door: Door) -> None:
    viewer, target = await person(door), await person(door)
    await set_privacy(door, target, last_seen=E)

    seen = []
    for settings in ({"last_seen": N}, {"online": E}, {"last_seen": C, "online": N}, {"online": UNSET}):
        await set_privacy(door, viewer, **settings)
        seen.append([await may_see(door, aspect, viewer, target) for aspect in (1, 2)])

    assert seen == [[False, False], [False, True], [True, False], [True, True]]


async def test_update_of_nothing_changes_nothing(door: Door) -> None:
    ada = await person(door)

    before = (await own(door, ada)).profile
    answer = await door.call(PROFILE, "UpdateProfile", profile_service_pb2.UpdateProfileRequest(), ada)

    assert answer.profile == before


async def test_photo_is_named_by_16_bytes_or_none(door: Door) -> None:
    ada = await person(door)

    async def update(photo: bytes) -> bytes:
        request = profile_service_pb2.UpdateProfileRequest(photo_media_id=photo)
        answer: bytes = (await door.call(PROFILE, "UpdateProfile", request, ada)).profile.photo_media_id
        return answer

    assert await update(PHOTO) == PHOTO
    assert await update(b"") == b""
    for photo in (b"short", bytes(17)):
        request = profile_service_pb2.UpdateProfileRequest(photo_media_id=photo)
        assert await door.refusal(PROFILE, "UpdateProfile", request, ada) == INVALID


async def test_groups_in_common_are_listed_for_one_of_the_two(door: Door) -> None:
    ada, bob, cid = [await person(door) for _ in range(3)]
    group_ids = []
    for number in range(3):
        request = group_service_pb2.CreateGroupRequest(
            request_id=bytes([number]) * 16, group_name=f"Tower {number}", user_ids=[bob.user_id]
        )
        group_ids.append((await door.call(GROUP, "CreateGroup", request, ada)).group.group_id)

    async def common(viewer: DeviceRef, other: DeviceRef, **page: Any) -> Any:
        request = contact_service_pb2.ListMutualGroupsRequest(user_id=other.user_id, **page)
        return await door.call(CONTACT, "ListMutualGroups", request, viewer)

    first = await common(bob, ada, page_size=2)
    rest = await common(bob, ada, page_token=first.next_page_token)

    assert [group.group_id for group in [*first.groups, *rest.groups]] == sorted(group_ids)
    assert {group.group_name for group in [*first.groups, *rest.groups]} == {"Tower 0", "Tower 1", "Tower 2"}
    assert list((await common(cid, ada)).groups) == []
    itself = contact_service_pb2.ListMutualGroupsRequest(user_id=ada.user_id)
    refused = await door.refusal(CONTACT, "ListMutualGroups", itself, ada)
    assert refused == ("INVALID_ARGUMENT", "SELF_NOT_ALLOWED")
    stolen = contact_service_pb2.ListMutualGroupsRequest(user_id=cid.user_id, page_token=first.next_page_token)
    refused = await door.refusal(CONTACT, "ListMutualGroups", stolen, bob)
    assert refused == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
