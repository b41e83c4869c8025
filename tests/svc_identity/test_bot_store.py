"""What every BotStore does, in memory and on PostgreSQL, and its door."""

import asyncio

import pytest

from chappe.api.identity.v1 import directory_service_pb2
from chappe.runtime.clock import Seams
from chappe.runtime.errors import InvalidFieldError
from svc_identity.errors import UserNotFoundError
from svc_identity.ports import IdentityStore
from svc_identity.service.bot import BotRules
from tests.svc_identity.doors import DIRECTORY, config, open_door
from tests.svc_identity.people import RANDOM, ToldClock, charge, new_phone, register

WEATHER = "spiffe://chappe.test/ns/chappe/sa/weather"


async def test_bot_is_a_user_with_one_device_and_no_phone(store: IdentityStore, clock: ToldClock) -> None:
    rules = BotRules(store.bots, Seams(clock, RANDOM))

    bot = await rules.create(WEATHER, "Weather")

    (profile,) = await store.profiles.profiles(bot.user_id, [bot.user_id])
    (user,) = await store.profiles.users([bot.user_id])
    assert (profile.profile_name, profile.phone) == ("Weather", "")
    assert (user.device_ids, bot.device_id) == ((1,), 1)
    assert await rules.bot(WEATHER) == bot


async def test_making_a_bot_again_keeps_it(store: IdentityStore, clock: ToldClock) -> None:
    rules = BotRules(store.bots, Seams(clock, RANDOM))

    bots = await asyncio.gather(*(rules.create(WEATHER, f"Weather {number}") for number in range(4)))
    other = await rules.create(WEATHER + "2", "Weather")

    assert len(set(bots)) == 1
    assert other.user_id != bots[0].user_id


async def test_service_whose_name_is_longer_than_there_is_room_for_is_refused(
    store: IdentityStore, clock: ToldClock
) -> None:
    rules = BotRules(store.bots, Seams(clock, RANDOM))
    longest = WEATHER.ljust(255, "r")

    assert await rules.create(longest, "Weather")
    with pytest.raises(InvalidFieldError, match="at most 255 characters"):
        await rules.create(longest + "r", "Weather")


async def test_service_that_is_no_bot_speaks_as_nobody(store: IdentityStore, clock: ToldClock) -> None:
    with pytest.raises(UserNotFoundError, match="chappe bot create"):
        await BotRules(store.bots, Seams(clock, RANDOM)).bot(WEATHER)


async def test_bots_are_blocked_and_no_number_finds_them(store: IdentityStore, clock: ToldClock) -> None:
    bot = await BotRules(store.bots, Seams(clock, RANDOM)).create(WEATHER, "Weather")
    owner = (await register(store)).user_id

    await store.contacts.block(owner, bot.user_id)
    found = await store.contacts.lookup(owner, [new_phone()], charge())

    assert await store.contacts.list_blocks(owner, b"", 10) == [bot.user_id]
    assert found == [None]


async def test_ledger_learns_as_whom_a_service_speaks() -> None:
    async with open_door(config()) as door:
        bot = await BotRules(door.store.bots, Seams(door.clock, RANDOM)).create(WEATHER, "Weather")
        known, unknown = [directory_service_pb2.GetBotRequest(spiffe_id=name) for name in (WEATHER, WEATHER + "2")]

        answer = await door.call(DIRECTORY, "GetBot", known, caller="svc-message")

        assert (answer.user_id, answer.device_id) == bot
        refused = await door.refusal(DIRECTORY, "GetBot", unknown, caller="svc-message")
        assert refused == ("NOT_FOUND", "USER_NOT_FOUND")
        empty = directory_service_pb2.GetBotRequest()
        assert await door.refusal(DIRECTORY, "GetBot", empty, caller="svc-message") == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        )
