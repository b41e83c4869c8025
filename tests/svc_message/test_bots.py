"""What a program of the mesh needs in order to speak as a user, against a whole ledger over real loopback gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chappe.bots import Bot
from chappe.client.errors import NotConnectedError, RefusedError
from chappe.runtime.clock import Seams, SystemRandomness
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import MessageEvent, UserId
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, FUTURE_BOUND_MS, is_uuid7
from tests.svc_message.desk import inbox
from tests.svc_message.doors import BOB, GROUP, Doors
from tests.svc_message.fakes import ManualClock, settle
from tests.svc_message.test_speak import WEATHER, doors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["doors"]


class FixedRandomness(SystemRandomness):
    """Draws nothing but zeros."""

    def token(self, length: int) -> bytes:
        return bytes(length)


@pytest.fixture
async def clock(doors: Doors) -> ManualClock:
    """Returns the program's own clock, which agrees with the ledger's at first."""
    return ManualClock(doors.clock.wall_ms())


@pytest.fixture
async def bot(doors: Doors, clock: ManualClock) -> AsyncIterator[Bot]:
    async with Bot(doors.address, None, seams=Seams(clock, SystemRandomness())) as opened:
        yield opened


async def said(doors: Doors, user_id: UserId = BOB) -> list[MessageEvent]:
    await settle()
    return [event for event in await inbox(doors.store, user_id) if isinstance(event, MessageEvent)]


async def test_a_bot_speaks_to_people_and_to_groups(doors: Doors, bot: Bot) -> None:
    direct = await bot.send(BOB, "rain", expiry_s=60)
    to_group = await bot.send_to_group(GROUP, "sun")

    first, second = await said(doors)
    assert (first.sender_id, first.message_id, first.accepted_ms) == (WEATHER, direct.message_id, direct.accepted_ms)
    assert (second.conversation_id, second.message_id) == (GROUP, to_group.message_id)
    assert (b"rain" in first.envelope, first.expires_ms) == (True, direct.accepted_ms + 60_000)
    assert first.message_id < second.message_id


async def test_the_same_request_id_says_the_same_only_once(doors: Doors, bot: Bot) -> None:
    request_id = bot.new_request_id()

    first = await bot.send(BOB, "rain", request_id=request_id)
    again = await bot.send(BOB, "rain", request_id=request_id)

    assert is_uuid7(request_id)
    assert first == again
    assert len({event.message_id for event in await said(doors)}) == 1
    with pytest.raises(RefusedError) as refusal:
        await bot.send(BOB, "sun", request_id=request_id)
    assert refusal.value.reason == "DUPLICATE_CONFLICT"


async def test_a_request_id_that_was_kept_for_too_long_tells_whether_anything_was_said(
    doors: Doors, bot: Bot, clock: ManualClock
) -> None:
    said_id, unsaid_id = bot.new_request_id(), bot.new_request_id()
    first = await bot.send(BOB, "rain", request_id=said_id)
    doors.clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 60)
    clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 60)

    again = await bot.send(BOB, "rain", request_id=said_id)
    with pytest.raises(RefusedError) as refusal:
        await bot.send(BOB, "sun", request_id=unsaid_id)
    anew = await bot.send(BOB, "sun")

    assert again == first
    assert refusal.value.reason == "STALE_MESSAGE_ID"
    # A device drops what comes under an id that it has.
    assert {event.message_id for event in await said(doors)} == {first.message_id, anew.message_id}


async def test_what_is_refused_for_good_is_raised_with_its_reason(doors: Doors, bot: Bot) -> None:
    with pytest.raises(RefusedError) as nobody:
        await bot.send(b"?" * 16, "rain")
    doors.caller = "stranger"
    with pytest.raises(RefusedError) as no_bot:
        await bot.send(BOB, "rain")

    assert (nobody.value.reason, no_bot.value.reason) == ("RECIPIENT_NOT_FOUND", "USER_NOT_FOUND")


@pytest.mark.parametrize("ahead_s", [FUTURE_BOUND_MS / 1000 + 5, -3600])
async def test_a_clock_that_is_wrong_is_corrected(doors: Doors, bot: Bot, clock: ManualClock, ahead_s: float) -> None:
    clock.step_s(ahead_s)

    spoken = await bot.send(BOB, "rain")

    assert spoken.accepted_ms == doors.clock.wall_ms()
    assert len(await said(doors)) == 1


async def test_an_id_that_another_replica_has_taken_is_replaced(doors: Doors) -> None:
    # Two programs that draw the same in the same millisecond.
    for text in ("rain", "sun"):
        seams = Seams(ManualClock(doors.clock.wall_ms()), FixedRandomness())
        async with Bot(doors.address, None, seams=seams) as bot:
            await bot.send(BOB, text)

    first, second = await said(doors)
    assert (b"rain" in first.envelope, b"sun" in second.envelope) == (True, True)


async def test_ids_that_cannot_be_used_again_and_again_are_told(
    doors: Doors, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = bot.new_request_id()
    await bot.send(BOB, "rain", request_id=taken)
    monkeypatch.setattr(bot, "new_request_id", lambda: taken)

    with pytest.raises(RefusedError, match="DUPLICATE_CONFLICT"):
        await bot.send(BOB, "sun")

    assert len(await said(doors)) == 1


async def test_a_ledger_that_is_down_is_asked_until_it_answers(
    doors: Doors, bot: Bot, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors.clock.step_s(0.2)
    accept, failures = MemoryMessageStore.accept, [RuntimeError("a bug")] * 3

    async def fail(self: MemoryMessageStore, batch: object) -> object:
        if failures:
            raise failures.pop()
        return await accept(self, batch)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(MemoryMessageStore, "accept", fail)

    spoken = await bot.send(BOB, "rain")

    assert [event.message_id for event in await said(doors)] == [spoken.message_id]
    assert clock.monotonic_s() > 1000


async def test_a_bug_on_the_other_side_is_no_final_answer(
    doors: Doors, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, failures = doors.bots.find, [RuntimeError("a bug")] * 2

    async def fail(spiffe_id: str) -> object:
        if failures:
            raise failures.pop()
        return await find(spiffe_id)

    monkeypatch.setattr(doors.bots, "find", fail)

    spoken = await bot.send(BOB, "rain")

    assert [event.message_id for event in await said(doors)] == [spoken.message_id]


async def test_no_answer_in_time_is_told_and_may_be_asked_for_again(doors: Doors, bot: Bot) -> None:
    doors.bots.is_down = True
    request_id = bot.new_request_id()

    with pytest.raises(NotConnectedError, match="svc_identity"):
        await bot.send(BOB, "rain", request_id=request_id, timeout_s=0.3)
    doors.bots.is_down = False
    await bot.send(BOB, "rain", request_id=request_id)

    assert len(await said(doors)) == 1


async def test_what_an_earlier_message_met_is_not_told_of_one_that_got_no_answer(
    doors: Doors, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, failures = doors.bots.find, [RuntimeError("a bug")]

    async def fail_once_and_then_stay_silent(spiffe_id: str) -> object:
        if failures:
            raise failures.pop()
        return await find(spiffe_id)

    async def stay_silent(_: str) -> object:
        return await asyncio.Event().wait()

    monkeypatch.setattr(doors.bots, "find", fail_once_and_then_stay_silent)
    await bot.send(BOB, "rain")
    monkeypatch.setattr(doors.bots, "find", stay_silent)

    with pytest.raises(NotConnectedError) as unanswered:
        await bot.send(BOB, "sun", timeout_s=0.2)

    assert str(unanswered.value) == f"no answer of svc_message at {doors.address} in 0.2 s"
