"""What people may not read, and how far one answer goes, by the numbers of the list of attacks."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from chappe.api.edge.v1 import send_pb2
from chappe.api.identity.v1 import block_service_pb2, contact_service_pb2
from chappe.api.message.v1 import history_service_pb2, history_service_pb2_grpc
from chappe.cli.launcher import Mesh
from chappe.client.methods import ADD_CONTACT, LIST_BLOCKS, LIST_CONTACTS, LIST_CONVERSATIONS, LIST_MESSAGES
from chappe.client.mint import conversation_of
from chappe.runtime.errors import from_rpc_error
from tests.system.bad_input.conftest import Dial, Newcomer
from tests.system.bad_input.people import Person, message_to, reason_of

pytestmark = pytest.mark.system

ListMessages = history_service_pb2.ListMessagesRequest
WINDOW = 32
LAST = b"\xff" * 16
NOT_YOURS = "page_token: not one that this list gave to this user; start again without it"


async def fill(sender: Person, peer: Person, count: int) -> list[bytes]:
    """Sends so many messages, a window at a time; returns their ids, newest first."""
    ids = [sender.new_id() for _ in range(count)]
    for start in range(0, count, WINDOW):
        some = ids[start : start + WINDOW]
        for message_id in some:
            sender.client.send(send=send_pb2.Send(message_id=message_id, attempt=1, message=message_to(peer.user_id)))
        for _ in some:
            await sender.client.expect("send_ack")
    return ids[::-1]


def ids_of(page: Any) -> list[bytes]:
    return [stored.message.message_id for stored in page.messages]


async def test_45_a_chat_of_two_others_cannot_be_named(alice: Person, bob: Person, mallory: Person) -> None:
    await alice.say(bob)

    for named in (alice.user_id, bob.user_id, conversation_of(alice.user_id, bob.user_id)):
        assert ids_of(await mallory.call(LIST_MESSAGES, ListMessages(peer_user_id=named))) == []


async def test_45_a_client_names_no_other_owner(alice: Person, bob: Person, mallory: Person) -> None:
    await alice.say(bob)

    request = ListMessages(owner_user_id=alice.user_id, peer_user_id=bob.user_id)
    error = await mallory.refusal(LIST_MESSAGES, request)

    assert (error.code, reason_of(error)) == (7, "NOT_IN_CONVERSATION")
    assert error.detail == "owner_user_id: a client reads its own conversations; leave the field empty"


async def test_45_a_page_token_belongs_to_one_user_one_chat_and_one_direction(
    alice: Person, bob: Person, mallory: Person
) -> None:
    await fill(alice, bob, 3)
    await fill(alice, mallory, 3)
    page = await alice.call(LIST_MESSAGES, ListMessages(peer_user_id=bob.user_id, page_size=1))
    token = page.next_page_token
    misuses = [
        (bob, ListMessages(peer_user_id=alice.user_id, page_token=token)),
        (mallory, ListMessages(peer_user_id=alice.user_id, page_token=token)),
        (mallory, ListMessages(peer_user_id=bob.user_id, page_token=token)),
        (alice, ListMessages(peer_user_id=mallory.user_id, page_token=token)),
        (alice, ListMessages(peer_user_id=bob.user_id, page_token=token, after_message_id=bytes(16))),
    ]

    errors = [await person.refusal(LIST_MESSAGES, request) for person, request in misuses]

    assert [(error.code, reason_of(error), error.detail) for error in errors] == [
        (3, "INVALID_PAGE_TOKEN", NOT_YOURS)
    ] * len(misuses)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda token: token[:-4], id="cut"),
        pytest.param(lambda token: token + "AAAA", id="longer"),
        pytest.param(lambda token: ("A" if token[0] != "A" else "B") + token[1:], id="first letter"),
        pytest.param(lambda token: token.swapcase(), id="other letters"),
        pytest.param(lambda token: base64.urlsafe_b64encode(bytes(24)).decode(), id="zeroes"),
        pytest.param(lambda _: "x", id="no base64"),
        pytest.param(lambda _: "'; DROP TABLE messages; --", id="SQL"),
        pytest.param(lambda _: "\u202e\U0001f600", id="not ASCII"),
        pytest.param(lambda _: "../../etc/passwd", id="path"),
    ],
)
@pytest.mark.parametrize("is_chats", [False, True])
async def test_45_a_page_token_that_was_altered_is_refused(
    alice: Person, newcomer: Newcomer, spoil: Callable[[str], str], *, is_chats: bool
) -> None:
    for peer in [await newcomer() for _ in range(2)]:
        await fill(alice, peer, 2)
    method: Any = LIST_CONVERSATIONS if is_chats else LIST_MESSAGES
    fields = {} if is_chats else {"peer_user_id": peer.user_id}
    page = await alice.call(method, method.question(page_size=1, **fields))

    error = await alice.refusal(method, method.question(page_token=spoil(page.next_page_token), **fields))

    assert (error.code, reason_of(error), error.detail) == (3, "INVALID_PAGE_TOKEN", NOT_YOURS)


async def test_45_tokens_of_the_directory_belong_to_one_user_and_one_list(alice: Person, mallory: Person) -> None:
    for number in ("+12125550001", "+12125550002"):
        await alice.call(ADD_CONTACT, contact_service_pb2.AddContactRequest(phone_number=number))
    page = await alice.call(LIST_CONTACTS, contact_service_pb2.ListContactsRequest(page_size=1))
    token = page.next_page_token

    theirs = await mallory.refusal(LIST_CONTACTS, contact_service_pb2.ListContactsRequest(page_token=token))
    blocks = await alice.refusal(LIST_BLOCKS, block_service_pb2.ListBlocksRequest(page_token=token))
    altered = await alice.refusal(LIST_CONTACTS, contact_service_pb2.ListContactsRequest(page_token=token[:-2]))

    for error in (theirs, blocks, altered):
        assert (error.code, reason_of(error)) == (3, "INVALID_PAGE_TOKEN")
        assert "page_token" in error.detail


async def test_45_a_token_of_10_kb_is_refused_by_its_limit(alice: Person) -> None:
    request = ListMessages(peer_user_id=alice.user_id, page_token="x" * 10_240)

    error = await alice.refusal(LIST_MESSAGES, request)

    assert error.detail == "page_token: has 10240 characters, the most is 256"


async def test_46_a_page_size_is_clamped(alice: Person, resident: Person) -> None:
    sizes = {0: 50, -1: 50, -(2**31): 50, 1: 1, 200: 200, 201: 200, 10**9: 200, 2**31 - 1: 200}
    ids = await fill(alice, resident, 205)

    for asked, given in sizes.items():
        page = await alice.call(LIST_MESSAGES, ListMessages(peer_user_id=resident.user_id, page_size=asked))
        assert ids_of(page) == ids[:given], asked
        assert page.next_page_token


@pytest.mark.parametrize("size", [0, -1, 10**9])
@pytest.mark.parametrize("method", [LIST_CONVERSATIONS, LIST_CONTACTS, LIST_BLOCKS])
async def test_46_every_list_takes_any_page_size(alice: Person, resident: Person, method: Any, size: int) -> None:
    await alice.say(resident)

    answer = await alice.call(method, method.question(page_size=size))

    assert answer.next_page_token == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("is_forward", [False, True])
async def test_46_pages_end_and_show_everything_once(
    alice: Person, resident: Person, size: int, *, is_forward: bool
) -> None:
    ids = await fill(alice, resident, 7)
    start = {"after_message_id": bytes(16)} if is_forward else {}
    seen: list[bytes] = []
    token = ""

    for _ in range(8):
        request = ListMessages(peer_user_id=resident.user_id, page_size=size, page_token=token, **start)
        page = await alice.call(LIST_MESSAGES, request)
        seen = ids_of(page) + seen if is_forward else seen + ids_of(page)
        token = page.next_page_token
        if not token:
            break

    assert (seen, token) == (ids, "")


@pytest.mark.parametrize(
    ("before", "after"),
    [(LAST, LAST), (bytes(16), b""), (b"", LAST), (bytes(16), LAST)],
)
async def test_46_bounds_that_leave_nothing_give_an_empty_page(
    alice: Person, resident: Person, before: bytes, after: bytes
) -> None:
    await alice.say(resident)

    request = ListMessages(peer_user_id=resident.user_id, before_message_id=before, after_message_id=after)
    page = await alice.call(LIST_MESSAGES, request)

    assert (ids_of(page), page.next_page_token) == ([], "")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param({"limit": -1}, "queries[0].limit: is -1, the least is 0", id="negative limit"),
        pytest.param({"limit": 10**9}, "queries[0].limit: is 1000000000, the most is 500", id="large limit"),
        pytest.param({"user_id": b"x"}, "queries[0].user_id: has 1 bytes, must have 16", id="short user"),
        pytest.param({"device_id": 0}, "queries[0].device_id: must be set", id="no device"),
        pytest.param({"cursor": bytes(65)}, "queries[0].cursor: has 65 bytes, the most is 64", id="long cursor"),
        pytest.param({"pass_bound": b"x"}, "queries[0].pass_bound: has 1 bytes, must have 16", id="short bound"),
    ],
)
async def test_46_a_read_of_the_log_outside_its_limits_is_named(
    mesh: Mesh, dial: Dial, query: dict[str, Any], words: str
) -> None:
    stub: Any = history_service_pb2_grpc.HistoryServiceStub(dial("message", mesh.tls("svc-edge")))
    fields: dict[str, Any] = {"user_id": bytes(16), "device_id": 1} | query

    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        await stub.SyncInbox(history_service_pb2.SyncInboxRequest(queries=[history_service_pb2.InboxQuery(**fields)]))

    error = from_rpc_error(caught.value)  # type: ignore[arg-type]  # grpc raises nothing else
    assert (error.reason, error.message) == ("INVALID_FIELD", words)


async def test_57_large_messages_are_read_in_pages_that_fit(alice: Person, bob: Person) -> None:
    sent = [(await alice.say(bob, bytes(65_536))).message_id for _ in range(70)][::-1]
    seen: list[bytes] = []
    token = ""

    while not seen or token:
        page = await bob.call(LIST_MESSAGES, ListMessages(peer_user_id=alice.user_id, page_size=200, page_token=token))
        assert page.ByteSize() < 600_000
        seen += ids_of(page)
        token = page.next_page_token

    assert seen == sent


async def test_57_a_list_of_chats_with_large_messages_is_read_in_windows_that_fit(
    alice: Person, newcomer: Newcomer
) -> None:
    peers = [await newcomer() for _ in range(12)]
    for peer in peers:
        await alice.say(peer, bytes(65_536))
    seen: list[bytes] = []
    token = ""

    while not seen or token:
        window = await alice.call(LIST_CONVERSATIONS, LIST_CONVERSATIONS.question(page_token=token))
        assert window.ByteSize() < 600_000
        seen += [chat.peer_user_id for chat in window.conversations]
        token = window.next_page_token

    assert sorted(seen) == sorted(peer.user_id for peer in peers)


async def test_57_a_log_full_of_large_messages_comes_to_its_end(alice: Person, bob: Person) -> None:
    bob.client.abort()
    sent = [(await alice.say(bob, bytes(65_536))).message_id for _ in range(70)]

    async with asyncio.timeout(20):
        await bob.sign_in()

    assert [item.message.message_id for item in bob.client.seen if item.HasField("message")] == sent
