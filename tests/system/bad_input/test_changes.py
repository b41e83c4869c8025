"""What people may not do to messages that are there, and what nobody sees any more, by the list of attacks."""

import asyncio
import secrets
import time
from typing import Any

import psycopg
import pytest

from chappe.api.edge.v1 import client_frame_pb2, send_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.cli.launcher import Mesh
from chappe.cli.launcher.foundation import IDENTITY
from chappe.client.methods import LIST_MESSAGES
from tests.system.bad_input.people import Person, message_to, reason_of
from tests.system.bad_input.test_groups import ADMIN, ask, found, invited, of_groups, refused
from tests.system.bad_input.test_hidden import BOUND_S, act, envelope, log_of, to_group

pytestmark = pytest.mark.system

EVERYONE = send_pb2.REVOKE_SCOPE_EVERYONE
LARGEST = 1024
AT_ONCE = 8
"""As many calls as the edge lets be under way."""


async def in_group(person: Person, group_id: bytes) -> list[history_service_pb2.StoredMessage]:
    """Returns the newest messages of a group, as a person sees them."""
    request = history_service_pb2.ListMessagesRequest(group_id=group_id)
    return list((await person.call(LIST_MESSAGES, request)).messages)


async def test_58_nobody_edits_or_takes_back_what_another_wrote(alice: Person, bob: Person, mallory: Person) -> None:
    message_id = (await alice.say(bob, b"mine")).message_id
    forged: list[dict[str, Any]] = [
        {"edit": send_pb2.SendEdit(peer_user_id=alice.user_id, message_id=message_id, envelope=envelope(b"forged"))},
        {"revoke": send_pb2.SendRevoke(peer_user_id=alice.user_id, message_id=message_id, scope=EVERYONE)},
    ]

    by_the_reader = [await act(bob, **action) for action in forged]
    by_a_stranger = [await act(mallory, **action) for action in forged]

    assert [reason_of(nack) for nack in by_the_reader] == ["NOT_OWN_MESSAGE"] * 2
    assert [reason_of(nack) for nack in by_a_stranger] == ["MESSAGE_NOT_FOUND"] * 2
    [stored] = await alice.history(bob)
    assert (stored.message.envelope.content, stored.message.edited_ms, stored.message.revoked_ms) == (b"mine", 0, 0)


async def test_58_in_a_group_only_an_admin_takes_back_what_another_wrote_and_nobody_edits_it(
    alice: Person, bob: Person, mallory: Person
) -> None:
    group_id = await found(alice, bob, mallory)
    message_id = (await act(bob, message=to_group(group_id))).message_id
    edit = send_pb2.SendEdit(group_id=group_id, message_id=message_id, envelope=envelope(b"forged"))
    revoke = send_pb2.SendRevoke(group_id=group_id, message_id=message_id, scope=EVERYONE)

    refusals = [
        await act(mallory, edit=edit),
        await act(mallory, revoke=revoke),
        await act(alice, edit=edit),
    ]

    assert [reason_of(nack) for nack in refusals] == ["NOT_OWN_MESSAGE"] * 3
    assert (await act(alice, revoke=revoke)).DESCRIPTOR.name == "SendAck"
    [stored] = await in_group(mallory, group_id)
    assert stored.message.revoked_ms


async def test_51_who_was_removed_sees_no_later_edit_and_no_later_reaction(alice: Person, bob: Person) -> None:
    group_id = await found(alice, bob)
    message_id = (await act(alice, message=to_group(group_id))).message_id
    await bob.client.messages(1)
    await ask(alice, "RemoveMember", group_id=group_id, user_id=bob.user_id)
    await asyncio.sleep(BOUND_S)

    edit = send_pb2.SendEdit(group_id=group_id, message_id=message_id, envelope=envelope(b"later"))
    reaction = send_pb2.SendReaction(group_id=group_id, message_id=message_id, envelope=envelope(b"+1"))
    answers = [await act(alice, edit=edit), await act(alice, reaction=reaction)]

    assert [answer.DESCRIPTOR.name for answer in answers] == ["SendAck"] * 2
    [for_bob], [for_alice] = await in_group(bob, group_id), await in_group(alice, group_id)
    assert (for_bob.message.envelope.content, list(for_bob.reactions)) == (b"hello", [])
    assert (for_alice.message.envelope.content, len(for_alice.reactions)) == (b"later", 1)
    items = await log_of(bob)
    assert [item.message.envelope.content for item in items if item.HasField("message")] == [b"hello"]
    assert [item.WhichOneof("event") for item in items if item.WhichOneof("event") in {"edit", "reaction"}] == []


async def test_63_what_disappears_while_its_reader_is_away_is_gone(alice: Person, bob: Person) -> None:
    bob.client.abort()
    message = message_to(bob.user_id, b"for a second")
    message.expiry_s = 1
    stays = (await alice.say(bob, b"stays")).message_id
    goes = (await act(alice, message=message)).message_id
    await asyncio.sleep(1.2)

    items = await log_of(bob)

    assert [item.message.message_id for item in items if item.HasField("message")] == [stays]
    assert [stored.message.message_id for stored in await bob.history(alice)] == [stays]
    assert [stored.message.message_id for stored in await alice.history(bob)] == [stays]
    reaction = send_pb2.SendReaction(peer_user_id=alice.user_id, message_id=goes, envelope=envelope(b"+1"))
    assert reason_of(await act(bob, reaction=reaction)) == "MESSAGE_NOT_FOUND"


@pytest.mark.parametrize("expiry_s", [7_776_001, 2**32 - 1])
async def test_63_a_timer_outside_its_limits_is_named(alice: Person, bob: Person, expiry_s: int) -> None:
    message = message_to(bob.user_id)
    message.expiry_s = expiry_s

    nack = await act(alice, message=message)

    assert reason_of(nack) == "INVALID_FIELD"
    assert nack.detail.startswith("message.expiry_s")


async def test_63_a_retry_with_another_timer_is_another_message_and_refused(alice: Person, bob: Person) -> None:
    message = message_to(bob.user_id)
    message.expiry_s = 60
    message_id = (await act(alice, message=message)).message_id
    message.expiry_s = 0

    nack = await alice.submit(send_pb2.Send(message_id=message_id, attempt=2, message=message))

    assert (reason_of(nack), nack.is_retryable) == ("DUPLICATE_CONFLICT", False)
    [stored] = await bob.history(alice)
    assert stored.message.expires_ms


async def test_69_reactions_to_ids_that_are_none_tell_nobody_anything(alice: Person, mallory: Person) -> None:
    before = len(await log_of(alice))
    await mallory.sign_in()

    for _ in range(20):
        reaction = send_pb2.SendReaction(
            peer_user_id=alice.user_id, message_id=mallory.new_id(), envelope=envelope(b"+1")
        )
        assert reason_of(await act(mallory, reaction=reaction)) == "MESSAGE_NOT_FOUND"

    await alice.sign_in()
    assert (await log_of(alice))[before:] == []
    assert [item.WhichOneof("event") for item in await log_of(mallory) if item.HasField("receipt")] == []


async def test_69_a_probe_by_an_id_that_alice_has_from_another_tells_nothing_either(
    alice: Person, bob: Person, mallory: Person
) -> None:
    message_id = (await bob.say(alice)).message_id
    reaction = send_pb2.SendReaction(peer_user_id=alice.user_id, message_id=message_id, envelope=envelope(b"+1"))

    answers = [await act(mallory, reaction=reaction), await mallory.read(alice.user_id, message_ids=[message_id])]

    assert reason_of(answers[0]) == "MESSAGE_NOT_FOUND"
    assert [item for item in await log_of(mallory) if item.HasField("receipt")] == []
    [stored] = await alice.history(bob)
    assert list(stored.reactions) == []


async def neighbours(mesh: Mesh, count: int) -> list[bytes]:
    """Makes accounts that nobody signs in to, faster than they can register."""
    user_ids = [
        int(time.time() * 1000).to_bytes(6, "big") + b"\x70\x00\x80" + secrets.token_bytes(7) for _ in range(count)
    ]
    rows = [(user_id.hex(),) for user_id in user_ids]
    dsn = mesh.foundation.postgres.dsn
    async with await psycopg.AsyncConnection.connect(dsn, dbname=IDENTITY) as connection:
        await connection.cursor().executemany("INSERT INTO users (user_id) VALUES (%s)", rows)
    return user_ids


async def test_52_a_group_has_1024_members_at_most_however_many_are_added_at_once(
    mesh: Mesh, alice: Person, bob: Person, mallory: Person
) -> None:
    others = await neighbours(mesh, LARGEST + 2 * AT_ONCE)
    room = AT_ONCE + 3
    group_id = await found(alice, bob)
    await ask(alice, "SetRole", group_id=group_id, user_id=bob.user_id, role=ADMIN)
    await ask(alice, "AddMembers", group_id=group_id, user_ids=others[: LARGEST - 2 - room])
    invite_code = (await invited(alice, group_id)).invite_code

    late = others[LARGEST - 2 - room :][: 2 * AT_ONCE]
    added = await asyncio.gather(add_at_once(alice, group_id, late[::2]), add_at_once(bob, group_id, late[1::2]))

    assert sum(map(sum, added)) == room
    page = await ask(bob, "ListMembers", group_id=group_id, page_size=1000)
    rest = await ask(bob, "ListMembers", group_id=group_id, page_size=1000, page_token=page.next_page_token)
    assert len({member.user_id for member in [*page.members, *rest.members]}) == LARGEST
    assert (await ask(alice, "GetGroup", group_id=group_id)).group.member_count == LARGEST
    assert await refused(alice, "AddMembers", group_id=group_id, user_ids=[mallory.user_id]) == "GROUP_FULL"
    assert await refused(mallory, "JoinByInvite", invite_code=invite_code) == "GROUP_FULL"


async def add_at_once(adder: Person, group_id: bytes, user_ids: list[bytes]) -> list[bool]:
    """Adds people one by one without waiting for the answers; returns who got in, as the answers come."""
    method = of_groups("AddMembers")
    for number, user_id in enumerate(user_ids):
        payload = method.question(group_id=group_id, user_ids=[user_id]).SerializeToString()
        adder.client.send(call=client_frame_pb2.Call(id=1000 + number, method=method.name, payload=payload))
    results = [await adder.client.expect("call_result") for _ in user_ids]
    assert {reason_of(result.error) for result in results if result.HasField("error")} <= {"GROUP_FULL"}
    return [result.HasField("payload") for result in results]
