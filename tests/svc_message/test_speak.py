"""What bots say: as whom, under which id, and with which outcome, over real loopback gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from chappe.api.edge.v1 import send_pb2
from chappe.api.message.v1 import message_service_pb2, message_service_pb2_grpc
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.bots_grpc import CAPACITY
from svc_message.model import DeviceId, MessageEvent, UserId
from svc_message.model.bot import Bot
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, TagCache, bot_message_id, is_uuid7
from tests.svc_message.desk import inbox
from tests.svc_message.doors import ALICE, BOB, GROUP, Doors, open_doors
from tests.svc_message.fakes import settle
from tests.svc_message.group_desk import group_of
from tests.svc_message.test_directory_grpc import Rig, rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from chappe.api.edge.v1 import server_frame_pb2
    from svc_message.model import Found, MessageRef

__all__ = ["rig"]

MESSAGES = message_service_pb2_grpc.MessageServiceStub
WEATHER = UserId(b"WWWWWW\x70W\x80WWWWWWW")
SPIFFE_ID = "spiffe://chappe.test/ns/chappe/sa/weather"


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with open_doors() as opened:
        opened.caller = "weather"
        opened.directory.add(WEATHER)
        opened.bots.bots[SPIFFE_ID] = Bot(WEATHER, DeviceId(1))
        opened.groups.add(group_of(GROUP, ALICE, BOB, WEATHER))
        yield opened


def request(doors: Doors, number: int = 1, text: bytes = b"rain", **to: Any) -> message_service_pb2.SendRequest:
    """Builds a request of this millisecond."""
    random = bytes([0x80]) + number.to_bytes(7, "big")
    message = send_pb2.SendMessage(
        **to or {"user_id": BOB},
        envelope=envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=text),
    )
    request_id = doors.clock.wall_ms().to_bytes(6, "big") + b"\x70\x05" + random
    return message_service_pb2.SendRequest(request_id=request_id, message=message)


async def say(doors: Doors, asked: message_service_pb2.SendRequest) -> message_service_pb2.SendResponse:
    response: message_service_pb2.SendResponse = await doors.call(MESSAGES, "Send", asked)
    return response


def reason(nack: server_frame_pb2.SendNack) -> str:
    return error_reason_pb2.ErrorReason.Name(nack.reason).removeprefix("ERROR_REASON_")


def test_the_id_of_a_message_is_that_of_its_request_with_the_tag_of_the_device() -> None:
    request_id = bytes.fromhex("01a2231b808e7abc9234567890abcdef")

    made = bot_message_id(request_id, WEATHER, 1)

    assert TagCache().owns(WEATHER, 1, made)
    assert made[:8] == request_id[:8]
    assert int.from_bytes(made[14:], "big") & 0x3FFF == int.from_bytes(request_id[14:], "big") & 0x3FFF
    assert is_uuid7(made)


async def test_a_bot_speaks_as_its_user_to_people_and_to_groups(doors: Doors) -> None:
    direct = await say(doors, request(doors))
    to_group = await say(doors, request(doors, 2, group_id=GROUP))
    await settle()

    events = [event for event in await inbox(doors.store, BOB) if isinstance(event, MessageEvent)]
    assert [event.sender_id for event in events] == [WEATHER, WEATHER]
    assert [event.message_id for event in events] == [direct.stored.message_id, to_group.stored.message_id]
    assert to_group.stored.conversation_id == GROUP


async def test_the_same_request_is_the_same_message_for_ever(doors: Doors) -> None:
    asked = request(doors)
    first = await say(doors, asked)
    doors.clock.pass_s(FIRST_ACCEPT_AGE_MS / 100)

    again = await say(doors, asked)
    other = await say(doors, request_with(asked, b"sun"))

    assert again.stored.message_id == first.stored.message_id
    assert (again.stored.accepted_ms, again.stored.is_duplicate) == (first.stored.accepted_ms, True)
    assert reason(other.refused) == "DUPLICATE_CONFLICT"
    assert not other.refused.is_retryable


def request_with(asked: message_service_pb2.SendRequest, text: bytes) -> message_service_pb2.SendRequest:
    """Returns a request with the same id and another text."""
    changed = message_service_pb2.SendRequest()
    changed.CopyFrom(asked)
    changed.message.envelope.content = text
    return changed


async def test_a_refused_request_is_refused_for_ever(doors: Doors) -> None:
    asked = request(doors, user_id=b"?" * 16)

    first = await say(doors, asked)
    doors.directory.add(UserId(b"?" * 16))
    again = await say(doors, asked)

    assert [reason(response.refused) for response in (first, again)] == ["RECIPIENT_NOT_FOUND", "STALE_MESSAGE_ID"]


async def test_blocks_and_groups_apply_to_bots(doors: Doors) -> None:
    doors.directory.block(BOB, WEATHER)
    doors.groups.add(group_of(GROUP, ALICE, BOB, version=2))

    blocked = await say(doors, request(doors))
    outside = await say(doors, request(doors, 2, group_id=GROUP))

    assert blocked.stored.message_id
    assert await inbox(doors.store, BOB) == []
    assert reason(outside.refused) == "NOT_IN_CONVERSATION"


async def test_requests_gather_while_a_flush_is_under_way(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    look, flushes = doors.store.find, doors.flushes.unsure
    under_way: list[MessageRef] = []

    async def look_slowly(refs: Sequence[MessageRef]) -> list[Found | None]:
        under_way.extend(refs)
        async with asyncio.timeout(30):
            while len(under_way) + flushes.pending < 20:
                await settle()
        return await look(refs)

    monkeypatch.setattr(doors.store, "find", look_slowly)
    responses = await asyncio.gather(*(say(doors, request(doors, number)) for number in range(20)))

    assert len({response.stored.message_id for response in responses}) == 20
    assert flushes.flushed_batches < 10


@pytest.mark.parametrize("request_id", [b"\x01" * 16, b"\x01" * 6 + b"\x70\x00" + b"\x00" * 8])
async def test_a_request_id_that_is_no_uuid7_is_refused(doors: Doors, request_id: bytes) -> None:
    asked = message_service_pb2.SendRequest(request_id=request_id, message=request(doors).message)

    refusal = await doors.refusal(MESSAGES, "Send", asked)

    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_FIELD", "request_id")


async def test_a_message_to_nobody_is_refused(doors: Doors) -> None:
    asked = request(doors)
    asked.message.ClearField("user_id")

    assert reason((await say(doors, asked)).refused) == "INVALID_FIELD"


async def test_an_old_request_and_one_of_the_future_are_told_the_time(doors: Doors) -> None:
    doors.clock.pass_s(10_000)
    old = request(doors)
    doors.clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 1)
    stale = await say(doors, old)
    doors.clock.pass_s(-10_000)
    early = await say(doors, old)

    assert (reason(stale.refused), reason(early.refused)) == ("STALE_MESSAGE_ID", "STALE_MESSAGE_ID")
    assert early.refused.server_ms == doors.clock.wall_ms()


async def test_a_program_that_is_no_bot_is_told_how_to_become_one(doors: Doors) -> None:
    doors.caller = "stranger"
    nobody = await doors.refusal(MESSAGES, "Send", request(doors))
    doors.caller = "weather"
    doors.directory.truth[WEATHER] = doors.directory.truth[WEATHER]._replace(is_active=False)
    doors.directory.copies.clear()
    gone = await doors.refusal(MESSAGES, "Send", request(doors))

    assert (nobody.reason, gone.reason) == ("USER_NOT_FOUND", "USER_NOT_FOUND")
    assert "svc_identity bot create" in nobody.message


async def test_nothing_is_said_through_a_ledger_that_stops(doors: Doors) -> None:
    await doors.rpc.drain()

    assert (await doors.refusal(MESSAGES, "Send", request(doors))).code == "UNAVAILABLE"


async def test_a_caller_that_has_gone_harms_nobody(doors: Doors) -> None:
    asked = request(doors)
    call = asyncio.ensure_future(say(doors, asked))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    again = await say(doors, asked)

    assert again.stored.message_id


async def test_bots_are_asked_for_once(rig: Rig) -> None:
    rig.identity.bots[SPIFFE_ID] = (WEATHER, 3)

    found = [await rig.directory.bots.find(SPIFFE_ID) for _ in range(2)]
    unknown = [await rig.directory.bots.find("spiffe://chappe.test/ns/chappe/sa/nobody") for _ in range(2)]

    assert found == [Bot(WEATHER, DeviceId(3))] * 2
    assert unknown == [None, None]
    assert rig.identity.bot_questions == 3


async def test_bots_are_forgotten_when_there_are_too_many(rig: Rig) -> None:
    names = [f"{SPIFFE_ID}-{number}" for number in range(CAPACITY + 1)]
    rig.identity.bots.update(dict.fromkeys(names, (WEATHER, 3)))
    rig.directory.bots._known = dict.fromkeys(names[:-1], Bot(WEATHER, DeviceId(3)))

    await rig.directory.bots.find(names[-1])
    await rig.directory.bots.find(names[0])

    assert rig.identity.bot_questions == 2


async def test_a_directory_that_is_silent_is_said_to_be(rig: Rig) -> None:
    rig.identity.is_down = True

    with pytest.raises(UnavailableError):
        await rig.directory.bots.find(SPIFFE_ID)
