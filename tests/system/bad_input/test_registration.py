"""What people may not do to get an account, by the numbers of the list of attacks, on the real system."""

import itertools
from collections.abc import AsyncIterator

import pytest

from chappe.api.identity.v1 import registration_service_pb2 as wire
from chappe.cli.launcher import Mesh
from chappe.client.device import DeviceKey
from chappe.client.door import Door
from chappe.client.errors import RefusedError
from chappe.client.methods import CHECK_VERIFICATION, REGISTER_ACCOUNT, START_VERIFICATION, Answer, Method, Question
from chappe.client.seams import system_seams
from tests.system.bad_input.people import Person

pytestmark = pytest.mark.system

_phones = (f"+1303{number:07}" for number in itertools.count(5550000))


@pytest.fixture
async def door(mesh: Mesh) -> AsyncIterator[Door]:
    """A connection of somebody who has no account."""
    async with Door(mesh.ws[0], system_seams()) as opened:
        yield opened


async def started(door: Door, phone: str = "") -> wire.StartVerificationResponse:
    return await door.call(START_VERIFICATION, wire.StartVerificationRequest(phone_number=phone or next(_phones)))


def check(verification: wire.StartVerificationResponse, code: str = "") -> wire.CheckVerificationRequest:
    code = code or verification.development_code
    return wire.CheckVerificationRequest(verification_id=verification.verification_id, code=code)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def register(token: bytes, key: DeviceKey, proof_of: bytes = b"") -> wire.RegisterAccountRequest:
    return wire.RegisterAccountRequest(
        registration_token=token,
        device_public_key=key.public,
        profile_name="Somebody",
        proof=key.registration_proof(proof_of or token),
    )


async def refusal(door: Door, method: Method[Question, Answer], question: Question) -> str:
    """Calls a method that has to refuse; returns why it did."""
    with pytest.raises(RefusedError) as caught:
        await door.call(method, question)
    return caught.value.reason


async def test_25_the_sixth_guess_is_refused_even_when_it_is_right(door: Door) -> None:
    verification = await started(door)
    guess = check(verification, wrong(verification.development_code))

    guesses = [await refusal(door, CHECK_VERIFICATION, guess) for _ in range(5)]

    assert guesses == ["WRONG_CODE"] * 5
    assert await refusal(door, CHECK_VERIFICATION, check(verification)) == "RATE_LIMITED"


async def test_25_a_code_counts_for_its_own_verification_alone_and_once(door: Door) -> None:
    mine, other = await started(door), await started(door)
    if mine.development_code == other.development_code:
        other = await started(door)

    assert await refusal(door, CHECK_VERIFICATION, check(mine, other.development_code)) == "WRONG_CODE"
    assert await refusal(
        door, CHECK_VERIFICATION, check(wire.StartVerificationResponse(verification_id=bytes(16)), "123456")
    ) == ("VERIFICATION_NOT_FOUND")
    assert (await door.call(CHECK_VERIFICATION, check(mine))).registration_token
    assert await refusal(door, CHECK_VERIFICATION, check(mine)) == "VERIFICATION_NOT_FOUND"


async def test_26_a_number_with_an_account_is_answered_like_one_without(mesh: Mesh, door: Door) -> None:
    known, unknown = next(_phones), next(_phones)
    await Person.register(mesh.ws[0], known)

    answers = [await started(door, phone) for phone in (known, unknown)]

    shapes = [[field.name for field, _ in answer.ListFields()] for answer in answers]
    assert shapes[0] == shapes[1]
    assert [len(answer.verification_id) for answer in answers] == [16, 16]
    assert answers[0].resend_after_ms == answers[1].resend_after_ms


async def test_26_a_flood_from_one_connection_is_refused(door: Door) -> None:
    reasons = []
    for _ in range(25):
        try:
            await started(door)
        except RefusedError as error:
            reasons.append((error.reason, error.retry_after_ms > 0))

    assert reasons
    assert set(reasons) == {("RATE_LIMITED", True)}


async def test_27_a_used_registration_token_makes_no_other_device(door: Door) -> None:
    token = (await door.call(CHECK_VERIFICATION, check(await started(door)))).registration_token
    key, other = DeviceKey.generate(), DeviceKey.generate()
    account = await door.call(REGISTER_ACCOUNT, register(token, key))

    assert await refusal(door, REGISTER_ACCOUNT, register(token, other)) == "INVALID_REGISTRATION_TOKEN"
    assert await door.call(REGISTER_ACCOUNT, register(token, key)) == account


async def test_27_a_registration_token_that_nobody_got_or_whose_proof_is_for_another_is_refused(door: Door) -> None:
    token, other = [
        (await door.call(CHECK_VERIFICATION, check(await started(door)))).registration_token for _ in range(2)
    ]
    key = DeviceKey.generate()

    assert await refusal(door, REGISTER_ACCOUNT, register(bytes(32), key)) == "INVALID_REGISTRATION_TOKEN"
    assert await refusal(door, REGISTER_ACCOUNT, register(token, key, other)) == "INVALID_PROOF"
