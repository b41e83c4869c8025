"""What the blocked, the removed and strangers must neither reach nor learn, by the list of attacks."""

import asyncio
import secrets
from typing import Any

import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.identity.v1 import block_service_pb2
from chappe.api.type.v1 import envelope_pb2, receipt_state_pb2
from chappe.client.methods import BLOCK_USER, UNBLOCK_USER
from tests.system.bad_input.people import Person, reason_of
from tests.system.bad_input.test_groups import ask, found, set_privacy

pytestmark = pytest.mark.system

BOUND_S = 2.1
"""What was changed of blocks, members and settings holds after two seconds at the latest."""
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
