"""What people may not do to messages, by the numbers of the list of attacks, on the real system."""

import secrets
import uuid
from typing import Any

import psycopg
import pytest

from chappe.api.edge.v1 import client_frame_pb2, send_pb2
from chappe.api.message.v1 import conversation_service_pb2
from chappe.api.type.v1 import envelope_pb2, position_pb2, receipt_state_pb2
from chappe.cli.launcher import Mesh
from chappe.client.methods import LIST_CONVERSATIONS
from chappe.client.mint import conversation_of
from tests.system.bad_input.conftest import Newcomer
from tests.system.bad_input.people import SUITE_NONE, Person, message_to, now_ms, reason_of

pytestmark = pytest.mark.system

DELIVERED = receipt_state_pb2.RECEIPT_STATE_DELIVERED
READ = receipt_state_pb2.RECEIPT_STATE_READ
DAY_MS = 24 * 3600 * 1000


def with_unknown(message: Any, *fields: tuple[int, bytes]) -> bytes:
    """Returns a serialised message with further fields that its contract does not have."""
    extra = b"".join(tag(number) + bytes((len(value),)) + value for number, value in fields)
    return bytes(message.SerializeToString()) + extra


def tag(number: int) -> bytes:
    """Returns the tag of a length-delimited field below 2048."""
    key = number << 3 | 2
    return bytes((key,)) if key < 128 else bytes((key & 0x7F | 0x80, key >> 7))


@pytest.mark.parametrize("field", [8, 15, 20, 100])
async def test_41_the_sender_is_the_principal_whatever_else_a_send_claims(
    alice: Person, bob: Person, mallory: Person, field: int
) -> None:
    body = with_unknown(message_to(bob.user_id), (field, alice.user_id))
    message_id = mallory.new_id()

    ack = await mallory.submit(
        b"\x0a\x10" + message_id + b"\x10\x01\x1a" + bytes((len(body),)) + body + tag(field) + b"\x10" + alice.user_id
    )

    assert ack.conversation_id == conversation_of(mallory.user_id, bob.user_id)
    [arrived] = await bob.client.messages(1)
    assert arrived.sender_user_id == mallory.user_id
    assert await alice.history(bob) == []


async def test_41_an_id_of_another_device_is_refused(alice: Person, resident: Person, mallory: Person) -> None:
    nack = await mallory.say(resident, message_id=alice.new_id())

    assert (reason_of(nack), nack.is_retryable) == ("INVALID_MESSAGE_ID", False)
    assert "mint tag of this device" in nack.detail


async def test_42_the_same_message_again_is_one_message_with_one_answer(alice: Person, bob: Person) -> None:
    message_id = alice.new_id()

    first = await alice.say(bob, message_id=message_id)
    answers = [await alice.say(bob, message_id=message_id, attempt=attempt) for attempt in (1, 2, 3, 1_000_000)]

    assert not first.is_duplicate
    assert {answer.accepted_ms for answer in answers} == {first.accepted_ms}
    assert all(answer.is_duplicate for answer in answers[1:])
    assert [stored.message.message_id for stored in await bob.history(alice)] == [message_id]


@pytest.mark.parametrize("attempt", [1, 2])
async def test_42_other_content_under_a_used_id_is_refused_and_the_first_is_kept(
    alice: Person, bob: Person, attempt: int
) -> None:
    message_id = alice.new_id()
    await alice.say(bob, b"first", message_id=message_id)

    nack = await alice.say(bob, b"second", message_id=message_id, attempt=attempt)

    assert (reason_of(nack), nack.is_retryable) == ("DUPLICATE_CONFLICT", False)
    assert "used before with other content; the first is kept" in nack.detail
    [stored] = await bob.history(alice)
    assert stored.message.envelope.content == b"first"


@pytest.mark.parametrize("attempt", [1, 2])
async def test_42_a_used_id_in_another_conversation_shows_nobody_what_was_for_another(
    alice: Person, bob: Person, mallory: Person, attempt: int
) -> None:
    message_id = alice.new_id()
    await alice.say(bob, b"for bob", message_id=message_id)

    await alice.say(mallory, b"for mallory", message_id=message_id, attempt=attempt)

    assert [stored.message.envelope.content for stored in await bob.history(alice)] == [b"for bob"]
    assert [stored.message.envelope.content for stored in await mallory.history(alice)] == [b"for mallory"]


@pytest.mark.parametrize(
    ("offset_ms", "reason", "words"),
    [
        pytest.param(10_000, "CLOCK_SKEW", "in the future; correct the clock", id="ten seconds ahead"),
        pytest.param(1000 * 365 * DAY_MS, "CLOCK_SKEW", "in the future; correct the clock", id="year 3000"),
        pytest.param(-11 * 60_000, "STALE_MESSAGE_ID", "too old to be accepted", id="eleven minutes old"),
        pytest.param(-50 * 365 * DAY_MS, "STALE_MESSAGE_ID", "too old to be accepted", id="1976"),
    ],
)
@pytest.mark.parametrize("attempt", [1, 2])
async def test_43_ids_of_another_time_are_refused(
    alice: Person, resident: Person, offset_ms: int, reason: str, words: str, attempt: int
) -> None:
    before_ms = now_ms()

    nack = await alice.say(resident, message_id=alice.new_id(before_ms + offset_ms), attempt=attempt)

    assert (reason_of(nack), nack.is_retryable) == (reason, False)
    assert words in nack.detail
    assert before_ms <= nack.server_ms <= now_ms()
    assert await alice.history(resident) == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: bytes(16), id="zeroes"),
        pytest.param(lambda _: b"\xff" * 16, id="ones"),
        pytest.param(lambda good: good[:6] + bytes((good[6] & 0x0F | 0x40,)) + good[7:], id="version 4"),
        pytest.param(lambda good: good[:8] + bytes((good[8] | 0xC0,)) + good[9:], id="other variant"),
        pytest.param(lambda good: good[:10] + bytes((good[10] ^ 1,)) + good[11:], id="one bit of the tag"),
    ],
)
async def test_43_ids_that_no_device_could_have_made_are_refused(alice: Person, resident: Person, spoil: Any) -> None:
    nack = await alice.say(resident, message_id=spoil(alice.new_id()))

    assert reason_of(nack) == "INVALID_MESSAGE_ID"
    assert nack.detail.startswith("message_id: not a UUIDv7")


@pytest.mark.parametrize(
    ("send", "words"),
    [
        pytest.param({"message_id": b""}, "message_id: has 0 bytes, must have 16", id="no id"),
        pytest.param({"message_id": bytes(15)}, "message_id: has 15 bytes, must have 16", id="short id"),
        pytest.param({"attempt": 0}, "attempt: must be set", id="attempt 0"),
        pytest.param({"attempt": 2**32 - 1}, "attempt: is 4294967295, the most is 1000000", id="attempt 2^32 - 1"),
    ],
)
async def test_43_numbers_outside_their_limits_are_named(
    alice: Person, resident: Person, send: dict[str, Any], words: str
) -> None:
    fields: dict[str, Any] = {"message_id": alice.new_id(), "attempt": 1} | send

    nack = await alice.submit(send_pb2.Send(message=message_to(resident.user_id), **fields))

    assert (reason_of(nack), nack.detail) == ("INVALID_FIELD", words)


@pytest.mark.parametrize("client_ms", [0, -1, -(2**63), 2**63 - 1])
async def test_43_times_that_mean_nothing_to_the_server_are_only_repeated(alice: Person, client_ms: int) -> None:
    alice.client.send(ping=client_frame_pb2.Ping(client_ms=client_ms))

    assert (await alice.client.expect("pong")).client_ms == client_ms


async def test_44_a_conversation_cannot_be_named_so_nobody_gets_into_one(
    alice: Person, bob: Person, mallory: Person, newcomer: Newcomer
) -> None:
    carol, theirs = await newcomer(), conversation_of(alice.user_id, bob.user_id)
    body = with_unknown(message_to(carol.user_id), (13, theirs), (15, theirs))

    ack = await mallory.submit(
        b"\x0a\x10" + mallory.new_id() + b"\x10\x01\x1a" + bytes((len(body),)) + body + tag(15) + b"\x10" + theirs
    )

    assert ack.conversation_id == conversation_of(mallory.user_id, carol.user_id)
    assert await alice.history(bob) == await bob.history(alice) == []


async def test_44_a_conversation_is_no_group(alice: Person, bob: Person, mallory: Person) -> None:
    message = message_to(bob.user_id)
    message.group_id = conversation_of(alice.user_id, bob.user_id)

    nack = await mallory.submit(send_pb2.Send(message_id=mallory.new_id(), attempt=1, message=message))

    assert (reason_of(nack), nack.is_retryable) == ("NOT_IN_CONVERSATION", False)
    assert await alice.history(bob) == await bob.history(alice) == []


@pytest.mark.parametrize("is_conversation", [True, False])
async def test_44_what_is_no_user_is_no_recipient(
    alice: Person, bob: Person, mallory: Person, *, is_conversation: bool
) -> None:
    named = conversation_of(alice.user_id, bob.user_id) if is_conversation else secrets.token_bytes(16)

    nack = await mallory.submit(send_pb2.Send(message_id=mallory.new_id(), attempt=1, message=message_to(named)))

    assert (reason_of(nack), nack.detail) == ("RECIPIENT_NOT_FOUND", "message.user_id: there is no such user")


async def receipts_of(person: Person) -> list[int]:
    """Returns the receipts in the log of a person, read anew from its beginning."""
    await person.sign_in()
    return [state for item in person.client.seen for state in item.receipt.states]


async def test_47_a_receipt_for_a_message_between_others_changes_nothing(
    alice: Person, bob: Person, mallory: Person
) -> None:
    ack = await alice.say(bob)

    await mallory.read(alice.user_id, message_ids=[ack.message_id])
    await mallory.read(alice.user_id, read_upto=ack.message_id)
    mallory.client.send(ack=client_frame_pb2.Ack(message_ids=[ack.message_id]))
    await mallory.client.ping()

    [stored] = await alice.history(bob)
    assert stored.state < READ
    assert READ not in await receipts_of(alice)


async def test_47_a_receipt_for_ones_own_message_changes_nothing(alice: Person, bob: Person) -> None:
    ack = await alice.say(bob)

    await alice.read(bob.user_id, message_ids=[ack.message_id])
    await alice.read(alice.user_id, message_ids=[ack.message_id])
    await alice.read(bob.user_id, read_upto=ack.message_id)

    [stored] = await alice.history(bob)
    assert stored.state < READ


async def test_47_a_receipt_for_what_was_never_sent_makes_nothing(mesh: Mesh, alice: Person, bob: Person) -> None:
    await bob.read(alice.user_id, message_ids=[alice.new_id(), bob.new_id(), secrets.token_bytes(16)])
    await bob.read(alice.user_id, read_upto=alice.new_id())

    assert await bob.history(alice) == []
    assert await receipts_of(alice) == []
    async with await psycopg.AsyncConnection.connect(mesh.foundation.postgres.dsn, dbname="chappe_ledger") as ledger:
        found = await ledger.execute(
            "SELECT count(*) FROM receipts WHERE user_id = %s", (uuid.UUID(bytes=bob.user_id),)
        )
        assert await found.fetchone() == (0,)


async def test_47_a_receipt_never_falls_and_is_told_once(alice: Person, bob: Person) -> None:
    ack = await alice.say(bob)
    await bob.client.messages(1)

    await bob.read(alice.user_id, message_ids=[ack.message_id])
    await bob.read(alice.user_id, message_ids=[ack.message_id])
    bob.client.ack(len(bob.client.seen))
    bob.client.send(ack=client_frame_pb2.Ack(message_ids=[ack.message_id]))
    await bob.client.ping()
    await bob.read(alice.user_id, read_upto=ack.message_id)

    [stored] = await alice.history(bob)
    assert stored.state == READ
    assert (await receipts_of(alice)).count(READ) == 1


async def test_47_what_is_read_does_not_fall_when_an_earlier_place_is_named(alice: Person, bob: Person) -> None:
    first, second = [await alice.say(bob) for _ in range(2)]

    await bob.read(alice.user_id, read_upto=second.message_id)
    await bob.read(alice.user_id, read_upto=first.message_id)

    assert [stored.state for stored in await alice.history(bob)] == [READ, READ]
    [chat] = (await bob.call(LIST_CONVERSATIONS, conversation_service_pb2.ListConversationsRequest())).conversations
    assert (chat.read_upto, chat.unread_count) == (second.message_id, 0)


@pytest.mark.parametrize("place", [b"\xff" * 16, b"\xff" * 6 + b"\x7f" + b"\xff" * 9])
async def test_47_a_place_in_the_future_is_not_read_in_advance(alice: Person, bob: Person, place: bytes) -> None:
    await alice.say(bob)

    await bob.read(alice.user_id, read_upto=place)
    await alice.say(bob, b"later")

    later, _ = await alice.history(bob)
    assert (later.message.envelope.content, later.state < READ) == (b"later", True)
    [chat] = (await bob.call(LIST_CONVERSATIONS, conversation_service_pb2.ListConversationsRequest())).conversations
    assert chat.unread_count == 1


@pytest.mark.parametrize(
    ("named", "words"),
    [
        pytest.param({}, "read: name read_upto or message_ids", id="nothing"),
        pytest.param({"read_upto": bytes(15)}, "read.read_upto: has 15 bytes, must have 16", id="short place"),
        pytest.param({"message_ids": [bytes(16), b"x"]}, "read.message_ids[1]: has 1 bytes, must have 16", id="short"),
        pytest.param({"message_ids": [bytes(16)] * 257}, "read.message_ids: has 257 items, the most is 256", id="257"),
    ],
)
async def test_47_reads_outside_their_limits_are_named(
    alice: Person, resident: Person, named: dict[str, Any], words: str
) -> None:
    nack = await alice.read(resident.user_id, **named)

    assert (reason_of(nack), nack.detail) == ("INVALID_FIELD", words)


def sealed(content: bytes = b"x", suite: int = SUITE_NONE) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=suite, content=content)  # type: ignore[arg-type]  # numbers of the future too


async def test_57_content_of_64_kib_is_taken(alice: Person, bob: Person) -> None:
    ack = await alice.say(bob, b"x" * 65_536)

    assert ack.accepted_ms
    [stored] = await bob.history(alice)
    assert len(stored.message.envelope.content) == 65_536


@pytest.mark.parametrize(
    ("envelope", "words"),
    [
        pytest.param(
            sealed(b"x" * 65_537), "message.envelope.content: has 65537 bytes, the most is 65536", id="64 KiB + 1"
        ),
        pytest.param(sealed(b""), "message.envelope.content: must be set", id="empty"),
        pytest.param(envelope_pb2.Envelope(), "message.envelope.suite: is 0, which is no value", id="nothing"),
        pytest.param(sealed(suite=0), "message.envelope.suite: is 0, which is no value", id="no suite"),
        pytest.param(sealed(suite=2), "message.envelope.suite: is 2, which is no value", id="suite of the future"),
        pytest.param(sealed(suite=-1), "message.envelope.suite: is -1, which is no value", id="negative suite"),
    ],
)
async def test_57_envelopes_outside_their_limits_are_named(
    alice: Person, resident: Person, envelope: envelope_pb2.Envelope, words: str
) -> None:
    message = send_pb2.SendMessage(user_id=resident.user_id, envelope=envelope)

    nack = await alice.submit(send_pb2.Send(message_id=alice.new_id(), attempt=1, message=message))

    assert (reason_of(nack), nack.is_retryable) == ("INVALID_FIELD", False)
    assert nack.detail.startswith(words)


@pytest.mark.parametrize(
    ("references", "reason", "words"),
    [
        pytest.param((tag(7) + b"\x64" + bytes(100)) * 1_000, "TOO_LARGE", "has 102005 bytes in all", id="102 KB"),
        pytest.param((tag(7) + b"\x00") * 1_000, "TOO_LARGE", "has 2000 bytes of fields", id="2 KB"),
        pytest.param((tag(7) + b"\x00") * 500, "INVALID_FIELD", "has the field 7", id="half as many, and empty"),
        pytest.param(tag(7) + b"\x10" + bytes(16), "INVALID_FIELD", "has the field 7", id="one"),
    ],
)
async def test_57_references_that_the_contract_does_not_have_yet_are_not_stored(
    alice: Person, resident: Person, references: bytes, reason: str, words: str
) -> None:
    envelope = envelope_pb2.Envelope.FromString(sealed().SerializeToString() + references)
    message = send_pb2.SendMessage(user_id=resident.user_id, envelope=envelope)

    nack = await alice.submit(send_pb2.Send(message_id=alice.new_id(), attempt=1, message=message))

    assert (reason_of(nack), nack.is_retryable) == (reason, False)
    assert nack.detail.startswith(f"message.envelope: {words}")
    assert await alice.history(resident) == []


@pytest.mark.parametrize(
    ("send", "words"),
    [
        pytest.param(send_pb2.Send(), "action: none", id="no action"),
        pytest.param(send_pb2.Send(message=send_pb2.SendMessage()), "message.envelope: must", id="neither"),
        pytest.param(
            send_pb2.Send(message=send_pb2.SendMessage(envelope=sealed())),
            "message.user_id: must be set, or message.group_id",
            id="nobody",
        ),
        pytest.param(
            send_pb2.Send(message=send_pb2.SendMessage(user_id=b"x")), "message.user_id: has 1 bytes", id="short user"
        ),
        pytest.param(
            send_pb2.Send(message=send_pb2.SendMessage(user_id=bytes(16))), "message.envelope: must be set", id="empty"
        ),
    ],
)
async def test_57_sends_without_what_they_need_are_named(alice: Person, send: send_pb2.Send, words: str) -> None:
    send.message_id, send.attempt = alice.new_id(), 1

    nack = await alice.submit(send)

    assert reason_of(nack) == "INVALID_FIELD"
    assert nack.detail.startswith(words)


def cursor(position: bytes, epoch: int = 1) -> bytes:
    return position_pb2.Cursor(epoch=epoch, position=position_pb2.Position(value=position)).SerializeToString()


def position_at(time_ms: int) -> bytes:
    return time_ms.to_bytes(6, "big") + b"\x70" + bytes(1) + b"\x80" + bytes(7)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: cursor(b"\xff" * 16), id="the last place of all"),
        pytest.param(lambda: cursor(position_at(now_ms() + DAY_MS)), id="tomorrow"),
        pytest.param(lambda: cursor(position_at(now_ms() - 60 * DAY_MS)), id="two months ago"),
        pytest.param(lambda: cursor(b""), id="no place"),
        pytest.param(lambda: cursor(b"x"), id="short place"),
        pytest.param(lambda: secrets.token_bytes(40), id="garbage"),
        pytest.param(lambda: b"\x00", id="no cursor"),
    ],
)
async def test_59_a_cursor_that_cannot_be_resumed_from_says_so_and_everything_comes(
    alice: Person, bob: Person, make: Any
) -> None:
    sent = [(await alice.say(bob)).message_id for _ in range(3)]

    client = await bob.connect(make())
    resync = await client.expect("resync")
    await client.expect("caught_up")

    assert reason_of(resync) == "CURSOR_EXPIRED"
    assert "cursor" in resync.detail
    assert [item.message.message_id for item in client.seen if item.HasField("message")] == sent


@pytest.mark.parametrize("epoch", [0, 7, 2**32 - 1])
async def test_59_a_cursor_of_another_ledger_loses_nothing(alice: Person, bob: Person, epoch: int) -> None:
    sent = [(await alice.say(bob)).message_id for _ in range(3)]

    await bob.sign_in(cursor(position_at(now_ms()), epoch))

    assert [item.message.message_id for item in bob.client.seen if item.HasField("message")] == sent


async def test_59_the_cursor_of_another_person_shows_nothing_of_that_person(
    alice: Person, bob: Person, mallory: Person
) -> None:
    await alice.say(bob, b"for bob")
    theirs = (await (await bob.connect()).expect("caught_up")).cursor
    await alice.say(bob, b"for bob, later")
    await alice.say(mallory, b"for mallory")

    await mallory.sign_in(theirs)

    shown = [item.message.envelope.content for item in mallory.client.seen if item.HasField("message")]
    assert [content for content in shown if content != b"for mallory"] == []
