"""What the blocked, the removed and strangers must neither reach nor learn, by the list of attacks."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.identity.v1 import block_service_pb2
from chappe.api.type.v1 import envelope_pb2, receipt_state_pb2
from chappe.cli.launcher import Mesh
from chappe.client.methods import BLOCK_USER, UNBLOCK_USER
from tests.system.bad_input.people import Person, message_to, reason_of
from tests.system.bad_input.test_groups import ask, found, set_privacy

pytestmark = pytest.mark.system

BOUND_S = 2.1
"""What was changed of blocks, members and settings holds after two seconds at the latest."""
REPLACED = 4409
IN_FLIGHT = 24
"""Fewer than the edge lets wait for their answers."""
DELIVERED, READ = receipt_state_pb2.RECEIPT_STATE_DELIVERED, receipt_state_pb2.RECEIPT_STATE_READ


async def log_of(person: Person, cursor: bytes = b"") -> list[item_pb2.Item]:
    """Returns what stands in the log of a person's device after a cursor."""
    client = await person.connect(cursor)
    items: list[item_pb2.Item] = []
    while True:
        frame = await client.read()
        assert frame is not None, client.closed
        if frame.HasField("events"):
            items += frame.events.items
        if frame.HasField("caught_up"):
            return items


def envelope(content: bytes = b"hello") -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)


def to_group(group_id: bytes, version: int = 0) -> send_pb2.SendMessage:
    return send_pb2.SendMessage(group_id=group_id, members_version=version, envelope=envelope())


def messages_of(items: Iterable[item_pb2.Item]) -> list[bytes]:
    """Returns the ids of the messages among items."""
    return [item.message.message_id for item in items if item.HasField("message")]


async def pour(sender: Person, sends: Sequence[send_pb2.Send]) -> None:
    """Sends messages without waiting for the answer to each; all of them have to be acknowledged."""
    for begin in range(0, len(sends), IN_FLIGHT):
        some = sends[begin : begin + IN_FLIGHT]
        for send in some:
            sender.client.send(send=send)
        acked = {(await sender.client.expect("send_ack")).message_id for _ in some}
        assert acked == {send.message_id for send in some}


async def act(person: Person, **action: Any) -> Any:
    """Sends an action; returns its SendAck or SendNack."""
    return await person.submit(send_pb2.Send(message_id=person.new_id(), attempt=1, **action))


async def block(person: Person, other: Person) -> None:
    await person.call(BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=other.user_id))
    await asyncio.sleep(BOUND_S)


async def test_24_a_cursor_of_somebody_else_reads_nothing_but_ones_own_log(
    alice: Person, bob: Person, mallory: Person
) -> None:
    client = await bob.connect()
    cursor = (await client.expect("caught_up")).cursor
    await mallory.say(alice, b"for alice")
    await mallory.say(bob, b"for bob")

    items = await log_of(alice, cursor)

    assert [item.message.envelope.content for item in items if item.HasField("message")] == [b"for alice"]


async def test_24_a_cursor_that_was_used_before_reads_the_same_again_and_what_came_since(
    alice: Person, bob: Person, mallory: Person
) -> None:
    cursor = (await (await bob.connect()).expect("caught_up")).cursor
    sent = [(await alice.say(bob)).message_id for _ in range(3)]
    first = messages_of(await log_of(bob, cursor))
    bob.client.ack(len(bob.client.seen))
    sent.append((await alice.say(bob)).message_id)

    again, theirs = await log_of(bob, cursor), await log_of(mallory, cursor)

    assert first == sent[:3]
    assert messages_of(again) == sent
    assert messages_of(theirs) == []


async def test_24_of_two_connections_with_one_cursor_the_later_has_everything_and_the_other_is_replaced(
    mesh: Mesh, alice: Person, bob: Person
) -> None:
    cursor = (await (await bob.connect()).expect("caught_up")).cursor
    sent = [(await alice.say(bob)).message_id for _ in range(3)]
    older = await bob.connect(cursor)
    await older.expect("caught_up")

    async with Person(bob.device, mesh.ws[1]) as elsewhere:
        elsewhere.token = bob.token
        items = await log_of(elsewhere, cursor)
        closed = await older.read_close()

        assert messages_of(items) == sent
        assert closed.code == REPLACED
        assert (await alice.say(bob)).message_id == (await elsewhere.client.messages(1))[0].message_id


@pytest.mark.parametrize("whose", ["the sender", "the reader"])
async def test_48_while_either_side_gives_no_read_receipts_a_read_is_not_to_be_told_from_none(
    alice: Person, bob: Person, whose: str
) -> None:
    await set_privacy(alice if whose == "the sender" else bob, read_receipts=False)
    await asyncio.sleep(BOUND_S)
    message_id = (await alice.say(bob)).message_id
    await bob.client.messages(1)
    bob.client.ack(len(bob.client.seen))

    assert (await bob.read(alice.user_id, read_upto=message_id)).DESCRIPTOR.name == "SendAck"

    states = [state for item in await log_of(alice) for state in item.receipt.states]
    assert set(states) == {DELIVERED}
    [for_alice], [for_bob] = await alice.history(bob), await bob.history(alice)
    assert (for_alice.state, for_alice.read_ms) == (DELIVERED, 0)
    assert for_bob.state == READ


async def test_49_what_the_blocked_do_looks_done_and_reaches_nobody(alice: Person, bob: Person) -> None:
    of_bob = (await bob.say(alice, b"before")).message_id
    of_alice = (await alice.say(bob, b"also before")).message_id
    before = len(await log_of(bob))
    await block(bob, alice)

    answers = [
        await alice.say(bob, b"while blocked"),
        await act(
            alice, reaction=send_pb2.SendReaction(peer_user_id=bob.user_id, message_id=of_bob, envelope=envelope())
        ),
        await act(
            alice, edit=send_pb2.SendEdit(peer_user_id=bob.user_id, message_id=of_alice, envelope=envelope(b"x"))
        ),
        await act(
            alice,
            revoke=send_pb2.SendRevoke(
                peer_user_id=bob.user_id, message_id=of_alice, scope=send_pb2.REVOKE_SCOPE_EVERYONE
            ),
        ),
    ]

    assert [answer.DESCRIPTOR.name for answer in answers] == ["SendAck"] * 4
    after = [item for item in (await log_of(bob))[before:] if item.WhichOneof("event") != "account"]
    assert after == []
    contents = [stored.message.envelope.content for stored in await bob.history(alice)]
    assert contents == [b"also before", b"before"]


async def test_50_what_was_sent_while_blocked_never_arrives(alice: Person, bob: Person) -> None:
    await block(bob, alice)
    await alice.say(bob, b"lost for ever")
    await bob.call(UNBLOCK_USER, block_service_pb2.UnblockUserRequest(user_id=alice.user_id))

    await alice.say(bob, b"through again")

    messages = [item.message.envelope.content for item in await log_of(bob) if item.HasField("message")]
    assert messages == [b"through again"]
    assert [stored.message.envelope.content for stored in await bob.history(alice)] == [b"through again"]


async def test_50_what_a_block_met_in_flight_never_arrives_later(alice: Person, bob: Person) -> None:
    sends = [
        send_pb2.Send(message_id=alice.new_id(), attempt=1, message=message_to(bob.user_id, b"%d" % number))
        for number in range(6 * IN_FLIGHT)
    ]
    in_flight, certainly_late = sends[: 5 * IN_FLIGHT], sends[5 * IN_FLIGHT :]

    await asyncio.gather(pour(alice, in_flight), block(bob, alice))
    await pour(alice, certainly_late)
    before = messages_of(await log_of(bob))
    await bob.call(UNBLOCK_USER, block_service_pb2.UnblockUserRequest(user_id=alice.user_id))
    await asyncio.sleep(BOUND_S)
    for send in sends:
        send.attempt = 2
    await pour(alice, sends)
    welcome = (await alice.say(bob, b"through again")).message_id

    assert set(before).isdisjoint(send.message_id for send in certainly_late)
    assert messages_of(await log_of(bob)) == [*before, welcome]
    shown = [stored.message.message_id for stored in await bob.history(alice, page_size=200)]
    assert sorted(shown) == sorted([*before, welcome])
    states = {stored.message.message_id: stored.state for stored in await alice.history(bob, page_size=200)}
    assert len(states) == len(sends) + 1
    assert {message_id for message_id, state in states.items() if state >= DELIVERED} <= {*before, welcome}


async def test_51_strangers_and_the_removed_write_to_no_group(alice: Person, bob: Person, mallory: Person) -> None:
    group_id = await found(alice, bob)
    stranger = await act(mallory, message=to_group(group_id))
    nowhere = await act(mallory, message=to_group(secrets.token_bytes(16)))
    member = await act(bob, message=to_group(group_id))
    await ask(alice, "RemoveMember", group_id=group_id, user_id=bob.user_id)
    await asyncio.sleep(BOUND_S)

    removed = await act(bob, message=to_group(group_id, version=1))
    await act(alice, message=to_group(group_id))

    assert member.DESCRIPTOR.name == "SendAck"
    assert [reason_of(nack) for nack in (stranger, nowhere, removed)] == ["NOT_IN_CONVERSATION"] * 3
    messages = [item.message.message_id for item in await log_of(bob) if item.message.sender_user_id == alice.user_id]
    assert messages == []


async def test_51_who_was_added_gets_what_is_sent_right_afterwards(alice: Person, bob: Person, mallory: Person) -> None:
    group_id = await found(alice, bob)
    await act(alice, message=to_group(group_id))
    added = await ask(alice, "AddMembers", group_id=group_id, user_ids=[mallory.user_id])

    welcome = await act(alice, message=to_group(group_id, added.group.version))

    # It is expanded after it was acknowledged.
    messages: list[bytes] = []
    async with asyncio.timeout(30):
        while not messages:
            messages = [item.message.message_id for item in await log_of(mallory) if item.HasField("message")]
    assert messages == [welcome.message_id]
