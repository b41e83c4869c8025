"""The doors of the directory over a real loopback channel."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    device_service_pb2,
    directory_service_pb2,
    profile_service_pb2,
    registration_service_pb2,
    session_service_pb2,
)
from chappe.runtime.errors import ChappeError
from chappe.runtime.principal import ADDRESS_KEY
from svc_identity.model import DeviceId, DeviceRef, UserId
from svc_identity.protocol.proof import link_proof, register_proof
from tests.svc_identity.doors import (
    BLOCK,
    CALLER,
    CONTACT,
    DEVICE,
    DIRECTORY,
    PROFILE,
    REGISTRATION,
    SESSION,
    Door,
    config,
    open_door,
)
from tests.svc_identity.people import RANDOM, new_phone, public_key


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door(config()) as opened:
        yield opened


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def start(phone: str) -> registration_service_pb2.StartVerificationRequest:
    return registration_service_pb2.StartVerificationRequest(phone_number=phone)


def link_request(code: str, key: Ed25519PrivateKey) -> device_service_pb2.LinkDeviceRequest:
    return device_service_pb2.LinkDeviceRequest(
        link_code=code, device_public_key=public_key(key), platform="second", proof=key.sign(link_proof(code))
    )


async def claims_of(door: Door, token: str) -> dict[str, Any]:
    keys = await door.call(SESSION, "GetSigningKeys", session_service_pb2.GetSigningKeysRequest(), caller="svc-edge")
    by_id = {key.key_id: key.public_key for key in keys.keys}
    verifier = Ed25519PublicKey.from_public_bytes(by_id[jwt.get_unverified_header(token)["kid"]])
    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(
        token,
        verifier,
        algorithms=["EdDSA"],
        audience="chappe-edge",
        issuer="chappe",
        options=options,  # type: ignore[arg-type]  # the library's own type wants every option
    )
    return claims


async def test_person_registers_and_signs_in(door: Door, key: Ed25519PrivateKey) -> None:
    device = await door.register(key)

    answer = await door.call(SESSION, "CreateSession", door.sign_in(device, key))

    claims = await claims_of(door, answer.access_token)
    assert claims["sub"] == device.user_id.hex()
    assert (claims["did"], claims["gen"], claims["sid"]) == (1, 1, answer.session_id.hex())
    assert base64.urlsafe_b64decode(claims["cnf"]["x"] + "=") == public_key(key)
    assert claims["exp"] * 1000 == answer.expire_ms
    assert claims["exp"] - claims["iat"] == 900
    assert len(answer.access_token) < 512


async def test_code_stays_secret_unless_this_is_development() -> None:
    for is_development in (False, True):
        async with open_door(config(development_codes=is_development)) as door:
            answer = await door.call(REGISTRATION, "StartVerification", start(new_phone()))

            assert answer.development_code == (door.sms.sent[0][1] if is_development else "")
            assert answer.resend_after_ms == 60_000


async def test_known_and_unknown_numbers_get_the_same_answer(door: Door, key: Ed25519PrivateKey) -> None:
    known = new_phone()
    await door.register(key, known)
    door.clock.pass_s(3600)

    answers = [await door.call(REGISTRATION, "StartVerification", start(phone)) for phone in (known, new_phone())]

    assert [len(answer.verification_id) for answer in answers] == [16, 16]
    assert [answer.ListFields()[0][0].name for answer in answers] == ["verification_id"] * 2


async def test_codes_for_one_address_are_budgeted(door: Door) -> None:
    refusals: list[ChappeError] = []

    async def ask(address: str) -> bool:
        # Numbers far apart, so that the budget of a range is none of this test's.
        phone = f"+44{int.from_bytes(RANDOM.token(4)) % 1_000_000:06d}0000"
        try:
            await door.call(REGISTRATION, "StartVerification", start(phone), address=address)
        except ChappeError as error:
            refusals.append(error)
            return False
        return True

    answers = [await ask("192.0.2.1") for _ in range(21)]
    mapped, other = await ask("::ffff:192.0.2.1"), await ask("192.0.2.2")
    six = [await ask(f"2001:db8::{number:x}") for number in range(1, 22)]
    nowhere = [await ask("") for _ in range(21)]
    door.clock.pass_s(3600)

    assert answers == six == [True] * 20 + [False]
    assert (mapped, other, await ask("192.0.2.1")) == (False, True, True)
    assert nowhere == [True] * 21
    assert {(error.reason, error.metadata["budget"]) for error in refusals} == {
        ("RATE_LIMITED", "codes for this address")
    }


async def test_codes_for_one_address_are_budgeted_also_for_those_who_have_an_account(door: Door) -> None:
    alice = await door.registered_quickly()

    async def ask() -> bool:
        request = start(f"+44{int.from_bytes(RANDOM.token(4)) % 1_000_000:06d}0000")
        try:
            await door.call(REGISTRATION, "StartVerification", request, alice, address="192.0.2.1")
        except ChappeError as error:
            return error.metadata["budget"] != "codes for this address"
        return True

    assert [await ask() for _ in range(21)] == [True] * 20 + [False]


async def test_codes_for_one_range_of_numbers_are_budgeted() -> None:
    async with open_door(config(codes_per_range=3)) as door:
        key = Ed25519PrivateKey.generate()
        known = new_phone()
        await door.register(key, known)
        door.clock.pass_s(3600)
        numbers = [f"{known[:-4]}{number:04d}" for number in range(5000, 5003)]
        for number in numbers:
            await door.call(REGISTRATION, "StartVerification", start(number))

        # Also when a number has an account: the answer to it is the same.
        refused = [await door.refusal(REGISTRATION, "StartVerification", start(phone)) for phone in (known, numbers[0])]
        elsewhere = await door.call(REGISTRATION, "StartVerification", start("+390101234567"))

        assert refused[0] == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert refused[0] == refused[1]
        assert len(elsewhere.verification_id) == 16


async def test_address_that_is_said_twice_or_is_none_counts_as_unknown(door: Door) -> None:
    for given in (["192.0.2.1", "192.0.2.2"], ["x" * 65]):
        metadata = [(CALLER, "svc-edge"), *((ADDRESS_KEY, address) for address in given)]

        answer = await REGISTRATION(door.channel).StartVerification(start(new_phone()), metadata=metadata)

        assert len(answer.verification_id) == 16


async def test_guessing_a_code_ends_after_five(door: Door) -> None:
    started = await door.call(REGISTRATION, "StartVerification", start(new_phone()))
    wrong = "000000" if door.sms.sent[-1][1] != "000000" else "000001"
    request = registration_service_pb2.CheckVerificationRequest(verification_id=started.verification_id, code=wrong)

    answers = [await door.refusal(REGISTRATION, "CheckVerification", request) for _ in range(6)]

    assert answers[:5] == [("PERMISSION_DENIED", "WRONG_CODE")] * 5
    assert answers[5] == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


async def test_code_of_another_verification_does_not_count(door: Door) -> None:
    first = await door.call(REGISTRATION, "StartVerification", start(new_phone()))
    await door.call(REGISTRATION, "StartVerification", start(new_phone()))
    codes = [code for _, code in door.sms.sent]
    request = registration_service_pb2.CheckVerificationRequest(verification_id=first.verification_id, code=codes[1])

    assert codes[0] == codes[1] or await door.refusal(REGISTRATION, "CheckVerification", request) == (
        "PERMISSION_DENIED",
        "WRONG_CODE",
    )


async def test_network_of_phones_that_is_down_is_told(door: Door) -> None:
    door.sms.is_down = True

    refused = await door.refusal(REGISTRATION, "StartVerification", start(new_phone()))

    assert refused == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


@pytest.mark.parametrize("spoil", ["reused", "unknown", "late", "proof of another key", "proof of another token"])
async def test_registration_needs_a_fresh_token_and_its_proof(door: Door, key: Ed25519PrivateKey, spoil: str) -> None:
    token = await door.verify(new_phone())
    signer = Ed25519PrivateKey.generate() if spoil == "proof of another key" else key
    signed = RANDOM.token(32) if spoil == "proof of another token" else token

    def request(used: bytes, own: Ed25519PrivateKey) -> registration_service_pb2.RegisterAccountRequest:
        return registration_service_pb2.RegisterAccountRequest(
            registration_token=used,
            device_public_key=public_key(own),
            profile_name="Ada",
            proof=(signer if own is key else own).sign(register_proof(signed if used == token else used)),
        )

    if spoil == "reused":
        await door.call(REGISTRATION, "RegisterAccount", request(token, Ed25519PrivateKey.generate()))
    if spoil == "late":
        door.clock.pass_s(301)
    sent = request(RANDOM.token(32) if spoil == "unknown" else token, key)

    refused = await door.refusal(REGISTRATION, "RegisterAccount", sent)

    is_proof = spoil.startswith("proof")
    expected = ("UNAUTHENTICATED", "INVALID_PROOF") if is_proof else ("PERMISSION_DENIED", "INVALID_REGISTRATION_TOKEN")
    assert refused == expected


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("x" * 64, True),
        ("👩" * 64, True),
        ("x" * 65, False),
        ("x" * 10_240, False),
        ("   ", False),
        ("", False),
        ("a\0b", False),
        ("a\u202eb", False),
        ("'; DROP TABLE users; --", True),
    ],
)
async def test_names_are_stored_literally_or_refused(
    door: Door, key: Ed25519PrivateKey, name: str, *, is_allowed: bool
) -> None:
    device = await door.register(key)
    request = profile_service_pb2.UpdateProfileRequest(profile_name=name)

    if is_allowed:
        answer = await door.call(PROFILE, "UpdateProfile", request, device)
        assert answer.profile.profile_name == name
    else:
        refused = await door.refusal(PROFILE, "UpdateProfile", request, device)
        assert refused == ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.mark.parametrize("phone", ["", "0044", "+0123456789", "+44' OR 1=1", "+" + "1" * 16, "+44\x00123456789"])
async def test_what_is_no_number_is_refused(door: Door, phone: str) -> None:
    refused = await door.refusal(REGISTRATION, "StartVerification", start(phone))

    assert refused == ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.mark.parametrize("spoil", ["other key", "replay", "61 s old", "61 s early", "other user", "nonce changed"])
async def test_sign_in_needs_a_fresh_proof_by_the_devices_key(door: Door, key: Ed25519PrivateKey, spoil: str) -> None:
    device = await door.register(key)
    signer = Ed25519PrivateKey.generate() if spoil == "other key" else key
    age_s = {"61 s old": 61, "61 s early": -61}.get(spoil, 0)
    request = door.sign_in(device, signer, age_s)
    if spoil == "replay":
        await door.call(SESSION, "CreateSession", request)
        door.clock.pass_s(59)
    if spoil == "other user":
        request.user_id = (await door.register(Ed25519PrivateKey.generate())).user_id
    if spoil == "nonce changed":
        request.nonce = RANDOM.token(16)

    assert await door.refusal(SESSION, "CreateSession", request) == ("UNAUTHENTICATED", "INVALID_PROOF")


async def test_unknown_device_is_refused_like_a_wrong_key(door: Door, key: Ed25519PrivateKey) -> None:
    known = await door.register(key)
    no_device, nobody = DeviceRef(known.user_id, DeviceId(2)), DeviceRef(UserId(RANDOM.token(16)), DeviceId(1))
    refused = set[tuple[str, str, str, str]]()

    for device in (known, no_device, nobody):
        with pytest.raises(ChappeError) as caught:
            await door.call(SESSION, "CreateSession", door.sign_in(device, Ed25519PrivateKey.generate()))
        error = caught.value
        refused.add((error.code, error.reason, error.message, str(error.metadata)))

    # Not even the text tells them apart, or anybody could count the devices of an account.
    assert [said[:2] for said in refused] == [("UNAUTHENTICATED", "INVALID_PROOF")]


async def test_old_device_is_out_after_registering_again(door: Door, key: Ed25519PrivateKey) -> None:
    phone = new_phone()
    old = await door.register(key, phone)
    door.clock.pass_s(3600)

    new = await door.register(Ed25519PrivateKey.generate(), phone)

    assert new == DeviceRef(old.user_id, DeviceId(2))
    refused = await door.refusal(SESSION, "CreateSession", door.sign_in(old, key))
    assert refused == ("UNAUTHENTICATED", "DEVICE_NOT_FOUND")


async def test_revoked_session_raises_the_generation(door: Door, key: Ed25519PrivateKey) -> None:
    device = await door.register(key)
    first = await door.call(SESSION, "CreateSession", door.sign_in(device, key))

    request = session_service_pb2.RevokeSessionRequest(session_id=first.session_id)
    await door.call(SESSION, "RevokeSession", request, device)

    second = await door.call(SESSION, "CreateSession", door.sign_in(device, key))
    users = await door.call(
        DIRECTORY, "BatchGetUsers", directory_service_pb2.BatchGetUsersRequest(user_ids=[device.user_id])
    )
    assert (await claims_of(door, second.access_token))["gen"] == 2
    assert list(users.users[0].device_generations) == [2]


async def test_sessions_of_others_are_out_of_reach(door: Door, key: Ed25519PrivateKey) -> None:
    device, other = await door.register(key), await door.register(Ed25519PrivateKey.generate())
    session = await door.call(SESSION, "CreateSession", door.sign_in(device, key))
    request = session_service_pb2.RevokeSessionRequest(session_id=session.session_id)

    refused = await door.refusal(SESSION, "RevokeSession", request, other)
    empty = await door.refusal(SESSION, "RevokeSession", session_service_pb2.RevokeSessionRequest(), other)

    mine = await door.call(SESSION, "ListSessions", session_service_pb2.ListSessionsRequest(), device)
    assert refused == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert empty == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert [found.session_id for found in mine.sessions] == [session.session_id]


async def test_second_device_joins_by_code_and_leaves(door: Door, key: Ed25519PrivateKey) -> None:
    device, second_key = await door.register(key), Ed25519PrivateKey.generate()
    started = await door.call(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), device)
    request = link_request(started.link_code, second_key)
    request.link_code = f"{started.link_code[:4].lower()}-{started.link_code[4:]}"

    linked = await door.call(DEVICE, "LinkDevice", request)
    listed = await door.call(DEVICE, "ListDevices", device_service_pb2.ListDevicesRequest(), device)
    await door.call(DEVICE, "UnlinkDevice", device_service_pb2.UnlinkDeviceRequest(device_id=2), device)

    assert (linked.user_id, linked.device_id) == (device.user_id, 2)
    assert [found.device_id for found in listed.devices] == [1, 2]
    refused = await door.refusal(
        SESSION, "CreateSession", door.sign_in(DeviceRef(device.user_id, DeviceId(2)), second_key)
    )
    assert refused == ("UNAUTHENTICATED", "DEVICE_NOT_FOUND")


@pytest.mark.parametrize("spoil", ["reused", "late", "guessed", "not a code", "proof"])
async def test_link_needs_a_fresh_code_and_its_proof(door: Door, key: Ed25519PrivateKey, spoil: str) -> None:
    device = await door.register(key)
    code = (await door.call(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), device)).link_code
    request = link_request(code, Ed25519PrivateKey.generate())
    if spoil == "reused":
        await door.call(DEVICE, "LinkDevice", link_request(code, Ed25519PrivateKey.generate()))
    if spoil == "late":
        door.clock.pass_s(301)
    if spoil == "guessed":
        request = link_request("22222222", key)
    if spoil == "not a code":
        request.link_code = "'; DROP --"
    if spoil == "proof":
        request.proof = bytes(64)

    refused = await door.refusal(DEVICE, "LinkDevice", request)

    expected = ("UNAUTHENTICATED", "INVALID_PROOF") if spoil == "proof" else ("NOT_FOUND", "LINK_CODE_NOT_FOUND")
    assert refused == expected


async def test_link_code_of_a_device_that_left_is_refused(door: Door, key: Ed25519PrivateKey) -> None:
    device = await door.register(key)
    started = await door.call(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), device)
    await door.call(DEVICE, "LinkDevice", link_request(started.link_code, Ed25519PrivateKey.generate()))
    second = DeviceRef(device.user_id, DeviceId(2))
    started = await door.call(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), second)
    await door.call(DEVICE, "UnlinkDevice", device_service_pb2.UnlinkDeviceRequest(device_id=2), device)

    refused = await door.refusal(DEVICE, "LinkDevice", link_request(started.link_code, Ed25519PrivateKey.generate()))
    another = await door.refusal(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), second)

    assert refused == ("NOT_FOUND", "LINK_CODE_NOT_FOUND")
    assert another == ("UNAUTHENTICATED", "DEVICE_NOT_FOUND")


async def test_link_codes_are_budgeted(door: Door, key: Ed25519PrivateKey) -> None:
    device = await door.register(key)
    for _ in range(20):
        await door.call(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), device)

    refused = await door.refusal(DEVICE, "StartLink", device_service_pb2.StartLinkRequest(), device)

    assert refused == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


async def test_profiles_of_others_show_no_number(door: Door, key: Ed25519PrivateKey) -> None:
    phone = new_phone()
    ada, bob = await door.register(key), await door.register(Ed25519PrivateKey.generate(), phone, "Bob")
    unknown = RANDOM.token(16)

    own = await door.call(PROFILE, "GetProfile", profile_service_pb2.GetProfileRequest(), bob)
    others = await door.call(
        PROFILE,
        "BatchGetProfiles",
        profile_service_pb2.BatchGetProfilesRequest(user_ids=[bob.user_id, unknown]),
        ada,
    )

    assert own.profile.phone_number == phone
    assert [profile.phone_number for profile in others.profiles] == ["", ""]
    assert [profile.profile_name for profile in others.profiles] == ["Bob", ""]
    refused = await door.refusal(PROFILE, "GetProfile", profile_service_pb2.GetProfileRequest(user_id=unknown), ada)
    assert refused == ("NOT_FOUND", "USER_NOT_FOUND")


async def test_address_book_is_paged_and_private(door: Door, key: Ed25519PrivateKey) -> None:
    owner, other = await door.register(key), await door.register(Ed25519PrivateKey.generate())
    numbers = [new_phone() for _ in range(3)]
    for phone in numbers:
        request = contact_service_pb2.AddContactRequest(phone_number=phone, contact_name="x")
        await door.call(CONTACT, "AddContact", request, owner)
    await door.call(CONTACT, "RemoveContact", contact_service_pb2.RemoveContactRequest(phone_number=numbers[1]), owner)

    first = await door.call(CONTACT, "ListContacts", contact_service_pb2.ListContactsRequest(page_size=1), owner)
    go_on = contact_service_pb2.ListContactsRequest(page_size=10**9, page_token=first.next_page_token)
    rest = await door.call(CONTACT, "ListContacts", go_on, owner)

    assert [contact.phone_number for contact in first.contacts] == [numbers[0]]
    assert [contact.phone_number for contact in rest.contacts] == [numbers[2]]
    assert rest.next_page_token == ""
    assert await door.refusal(CONTACT, "ListContacts", go_on, other) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    blocks = block_service_pb2.ListBlocksRequest(page_token=first.next_page_token)
    assert await door.refusal(BLOCK, "ListBlocks", blocks, owner) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize("token", ["x", "====", "AAAA", "é" * 10, "A" * 64])
async def test_forged_page_token_is_refused(door: Door, key: Ed25519PrivateKey, token: str) -> None:
    owner = await door.register(key)
    request = contact_service_pb2.ListContactsRequest(page_token=token)

    assert await door.refusal(CONTACT, "ListContacts", request, owner) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


async def test_lookups_are_budgeted(door: Door, key: Ed25519PrivateKey) -> None:
    phone = new_phone()
    owner, bob = await door.register(key), await door.register(Ed25519PrivateKey.generate(), phone)
    request = contact_service_pb2.LookupContactsRequest(phone_numbers=[phone] + [new_phone() for _ in range(499)])

    answer = await door.call(CONTACT, "LookupContacts", request, owner)

    assert [user_id for user_id in answer.user_ids if user_id] == [bob.user_id]
    one_more = contact_service_pb2.LookupContactsRequest(phone_numbers=[phone])
    assert await door.refusal(CONTACT, "LookupContacts", one_more, owner) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    adding = contact_service_pb2.AddContactRequest(phone_number=phone)
    assert await door.refusal(CONTACT, "AddContact", adding, owner) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


async def test_blocks_are_told_to_services_only(door: Door, key: Ed25519PrivateKey) -> None:
    ada, bob = await door.register(key), await door.register(Ed25519PrivateKey.generate())

    await door.call(BLOCK, "BlockUser", block_service_pb2.BlockUserRequest(user_id=bob.user_id), ada)

    mine = await door.call(BLOCK, "ListBlocks", block_service_pb2.ListBlocksRequest(), ada)
    theirs = await door.call(BLOCK, "ListBlocks", block_service_pb2.ListBlocksRequest(), bob)
    request = directory_service_pb2.BatchGetUsersRequest(user_ids=[ada.user_id, RANDOM.token(16)])
    users = await door.call(DIRECTORY, "BatchGetUsers", request, caller="svc-message")
    assert (list(mine.user_ids), list(theirs.user_ids)) == ([bob.user_id], [])
    assert list(users.users[0].blocked_user_ids) == [bob.user_id]
    assert [user.state for user in users.users] == [
        directory_service_pb2.USER_STATE_ACTIVE,
        directory_service_pb2.USER_STATE_UNKNOWN,
    ]
    itself = block_service_pb2.BlockUserRequest(user_id=ada.user_id)
    assert await door.refusal(BLOCK, "BlockUser", itself, ada) == ("INVALID_ARGUMENT", "SELF_NOT_ALLOWED")
    await door.call(BLOCK, "UnblockUser", block_service_pb2.UnblockUserRequest(user_id=bob.user_id), ada)


async def test_doors_are_open_to_those_whom_the_contract_names(door: Door, key: Ed25519PrivateKey) -> None:
    device = await door.register(key)
    users = directory_service_pb2.BatchGetUsersRequest(user_ids=[device.user_id])
    profile = profile_service_pb2.GetProfileRequest()

    assert await door.refusal(PROFILE, "GetProfile", profile) == ("UNAUTHENTICATED", "INVALID_PRINCIPAL")
    assert await door.refusal(PROFILE, "GetProfile", profile, caller="svc-message") == (
        "PERMISSION_DENIED",
        "CALLER_NOT_ALLOWED",
    )
    assert await door.refusal(DIRECTORY, "BatchGetUsers", users, caller="tool") == (
        "PERMISSION_DENIED",
        "CALLER_NOT_ALLOWED",
    )
