"""How a device comes to belong to a user: by a verified phone number, or by a code from a device that already does."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

from chappe.api.identity.v1 import device_service_pb2, registration_service_pb2
from chappe.client.connection import addresses_of
from chappe.client.device import Device, DeviceKey, plain_code
from chappe.client.door import Door
from chappe.client.errors import NotConnectedError, ProfileError, RefusedError
from chappe.client.methods import CHECK_VERIFICATION, LINK_DEVICE, REGISTER_ACCOUNT, START_VERIFICATION
from chappe.client.pending import Pending
from chappe.client.profiles import About, Draft, exists
from chappe.client.seams import system_seams

PLATFORM = "python"

AskCode = Callable[[], str | Awaitable[str]]
"""Asks the person for the one-time code that arrived on the phone; it may take its time, nothing is open meanwhile."""


async def enrol(door: Door, phone_number: str, name: str) -> Device:
    """Registers a phone number on a development system, where the code comes with the answer and nobody is asked.

    Returns:
        The number's first device; its earlier ones are unlinked.

    Raises:
        RefusedError: A number or a name was refused.
        ProfileError: A code is needed, and there is nobody to ask.
    """
    started = await _start(door, phone_number)
    token = await _check(door, started.verification_id, started.development_code or await _ask(None))
    return await _make_account(door, token, DeviceKey.generate(), name)


async def join(door: Door, code: str, key: DeviceKey | None = None) -> Device:
    """Returns a new device of the account that gave out a link code.

    Raises:
        RefusedError: The code is not one, or the account has enough devices.
    """
    key = key or DeviceKey.generate()
    request = device_service_pb2.LinkDeviceRequest(
        link_code=code, device_public_key=key.public, platform=PLATFORM, proof=key.link_proof(code)
    )
    linked = await door.call(LINK_DEVICE, request)
    return Device(linked.user_id, linked.device_id, key)


async def _verified(addresses: Sequence[str], phone_number: str, ask_code: AskCode | None) -> bytes:
    """Returns a registration token for a phone number."""
    async with _any_door(addresses) as door:
        started = await _start(door, phone_number)
        if started.development_code:
            return await _check(door, started.verification_id, started.development_code)
    # A person takes minutes, and an edge cuts off who shows no sign of life for 45 seconds.
    code = await _ask(ask_code)
    async with _any_door(addresses) as door:
        return await _check(door, started.verification_id, code)


async def _start(door: Door, phone_number: str) -> registration_service_pb2.StartVerificationResponse:
    return await door.call(
        START_VERIFICATION, registration_service_pb2.StartVerificationRequest(phone_number=phone_number)
    )


async def _check(door: Door, verification_id: bytes, code: str) -> bytes:
    """Returns the registration token that a code is worth."""
    request = registration_service_pb2.CheckVerificationRequest(verification_id=verification_id, code=code)
    checked = await door.call(CHECK_VERIFICATION, request)
    return checked.registration_token


async def _make_account(door: Door, token: bytes, key: DeviceKey, name: str) -> Device:
    account = await door.call(
        REGISTER_ACCOUNT,
        registration_service_pb2.RegisterAccountRequest(
            registration_token=token,
            device_public_key=key.public,
            profile_name=name,
            platform=PLATFORM,
            proof=key.registration_proof(token),
        ),
    )
    return Device(account.user_id, account.device_id, key)


async def register(
    address: str | Sequence[str],
    phone_number: str,
    *,
    name: str,
    profile: str | Path,
    ask_code: AskCode | None = None,
    is_replacing: bool = False,
) -> About:
    """Registers a phone number and makes a profile of its first device.

    The key is on the disk before the account is made: when the answer was lost, or this process was killed, the same
    again within 5 minutes goes on with it, and asks for no other code.

    Args:
        address: Of one edge or several.
        phone_number: As E.164, for example +441632960002.
        name: What others see.
        profile: A name, or the path of a folder.
        ask_code: Asks for the one-time code; not needed on a development system.
        is_replacing: A profile that exists is replaced, with all its messages.

    Raises:
        ProfileError: The profile exists already, is in use, or cannot be written.
        RefusedError: A number, a code or a name was refused.
        NotConnectedError: No edge answers.
    """
    addresses = _prepared(address, profile, is_replacing=is_replacing)
    with closing(Draft.hold(profile)) as draft:
        device = await _resumed(addresses, draft, phone_number, name)
        if device is None:
            token = await _verified(addresses, phone_number, ask_code)
            key = DeviceKey.generate()
            draft.keep(Pending(key=key, secret=token.hex(), phone_number=phone_number))
            async with _any_door(addresses) as door:
                device = await _make_account(door, token, key, name)
        about = About(
            user_id=device.user_id.hex(),
            device_id=device.device_id,
            phone_number=phone_number,
            name=name,
            addresses=tuple(addresses),
        )
        draft.become(about, device.key)
    return about


async def link(address: str | Sequence[str], code: str, *, profile: str | Path, is_replacing: bool = False) -> About:
    """Makes this machine a further device of the account that gave out the code, with a profile of its own.

    The key is on the disk before: when the answer was lost, the same again goes on with it while the code lives.

    Raises:
        ProfileError: The profile exists already, is in use, or cannot be written.
        RefusedError: The code is not one, or the account has enough devices.
        NotConnectedError: No edge answers.
    """
    addresses = _prepared(address, profile, is_replacing=is_replacing)
    with closing(Draft.hold(profile)) as draft:
        asked = draft.pending
        if asked is None or asked.phone_number or asked.secret != plain_code(code):
            asked = Pending(key=DeviceKey.generate(), secret=plain_code(code))
            draft.keep(asked)
        async with _any_door(addresses) as door:
            device = await join(door, code, asked.key)
        about = About(user_id=device.user_id.hex(), device_id=device.device_id, addresses=tuple(addresses))
        draft.become(about, device.key)
    return about


async def _resumed(addresses: Sequence[str], draft: Draft, phone_number: str, name: str) -> Device | None:
    """Returns the device that was asked for before, by a process that did not get the answer; None for none."""
    asked = draft.pending
    # What has no number is a link code, and no token.
    if asked is None or not asked.phone_number or asked.phone_number != phone_number:
        return None
    try:
        async with _any_door(addresses) as door:
            return await _make_account(door, bytes.fromhex(asked.secret), asked.key, name)
    except RefusedError as error:
        if error.reason != "INVALID_REGISTRATION_TOKEN":
            raise
        return None


def _prepared(address: str | Sequence[str], profile: str | Path, *, is_replacing: bool) -> list[str]:
    addresses = addresses_of(address)
    if exists(profile) and not is_replacing:
        raise ProfileError(
            f"there is a profile {profile} already; choose another name, or replace it with all its messages: "
            "--replace on the command line, is_replacing=True in Python"
        )
    return addresses


@asynccontextmanager
async def _any_door(addresses: Sequence[str]) -> AsyncGenerator[Door]:
    async with AsyncExitStack() as stack:
        yield await _enter_any(stack, addresses)


async def _enter_any(stack: AsyncExitStack, addresses: Sequence[str]) -> Door:
    for address in addresses[:-1]:
        with suppress(NotConnectedError):
            return await stack.enter_async_context(Door(address, system_seams()))
    return await stack.enter_async_context(Door(addresses[-1], system_seams()))


async def _ask(ask_code: AskCode | None) -> str:
    if ask_code is None:
        raise ProfileError("a one-time code was sent to the phone; give `ask_code` so that it can be asked for")
    answer = ask_code()
    return await answer if inspect.isawaitable(answer) else answer
