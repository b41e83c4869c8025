"""What people may not learn of each other's presence and typing, by the list of attacks, on the real system."""

import asyncio
import secrets
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.identity.v1 import block_service_pb2, contact_service_pb2, profile_service_pb2
from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.api.type.v1 import presence_pb2
from chappe.cli.launcher import Mesh
from chappe.client import methods
from tests.system.bad_input.conftest import Dial, Issue
from tests.system.bad_input.people import Person, reason_of
from tests.system.bad_input.test_groups import C, E, N, ask, found, set_privacy

pytestmark = pytest.mark.system

ONLINE, OFFLINE, HIDDEN = (
    presence_pb2.PRESENCE_STATE_ONLINE,
    presence_pb2.PRESENCE_STATE_OFFLINE,
    presence_pb2.PRESENCE_STATE_HIDDEN,
)
PRESENCE = presence_service_pb2.BatchGetPresenceRequest
BLOCK_BITES_S = 2.0
"""A block may take so long until it bites."""
QUIET_S = 1.5
"""What must not come has not come within this time."""


def watch(person: Person, *user_ids: bytes) -> None:
    person.client.send(watch=client_frame_pb2.Watch(user_ids=user_ids))


def look_at(person: Person, **named: bytes) -> None:
    ref = presence_pb2.ConversationRef(**named)
    person.client.send(open_conversation=client_frame_pb2.OpenConversation(conversations=[ref]))


def type_in(person: Person, **named: bytes) -> None:
    ref = presence_pb2.ConversationRef(**named)
    person.client.send(typing=client_frame_pb2.Typing(conversation=ref))


async def sees(viewer: Person, target: Person, state: int, timeout_s: float = 30) -> None:
    """Reads on until a state is the last that a watch was told; that may have come before the answer to a call."""
    async with asyncio.timeout(timeout_s):
        while viewer.client.presences.get(target.user_id) != state:
            await viewer.client.expect("presence_delta")


async def state_of(viewer: Person, user_id: bytes) -> Any:
    (one,) = (await viewer.call(methods.BATCH_GET_PRESENCE, PRESENCE(user_ids=[user_id]))).presences
    return one


async def hears_nothing(person: Person, kind: str) -> None:
    """Makes sure that no frame of a kind comes for a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUIET_S):
            await person.client.expect(kind)


async def befriend(owner: Person, other: Person) -> None:
    """Lets somebody take another into its address book."""
    own = await other.call(methods.GET_PROFILE, profile_service_pb2.GetProfileRequest())
    contact = contact_service_pb2.AddContactRequest(phone_number=own.profile.phone_number, contact_name="x")
    await owner.call(methods.ADD_CONTACT, contact)


@pytest.mark.parametrize("why", ["contacts only", "nobody", "blocked"])
async def test_64_somebody_who_hides_looks_exactly_like_nobody(alice: Person, mallory: Person, why: str) -> None:
    await set_privacy(alice, last_seen={"contacts only": C, "nobody": N, "blocked": E}[why])
    if why == "blocked":
        await alice.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=mallory.user_id))
    stranger = secrets.token_bytes(16)

    hidden, nobody = await state_of(mallory, alice.user_id), await state_of(mallory, stranger)
    watch(mallory, alice.user_id, stranger)
    told: dict[bytes, tuple[int, int]] = {}
    while len(told) < 2:
        delta = await mallory.client.expect("presence_delta")
        told.update({one.user_id: (one.state, one.last_seen_ms) for one in delta.presences})

    assert (hidden.state, hidden.last_seen_ms) == (nobody.state, nobody.last_seen_ms) == (HIDDEN, 0)
    assert told == {alice.user_id: (HIDDEN, 0), stranger: (HIDDEN, 0)}


async def test_64_a_watch_ends_to_show_anything_within_two_seconds_of_a_block_and_of_a_change_of_settings(
    alice: Person, mallory: Person
) -> None:
    await set_privacy(alice, last_seen=E)
    watch(mallory, alice.user_id)
    await sees(mallory, alice, ONLINE)

    await set_privacy(alice, last_seen=N)
    await sees(mallory, alice, HIDDEN, 2)
    await set_privacy(alice, last_seen=C)
    await befriend(alice, mallory)
    await sees(mallory, alice, ONLINE, 3)
    await alice.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=mallory.user_id))
    await sees(mallory, alice, HIDDEN, 2)


async def test_65_ten_thousand_watches_are_refused_beyond_500_and_nothing_else_happens(mallory: Person) -> None:
    strangers = [secrets.token_bytes(16) for _ in range(10_000)]

    watch(mallory, *strangers)
    refused = await mallory.client.expect("watch_refused")
    watch(mallory, *strangers[500:])
    again = await mallory.client.expect("watch_refused")

    assert reason_of(refused) == reason_of(again) == "LIST_FULL"
    assert list(refused.user_ids) == list(again.user_ids) == strangers[500:]
    assert await mallory.client.ping()


async def test_65_more_questions_in_one_than_watches_are_refused(mallory: Person) -> None:
    error = await mallory.refusal(methods.BATCH_GET_PRESENCE, PRESENCE(user_ids=[bytes(16)] * 501))

    assert (error.code, reason_of(error)) == (3, "INVALID_FIELD")


async def test_65_a_question_in_the_name_of_another_is_refused(alice: Person, mallory: Person) -> None:
    request = PRESENCE(user_ids=[alice.user_id], viewer_user_id=alice.user_id)

    error = await mallory.refusal(methods.BATCH_GET_PRESENCE, request)

    assert reason_of(error) == "INVALID_FIELD"


@pytest.mark.parametrize("name", ["svc-fanout", "svc-message", "tool"])
async def test_66_nobody_but_an_edge_says_that_people_live_watches_or_types_for_them(
    mesh: Mesh, alice: Person, dial: Dial, issue: Issue, name: str
) -> None:
    stub: Any = presence_service_pb2_grpc.PresenceServiceStub(dial("presence", issue(name)))
    # Nothing is written: what is written to a call that was refused meanwhile may hide the refusal.
    call = stub.Track()

    assert await call.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_66_the_late_end_of_an_older_connection_takes_nothing_from_the_newer_one(
    mesh: Mesh, alice: Person, bob: Person
) -> None:
    await set_privacy(alice, last_seen=E)
    watch(bob, alice.user_id)
    await sees(bob, alice, ONLINE)
    async with Person(alice.device, mesh.ws[1]) as elsewhere:
        elsewhere.token = alice.token
        await elsewhere.sign_in()

        alice.client.abort()
        sent = await bob.say(elsewhere, b"to the newer one")
        [arrived] = await elsewhere.client.messages(1)

        assert arrived.message_id == sent.message_id
        await hears_nothing(bob, "presence_delta")
        assert (await state_of(bob, alice.user_id)).state == ONLINE


async def test_67_typing_in_conversations_of_others_is_dropped(alice: Person, bob: Person, mallory: Person) -> None:
    group_id = await found(alice, bob)
    for person in (alice, mallory):
        look_at(person, group_id=group_id)
    await asyncio.gather(alice.client.ping(), mallory.client.ping())

    type_in(mallory, group_id=group_id)
    await hears_nothing(alice, "typing_delta")
    type_in(bob, group_id=group_id)
    heard = await alice.client.expect("typing_delta")
    await hears_nothing(mallory, "typing_delta")
    request = presence_service_pb2.ListTypingRequest(conversation=presence_pb2.ConversationRef(group_id=group_id))
    error = await mallory.refusal(methods.LIST_TYPING, request)

    assert [typist.user_id for typist in heard.conversations[0].typists] == [bob.user_id]
    assert (error.code, reason_of(error)) == (7, "NOT_IN_CONVERSATION")
    assert await mallory.client.ping()


async def test_67_the_removed_and_the_blocked_see_no_typing(alice: Person, bob: Person) -> None:
    group_id = await found(alice, bob)
    look_at(bob, group_id=group_id)
    type_in(alice, group_id=group_id)
    await bob.client.expect("typing_delta")

    await ask(alice, "RemoveMember", group_id=group_id, user_id=bob.user_id)
    async with asyncio.timeout(7):
        while (await bob.client.expect("typing_delta")).conversations[0].typists:
            pass
    await alice.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=bob.user_id))
    look_at(bob, peer_user_id=alice.user_id)
    await asyncio.sleep(BLOCK_BITES_S)
    type_in(alice, group_id=group_id)
    type_in(alice, peer_user_id=bob.user_id)

    await hears_nothing(bob, "typing_delta")


async def test_67_a_flood_of_typing_is_dropped_and_shown_once(alice: Person, bob: Person) -> None:
    look_at(bob, peer_user_id=alice.user_id)
    await bob.client.ping()

    for _ in range(200):
        type_in(alice, peer_user_id=bob.user_id)
    heard = await bob.client.expect("typing_delta")

    await hears_nothing(bob, "typing_delta")
    assert [typist.user_id for typist in heard.conversations[0].typists] == [alice.user_id]
    assert await alice.client.ping()


async def test_68_whoever_hides_sees_nobody_and_is_shown_nothing_from_that_moment(alice: Person, bob: Person) -> None:
    await set_privacy(alice, last_seen=E)
    await set_privacy(bob, last_seen=E)
    watch(alice, bob.user_id)
    await sees(alice, bob, ONLINE)

    await set_privacy(alice, last_seen=N)

    await sees(alice, bob, HIDDEN, 2)
    assert (await state_of(alice, bob.user_id)).state == HIDDEN


async def test_68_when_somebody_was_seen_is_not_shown_to_whom_only_being_online_is(
    mesh: Mesh, alice: Person, bob: Person
) -> None:
    await set_privacy(alice, last_seen=N, online=E)
    await set_privacy(bob, last_seen=E, online=E)
    online = await state_of(bob, alice.user_id)
    alice.client.abort()

    watch(bob, alice.user_id)
    await sees(bob, alice, OFFLINE, 15)
    offline = await state_of(bob, alice.user_id)

    assert (online.state, online.last_seen_ms) == (ONLINE, 0)
    assert (offline.state, offline.last_seen_ms) == (OFFLINE, 0)
