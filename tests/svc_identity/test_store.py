"""What every IdentityStore does, in memory and on PostgreSQL."""

import asyncio

import pytest

from chappe.runtime.errors import RateLimitedError
from svc_identity.errors import (
    ContactNotFoundError,
    DeviceNotFoundError,
    DeviceUnlinkedError,
    InvalidProofError,
    InvalidRegistrationTokenError,
    LinkCodeNotFoundError,
    ListFullError,
    SelfNotAllowedError,
    SessionNotFoundError,
    TooManyDevicesError,
    UserNotFoundError,
    VerificationNotFoundError,
    WrongCodeError,
)
from svc_identity.model import (
    ChangeKind,
    CodeCharge,
    DeviceId,
    DeviceRef,
    Grant,
    Joining,
    SendPolicy,
    SessionId,
    SignIn,
    UserId,
)
from svc_identity.ports import IdentityStore
from svc_identity.protocol import limit
from svc_identity.protocol.code import DAY_MS
from svc_identity.protocol.source import HOUR_MS
from svc_identity.protocol.token import draw_signing_key
from tests.svc_identity.people import (
    POLICY,
    RANDOM,
    START_MS,
    charge,
    new_phone,
    register,
    registration,
    token_for,
    verification,
)

NOBODY = UserId(bytes(15) + b"\1")
TOKEN = Grant(b"t" * 32, START_MS + 300_000)


def sign_in(device: DeviceRef, nonce: bytes = b"n" * 16, now_ms: int = START_MS) -> SignIn:
    return SignIn(
        device=device,
        nonce=nonce,
        nonce_expire_ms=now_ms + 180_000,
        session_id=SessionId(RANDOM.token(16)),
        now_ms=now_ms,
    )


async def link_code(store: IdentityStore, device: DeviceRef) -> bytes:
    code = RANDOM.token(32)
    await store.devices.start_link(device, Grant(code, START_MS + 300_000), charge())
    return code


async def link(store: IdentityStore, device: DeviceRef) -> DeviceRef:
    return await store.devices.link_device(joining(await link_code(store, device)))


def joining(code: bytes, key: bytes = b"", now_ms: int = START_MS) -> Joining:
    return Joining(code_hmac=code, public_key=key or RANDOM.token(32), platform="second", now_ms=now_ms)


async def kinds_of(store: IdentityStore, user_id: UserId) -> list[ChangeKind]:
    head = await store.changes.read(None)
    start = head.cursor._replace(xmin=1, xmax=1, running=())
    page = await store.changes.read(start)
    found = list(page.changes)
    while not page.is_last:
        page = await store.changes.read(start, page)
        found += page.changes
    return [change.kind for change in found if change.user_id == user_id]


async def test_number_waits_longer_for_every_code(store: IdentityStore) -> None:
    phone, waits = new_phone(), []

    now_ms = START_MS
    for _ in range(4):
        waits.append(await store.registrations.open_verification(verification(phone, now_ms), POLICY))
        now_ms += waits[-1]

    assert waits == [60_000, 120_000, 300_000, 300_000]


async def test_number_that_asks_too_early_is_told_when_to_come_back(store: IdentityStore) -> None:
    phone = new_phone()
    await store.registrations.open_verification(verification(phone), POLICY)

    with pytest.raises(RateLimitedError) as refused:
        await store.registrations.open_verification(verification(phone, START_MS + 20_000), POLICY)

    assert refused.value.retry_after_ms == 40_000


async def test_number_gets_five_codes_a_day(store: IdentityStore) -> None:
    phone = new_phone()
    for hour in range(5):
        await store.registrations.open_verification(verification(phone, START_MS + hour * 3_600_000), POLICY)

    with pytest.raises(RateLimitedError) as refused:
        await store.registrations.open_verification(verification(phone, START_MS + 5 * 3_600_000), POLICY)

    assert refused.value.retry_after_ms == 19 * 3_600_000


def code_charge(holder: bytes = b"h" * 16, limit: int = 2, now_ms: int = START_MS) -> CodeCharge:
    return CodeCharge("codes", holder, limit, now_ms)


async def test_codes_are_charged_to_whom_they_come_from_and_go_to(store: IdentityStore) -> None:
    async def ask(*charges: CodeCharge) -> None:
        await store.registrations.open_verification(verification(new_phone()), POLICY, charges)

    await ask(code_charge())
    await ask(code_charge(), code_charge(b"o" * 16, 1))
    with pytest.raises(RateLimitedError) as refused:
        await ask(code_charge())
    # Refused by the one, and so not charged to the other.
    with pytest.raises(RateLimitedError):
        await ask(code_charge(b"p" * 16, 1), code_charge())
    await ask(code_charge(b"p" * 16, 1))
    await ask(code_charge(now_ms=START_MS + refused.value.retry_after_ms))

    assert 0 < refused.value.retry_after_ms <= 3_600_000


async def test_budget_of_an_hour_is_not_fresh_again_where_it_is_still_the_hour_before(store: IdentityStore) -> None:
    full_hour_ms = START_MS - START_MS % HOUR_MS + HOUR_MS

    async def ask(now_ms: int) -> None:
        charges = [code_charge(limit=2, now_ms=now_ms)]
        await store.registrations.open_verification(verification(new_phone(), now_ms), POLICY, charges)

    for now_ms in (full_hour_ms, full_hour_ms - 1):
        await ask(now_ms)

    for now_ms in (full_hour_ms - 1, full_hour_ms):
        with pytest.raises(RateLimitedError):
            await ask(now_ms)


async def test_number_that_has_to_wait_charges_nobody(store: IdentityStore) -> None:
    phone = new_phone()
    await store.registrations.open_verification(verification(phone), POLICY)
    for _ in range(3):
        with pytest.raises(RateLimitedError):
            await store.registrations.open_verification(verification(phone), POLICY, [code_charge(limit=1)])

    await store.registrations.open_verification(verification(new_phone()), POLICY, [code_charge(limit=1)])


async def test_codes_asked_for_at_once_stay_within_the_budget(store: IdentityStore) -> None:
    results = await asyncio.gather(
        *(
            store.registrations.open_verification(verification(new_phone()), POLICY, [code_charge(limit=3)])
            for _ in range(8)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(result, RateLimitedError) for result in results) == 5


async def test_sixth_code_is_refused_even_if_it_is_right(store: IdentityStore) -> None:
    opened = verification(new_phone())
    await store.registrations.open_verification(opened, POLICY)
    left = []

    for _ in range(5):
        with pytest.raises(WrongCodeError) as wrong:
            await store.registrations.redeem_code(opened.verification_id, b"wrong", TOKEN, START_MS)
        left.append(wrong.value.metadata["attempts_left"])

    assert left == ["4", "3", "2", "1", "0"]
    with pytest.raises(RateLimitedError):
        await store.registrations.redeem_code(opened.verification_id, b"right", TOKEN, START_MS)


async def test_parallel_guesses_get_no_more_than_five_answers(store: IdentityStore) -> None:
    opened = verification(new_phone())
    await store.registrations.open_verification(opened, POLICY)
    guess = store.registrations.redeem_code

    results = await asyncio.gather(
        *(guess(opened.verification_id, b"wrong", TOKEN, START_MS) for _ in range(12)), return_exceptions=True
    )

    assert sum(isinstance(result, WrongCodeError) for result in results) == 5
    assert sum(isinstance(result, RateLimitedError) for result in results) == 7


@pytest.mark.parametrize("spoil", ["used", "expired", "other"])
async def test_code_works_once_in_its_time_for_its_verification(store: IdentityStore, spoil: str) -> None:
    opened = verification(new_phone())
    await store.registrations.open_verification(opened, POLICY)
    verification_id = RANDOM.token(16) if spoil == "other" else opened.verification_id
    if spoil == "used":
        await store.registrations.redeem_code(opened.verification_id, b"right", TOKEN, START_MS)

    late_ms = opened.expire_ms if spoil == "expired" else START_MS
    with pytest.raises(VerificationNotFoundError):
        await store.registrations.redeem_code(verification_id, b"right", TOKEN, late_ms)


async def test_new_number_becomes_a_user_with_one_device(store: IdentityStore) -> None:
    phone = new_phone()

    device = await register(store, phone, "Ada")

    (profile,) = await store.profiles.profiles(device.user_id, [device.user_id])
    assert device.device_id == 1
    assert (profile.profile_name, profile.phone) == ("Ada", phone)
    assert [found.device_id for found in await store.devices.list_devices(device.user_id)] == [1]


async def test_retry_with_same_token_and_key_gets_same_answer(store: IdentityStore) -> None:
    token_hash = await token_for(store, new_phone())
    first = await store.registrations.register(registration(token_hash, key=b"k" * 32))

    again = await store.registrations.register(registration(token_hash, key=b"k" * 32))

    assert again == first


@pytest.mark.parametrize("spoil", ["used by another key", "expired", "unknown"])
async def test_token_works_once_in_its_time(store: IdentityStore, spoil: str) -> None:
    token_hash = await token_for(store, new_phone())
    now_ms = START_MS + 300_000 if spoil == "expired" else START_MS
    if spoil == "used by another key":
        await store.registrations.register(registration(token_hash))
    if spoil == "unknown":
        token_hash = RANDOM.token(32)

    with pytest.raises(InvalidRegistrationTokenError):
        await store.registrations.register(registration(token_hash, now_ms=now_ms))


async def test_registering_again_keeps_the_user_and_ends_everything_else(store: IdentityStore) -> None:
    phone = new_phone()
    old = await register(store, phone)
    second = await link(store, old)
    await store.sessions.open_session(sign_in(old))

    new = await register(store, phone, "Ada again")

    assert new == DeviceRef(old.user_id, DeviceId(3))
    assert [device.device_id for device in await store.devices.list_devices(old.user_id)] == [3]
    assert await store.sessions.list_sessions(old.user_id) == []
    assert ChangeKind.SESSION_REVOKED in await kinds_of(store, old.user_id)
    with pytest.raises(DeviceUnlinkedError):
        await store.sessions.open_session(sign_in(second))


async def test_registering_one_number_twice_at_once_makes_one_user(store: IdentityStore) -> None:
    phone = new_phone()
    tokens = [await token_for(store, phone) for _ in range(4)]

    results = await asyncio.gather(
        *(store.registrations.register(registration(token)) for token in tokens), return_exceptions=True
    )

    assert [result.device_id for result in results if isinstance(result, DeviceRef)] == [1]
    assert sum(isinstance(result, InvalidRegistrationTokenError) for result in results) == 3


async def test_registering_ends_the_other_tokens_of_the_number(store: IdentityStore) -> None:
    phone = new_phone()
    older, newer, of_another = [await token_for(store, number) for number in (phone, phone, new_phone())]
    owner = await store.registrations.register(registration(newer, key=b"k" * 32))

    with pytest.raises(InvalidRegistrationTokenError):
        await store.registrations.register(registration(older))

    assert [device.device_id for device in await store.devices.list_devices(owner.user_id)] == [1]
    assert await store.registrations.register(registration(newer, key=b"k" * 32)) == owner
    assert (await store.registrations.register(registration(of_another))).user_id != owner.user_id


async def test_registering_ends_the_open_verifications_of_the_number(store: IdentityStore) -> None:
    phone = new_phone()
    ours, of_another = verification(phone), verification(new_phone())
    for opened in (ours, of_another):
        await store.registrations.open_verification(opened, POLICY)
    await register(store, phone)

    with pytest.raises(VerificationNotFoundError):
        await store.registrations.redeem_code(ours.verification_id, b"right", TOKEN, START_MS)

    await store.registrations.redeem_code(of_another.verification_id, b"right", TOKEN, START_MS)
    # What was sent still counts: registering buys nobody another code.
    with pytest.raises(RateLimitedError):
        await store.registrations.open_verification(verification(phone), POLICY)


async def test_code_typed_while_its_number_registers_gives_no_token_that_works(store: IdentityStore) -> None:
    for _ in range(10):
        phone, grant = new_phone(), Grant(RANDOM.token(32), START_MS + 300_000)
        opened, token_hash = verification(phone), await token_for(store, phone)
        await store.registrations.open_verification(opened, SendPolicy(wait_ms=0, per_day=1000))

        await asyncio.gather(
            store.registrations.redeem_code(opened.verification_id, b"right", grant, START_MS),
            store.registrations.register(registration(token_hash)),
            return_exceptions=True,
        )

        with pytest.raises(InvalidRegistrationTokenError):
            await store.registrations.register(registration(grant.secret_hash))


async def test_device_has_one_session_until_it_is_revoked(store: IdentityStore) -> None:
    device = await register(store)
    first = await store.sessions.open_session(sign_in(device, b"1" * 16))
    second = await store.sessions.open_session(sign_in(device, b"2" * 16, START_MS + 5))

    await store.sessions.revoke_session(device.user_id, first.session_id, START_MS)
    third = await store.sessions.open_session(sign_in(device, b"3" * 16))

    assert second.session_id == first.session_id
    assert second.refresh_ms == START_MS + 5
    assert third.session_id != first.session_id
    assert third.generation == first.generation + 1


async def test_nonce_is_taken_once(store: IdentityStore) -> None:
    device = await register(store)
    await store.sessions.open_session(sign_in(device))

    with pytest.raises(InvalidProofError):
        await store.sessions.open_session(sign_in(device))


async def test_same_nonce_at_once_opens_one_session(store: IdentityStore) -> None:
    device = await register(store)

    results = await asyncio.gather(
        *(store.sessions.open_session(sign_in(device)) for _ in range(6)), return_exceptions=True
    )

    assert sum(isinstance(result, InvalidProofError) for result in results) == 5


async def test_revoking_twice_changes_nothing_more(store: IdentityStore) -> None:
    device = await register(store)
    session = await store.sessions.open_session(sign_in(device))
    await store.sessions.revoke_session(device.user_id, session.session_id, START_MS)
    newer = await store.sessions.open_session(sign_in(device, b"2" * 16))

    await store.sessions.revoke_session(device.user_id, session.session_id, START_MS)

    assert await store.sessions.list_sessions(device.user_id) == [newer]


async def test_session_of_another_user_cannot_be_revoked(store: IdentityStore) -> None:
    device, other = await register(store), await register(store)
    session = await store.sessions.open_session(sign_in(device))

    with pytest.raises(SessionNotFoundError):
        await store.sessions.revoke_session(other.user_id, session.session_id, START_MS)
    with pytest.raises(DeviceNotFoundError):
        await store.sessions.revoke_device(DeviceRef(other.user_id, DeviceId(9)), START_MS)

    assert await store.sessions.list_sessions(device.user_id) == [session]


async def test_revoking_a_device_ends_its_session(store: IdentityStore) -> None:
    device = await register(store)
    await store.sessions.open_session(sign_in(device))

    await store.sessions.revoke_device(device, START_MS)

    (user,) = await store.profiles.users([device.user_id])
    assert await store.sessions.list_sessions(device.user_id) == []
    assert (user.device_ids, user.generations) == ((1,), (2,))


async def test_two_newest_signing_keys_count(store: IdentityStore) -> None:
    keys = [draw_signing_key(RANDOM, START_MS + age, sign_from_ms=START_MS) for age in range(3)]

    stored = [await store.sessions.add_signing_key(key, is_first=False) for key in keys]
    is_first = await store.sessions.add_signing_key(draw_signing_key(RANDOM, 0, sign_from_ms=0), is_first=True)

    assert stored == [True, True, True]
    assert not is_first
    assert await store.sessions.signing_keys() == [keys[2], keys[1]]


async def test_linked_device_gets_the_next_id(store: IdentityStore) -> None:
    first = await register(store)

    second = await link(store, first)
    await store.devices.unlink_device(second, START_MS)
    third = await link(store, first)

    assert (second.device_id, third.device_id) == (2, 3)
    assert [device.device_id for device in await store.devices.list_devices(first.user_id)] == [1, 3]


@pytest.mark.parametrize("spoil", ["used by another key", "expired", "unknown"])
async def test_link_code_works_once_in_its_time(store: IdentityStore, spoil: str) -> None:
    code = await link_code(store, await register(store))
    if spoil == "used by another key":
        await store.devices.link_device(joining(code))

    now_ms = START_MS + 300_000 if spoil == "expired" else START_MS
    code = RANDOM.token(32) if spoil == "unknown" else code
    with pytest.raises(LinkCodeNotFoundError):
        await store.devices.link_device(joining(code, now_ms=now_ms))


async def test_retry_of_link_with_same_key_gets_same_answer(store: IdentityStore) -> None:
    code = await link_code(store, await register(store))

    answers = [await store.devices.link_device(joining(code, b"k" * 32)) for _ in range(2)]

    assert answers[0] == answers[1]


async def test_link_code_ends_with_the_device_that_asked_for_it(store: IdentityStore) -> None:
    owner = await register(store)
    stolen = await link(store, owner)
    code, own_code = await link_code(store, stolen), await link_code(store, owner)

    await store.devices.unlink_device(stolen, START_MS)

    with pytest.raises(LinkCodeNotFoundError):
        await store.devices.link_device(joining(code))
    assert (await store.devices.link_device(joining(own_code))).device_id == 3


async def test_link_code_from_before_registering_again_links_nobody(store: IdentityStore) -> None:
    phone = new_phone()
    code = await link_code(store, await register(store, phone))

    new = await register(store, phone)

    with pytest.raises(LinkCodeNotFoundError):
        await store.devices.link_device(joining(code))
    assert [device.device_id for device in await store.devices.list_devices(new.user_id)] == [2]


async def test_unlinked_device_gets_no_link_code(store: IdentityStore) -> None:
    device = await register(store)
    await store.devices.unlink_device(device, START_MS)

    with pytest.raises(DeviceUnlinkedError):
        await link_code(store, device)


async def test_ninth_device_is_refused_even_at_once(store: IdentityStore) -> None:
    device = await register(store)
    codes = [await link_code(store, device) for _ in range(9)]

    results = await asyncio.gather(
        *(store.devices.link_device(joining(code)) for code in codes), return_exceptions=True
    )

    linked = [result.device_id for result in results if isinstance(result, DeviceRef)]
    assert sorted(linked) == [2, 3, 4, 5, 6, 7, 8]
    assert sum(isinstance(result, TooManyDevicesError) for result in results) == 2
    with pytest.raises(TooManyDevicesError):
        await link_code(store, device)


async def test_unlinked_device_signs_in_no_more(store: IdentityStore) -> None:
    device = await register(store)
    await store.sessions.open_session(sign_in(device))

    await store.devices.unlink_device(device, START_MS)
    await store.devices.unlink_device(device, START_MS)

    with pytest.raises(DeviceUnlinkedError):
        await store.sessions.open_session(sign_in(device, b"2" * 16))
    assert (await kinds_of(store, device.user_id)).count(ChangeKind.DEVICES) == 2
    with pytest.raises(DeviceNotFoundError):
        await store.devices.unlink_device(DeviceRef(device.user_id, DeviceId(7)), START_MS)


async def test_profile_of_stranger_shows_the_name_only(store: IdentityStore) -> None:
    ada, bob = await register(store, name="Ada"), await register(store, name="Bob")
    await store.profiles.update_profile(bob.user_id, None, "At the telegraph")

    (seen, nobody) = await store.profiles.profiles(ada.user_id, [bob.user_id, NOBODY])

    assert (seen.profile_name, seen.about, seen.phone) == ("Bob", "", "")
    assert (nobody.version, nobody.profile_name) == (0, "")


async def test_contact_shows_number_that_was_typed_and_about_to_its_own_contacts(store: IdentityStore) -> None:
    phones = new_phone(), new_phone()
    ada, bob = await register(store, phones[0]), await register(store, phones[1], "Bob")
    await store.profiles.update_profile(bob.user_id, None, "At the telegraph")
    await store.contacts.add_contact(ada.user_id, phones[1], "Bobby", charge())
    await store.contacts.add_contact(bob.user_id, phones[0], "Ada", charge())

    (before,) = await store.profiles.profiles(ada.user_id, [bob.user_id])
    await store.contacts.block(bob.user_id, ada.user_id)
    (after,) = await store.profiles.profiles(ada.user_id, [bob.user_id])

    assert (before.phone, before.about) == (phones[1], "At the telegraph")
    assert (after.phone, after.about) == (phones[1], "")


async def test_profile_that_is_so_already_is_no_change(store: IdentityStore) -> None:
    owner = (await register(store, name="Ada")).user_id
    await store.profiles.update_profile(owner, None, None, b"")
    await store.profiles.update_profile(owner, None, "At the telegraph", b"p" * 16)
    before = await store.profiles.profiles(owner, [owner])

    await store.profiles.update_profile(owner, "Ada", "At the telegraph", b"p" * 16)
    await store.profiles.update_profile(owner, "Ada", None)

    assert await store.profiles.profiles(owner, [owner]) == before
    # One of registering and one of the text and the photo.
    assert (await kinds_of(store, owner)).count(ChangeKind.PROFILE) == 2


async def test_update_of_nobody_is_refused(store: IdentityStore) -> None:
    with pytest.raises(UserNotFoundError):
        await store.profiles.update_profile(NOBODY, "Nobody", None)


@pytest.mark.parametrize("text", ["'; DROP TABLE users; --", "%s %(x)s $1", "\\'\"", "名前 👩‍👩‍👧", "x" * 64])
async def test_text_is_stored_literally(store: IdentityStore, text: str) -> None:
    owner, phone = await register(store, name=text), new_phone()

    await store.profiles.update_profile(owner.user_id, None, text)
    await store.contacts.add_contact(owner.user_id, phone, text, charge())

    (profile,) = await store.profiles.profiles(owner.user_id, [owner.user_id])
    (contact,) = await store.contacts.list_contacts(owner.user_id, "", 10)
    assert (profile.profile_name, profile.about, contact.name) == (text, text, text)


async def test_contact_is_linked_when_its_number_registers(store: IdentityStore) -> None:
    owner, phone = await register(store), new_phone()
    before = await store.contacts.add_contact(owner.user_id, phone, "Bob", charge())

    bob = await register(store, phone)

    (after,) = await store.contacts.list_contacts(owner.user_id, "", 10)
    assert before.user_id is None
    assert after.user_id == bob.user_id
    assert (await kinds_of(store, owner.user_id)).count(ChangeKind.CONTACTS) == 2


async def test_adding_while_registering_always_links(store: IdentityStore) -> None:
    owner = await register(store)
    for _ in range(10):
        phone = new_phone()
        token_hash = await token_for(store, phone)

        _, bob = await asyncio.gather(
            store.contacts.add_contact(owner.user_id, phone, "Bob", charge()),
            store.registrations.register(registration(token_hash)),
        )

        found = await store.contacts.list_contacts(owner.user_id, "", 100)
        assert bob.user_id in {contact.user_id for contact in found}


async def test_contacts_are_renamed_removed_and_listed_by_number(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    numbers = [new_phone() for _ in range(4)]
    for phone in reversed(numbers):
        await store.contacts.add_contact(owner, phone, "old", charge())

    await store.contacts.add_contact(owner, numbers[1], "new", charge(limit=0))
    await store.contacts.remove_contact(owner, numbers[0])

    found = await store.contacts.list_contacts(owner, "", 2)
    rest = await store.contacts.list_contacts(owner, found[-1].phone, 2)
    assert [(contact.phone, contact.name) for contact in found] == [(numbers[1], "new"), (numbers[2], "old")]
    assert [contact.phone for contact in rest] == [numbers[3]]
    with pytest.raises(ContactNotFoundError):
        await store.contacts.remove_contact(owner, numbers[0])


async def test_own_number_is_no_contact(store: IdentityStore) -> None:
    phone = new_phone()
    owner = await register(store, phone)

    with pytest.raises(SelfNotAllowedError):
        await store.contacts.add_contact(owner.user_id, phone, "me", charge())


async def test_full_lists_take_no_more(store: IdentityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "MOST_CONTACTS", 1)
    monkeypatch.setattr(limit, "MOST_BLOCKS", 1)
    owner, bob, cid = [(await register(store)).user_id for _ in range(3)]
    await store.contacts.add_contact(owner, new_phone(), "one", charge())
    await store.contacts.block(owner, bob)
    await store.contacts.block(owner, bob)

    with pytest.raises(ListFullError):
        await store.contacts.add_contact(owner, new_phone(), "two", charge())
    with pytest.raises(ListFullError):
        await store.contacts.block(owner, cid)


async def test_lookups_answer_in_order_and_cost_their_number(store: IdentityStore) -> None:
    phone = new_phone()
    owner, bob = await register(store), await register(store, phone)
    asked = [new_phone(), phone, new_phone()]

    found = await store.contacts.lookup(owner.user_id, asked, charge(3, limit=5))

    assert found == [None, bob.user_id, None]
    with pytest.raises(RateLimitedError) as refused:
        await store.contacts.lookup(owner.user_id, asked, charge(3, limit=5))
    tomorrow_ms = START_MS + refused.value.retry_after_ms
    assert await store.contacts.lookup(owner.user_id, [phone], charge(1, 5, tomorrow_ms)) == [bob.user_id]


async def test_budget_of_a_day_is_not_fresh_again_where_it_is_still_the_day_before(store: IdentityStore) -> None:
    owner, phone = (await register(store)).user_id, new_phone()
    midnight_ms = START_MS - START_MS % DAY_MS + DAY_MS

    for now_ms in (midnight_ms, midnight_ms - 1):
        await store.contacts.lookup(owner, [phone], charge(2, limit=5, now_ms=now_ms))

    for now_ms in (midnight_ms - 1, midnight_ms):
        with pytest.raises(RateLimitedError):
            await store.contacts.lookup(owner, [phone], charge(2, limit=5, now_ms=now_ms))


async def test_lookups_at_once_stay_within_the_budget(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    phone = new_phone()

    results = await asyncio.gather(
        *(store.contacts.lookup(owner, [phone], charge(limit=5)) for _ in range(9)), return_exceptions=True
    )

    assert sum(isinstance(result, RateLimitedError) for result in results) == 4


async def test_blocks_are_listed_lifted_and_told_to_services(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    others = sorted([(await register(store)).user_id for _ in range(3)])
    for other in others:
        await store.contacts.block(owner, other)

    await store.contacts.unblock(owner, others[1])
    await store.contacts.unblock(owner, others[1])

    (user, unknown) = await store.profiles.users([owner, NOBODY])
    assert user.blocked == (others[0], others[2])
    assert await store.contacts.list_blocks(owner, b"", 1) == [others[0]]
    assert await store.contacts.list_blocks(owner, others[0], 5) == [others[2]]
    assert (unknown.version, unknown.blocked) == (0, ())
    assert (await kinds_of(store, owner)).count(ChangeKind.BLOCKS) == 4
    with pytest.raises(UserNotFoundError):
        await store.contacts.block(owner, NOBODY)


async def test_every_change_raises_the_version(store: IdentityStore) -> None:
    device, bob = await register(store), (await register(store)).user_id
    owner, versions = device.user_id, list[int]()

    async def version() -> int:
        return (await store.profiles.users([owner]))[0].version

    versions.append(await version())
    await store.profiles.update_profile(owner, "New", None)
    versions.append(await version())
    await store.contacts.block(owner, bob)
    versions.append(await version())
    await link(store, device)
    versions.append(await version())

    assert versions == sorted(set(versions))


async def test_writes_wake_the_reader_of_changes(store: IdentityStore, changed: asyncio.Event) -> None:
    owner = (await register(store)).user_id
    changed.clear()

    await store.profiles.update_profile(owner, "New", None)

    assert changed.is_set()


async def test_watchers_are_those_who_keep_the_user_and_are_not_blocked(store: IdentityStore) -> None:
    phone = new_phone()
    star = await register(store, phone)
    fans = [(await register(store)).user_id for _ in range(3)]
    for fan in fans:
        await store.contacts.add_contact(fan, phone, "star", charge())

    await store.contacts.block(star.user_id, fans[1])

    assert await store.changes.watchers(star.user_id) == sorted([fans[0], fans[2]])


async def test_one_process_leads_and_its_mark_outlives_it(store: IdentityStore) -> None:
    cursor = (await store.changes.read(None)).cursor

    async with store.changes.lead() as lead, store.changes.lead() as second:
        assert lead is not None
        assert second is None
        assert await lead.mark() is None
        await lead.move(cursor)

    async with store.changes.lead() as lead:
        assert lead is not None
        assert await lead.mark() == cursor
