"""The doors of the ledger over real loopback gRPC: one answer for every item, whatever it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    history_service_pb2,
    history_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
)
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2, position_pb2, receipt_state_pb2
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.item_protobuf import item_key
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import NO_POSITION, InboxRead, UserId
from svc_message.model.setting import SettingEvent
from svc_message.protocol import direct_conversation
from svc_message.rpc.submit import CREDITS
from tests.svc_message.desk import Desk
from tests.svc_message.doors import ALICE, BOB, Batch, Doors, open_doors
from tests.svc_message.fakes import ManualClock, message_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from svc_message.model import Accepted, Applied, Event, NewMessage, ReceiptUpdate

STORED = message_service_pb2.SUBMIT_VERDICT_STORED
REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED
MALFORMED = message_service_pb2.SUBMIT_VERDICT_MALFORMED
MESSAGES = message_service_pb2_grpc.MessageServiceStub
HISTORY = history_service_pb2_grpc.HistoryServiceStub
CONVERSATIONS = conversation_service_pb2_grpc.ConversationServiceStub


class HeldStore(MemoryMessageStore):
    """A store that answers when its gates are open, and not at all while it is down."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(self.clock)
        self.writes, self.receipts = asyncio.Event(), asyncio.Event()
        self.writes.set()
        self.receipts.set()
        self.is_down = False
        self.bug: Exception | None = None
        self.asked = asyncio.Event()

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        self.asked.set()
        await self.writes.wait()
        if self.bug is not None:
            raise self.bug
        return await super().accept(batch)

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        self.asked.set()
        await self.receipts.wait()
        if self.is_down:
            raise UnavailableError("store", "it is down")
        return await super().apply_receipts(batch)


@pytest.fixture
def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
async def doors(store: HeldStore) -> AsyncIterator[Doors]:
    async with open_doors(store) as opened:
        yield opened


async def inbox(doors: Doors, user_id: UserId) -> list[Event]:
    """Reads everything in an inbox."""
    (page,) = await doors.store.read_inbox([InboxRead(user_id, NO_POSITION, 10_000)])
    return page.events


def reason_of(frame: Any) -> str:
    """Returns the reason of a SendNack by its name."""
    return error_reason_pb2.ErrorReason.Name(frame.send_nack.reason).removeprefix("ERROR_REASON_")


def read_of(*ids: bytes, upto: bytes = b"", number: int = 50, clock: ManualClock) -> bytes:
    """Returns a serialised Send of Alice's that reads what Bob wrote."""
    read = send_pb2.SendRead(peer_user_id=BOB, read_upto=upto, message_ids=ids)
    minted = message_id(ALICE, 1, clock.wall_ms(), number)
    return send_pb2.Send(message_id=minted, attempt=1, read=read).SerializeToString()


async def test_submit_answers_every_send_by_its_number(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(edge.say(1), edge.say(2, to=b"?" * 16), edge.say(3))
    await edge.until(3)

    assert edge.verdicts == {1: STORED, 2: REFUSED, 3: STORED}
    assert edge.frames[1].send_ack.conversation_id == direct_conversation(ALICE, BOB)
    assert reason_of(edge.frames[2]) == "RECIPIENT_NOT_FOUND"
    assert len(await inbox(doors, BOB)) == 2


async def test_a_message_says_when_it_disappears_and_is_not_shown_after(doors: Doors, store: HeldStore) -> None:
    edge = await doors.submit()
    send = send_pb2.Send.FromString(edge.say(1))
    send.message.expiry_s = 60

    await edge.send(send.SerializeToString())
    await edge.until(1)

    expires_ms = edge.frames[1].send_ack.accepted_ms + 60_000
    request = history_service_pb2.ListMessagesRequest(peer_user_id=ALICE)
    (found,) = (await doors.call(HISTORY, "ListMessages", request, BOB)).messages
    assert found.message.expires_ms == expires_ms
    store.clock.pass_s(60)
    assert not (await doors.call(HISTORY, "ListMessages", request, BOB)).messages


async def test_submit_opens_with_a_hello_and_the_window(doors: Doors) -> None:
    edge = await doors.submit()

    assert (edge.hello.peer_id, edge.hello.boot_id, edge.hello.credits) == ("ledger-1", 5, CREDITS)


async def test_a_send_that_needs_a_look_up_does_not_hold_up_the_others(doors: Doors) -> None:
    asked = asyncio.Event()

    async def silent(user_ids: Sequence[UserId]) -> list[Any]:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    doors.directory.read = silent  # type: ignore[method-assign]  # svc_identity hangs
    edge = await doors.submit()
    await edge.send(edge.say(1, to=b"?" * 16), edge.say(2))

    await edge.until(1)
    await asked.wait()
    await edge.send(edge.say(3), first=3)
    await edge.until(2)

    assert edge.verdicts == {2: STORED, 3: STORED}


# A field of the envelope that this server does not know, and would store.
_UNKNOWN = envelope_pb2.Envelope.FromString(b"\x08\x01\x12\x01x" + b"\x9a\x06\x80\xa0\x06" + bytes(102_400))
OVERGROWN = send_pb2.Send(
    message_id=b"m" * 16, attempt=1, message=send_pb2.SendMessage(user_id=BOB, envelope=_UNKNOWN)
).SerializeToString()


@pytest.mark.parametrize(
    ("send", "verdict", "reason"),
    [
        (b"\xff\xff", MALFORMED, "MALFORMED"),
        (send_pb2.Send(message_id=b"short", attempt=1).SerializeToString(), REFUSED, "INVALID_FIELD"),
        (send_pb2.Send(message_id=b"m" * 16, attempt=1).SerializeToString(), REFUSED, "INVALID_FIELD"),
        (OVERGROWN, REFUSED, "TOO_LARGE"),
        (
            send_pb2.Send(
                message_id=b"m" * 16, attempt=1, read=send_pb2.SendRead(peer_user_id=BOB, message_ids=[b"i" * 16])
            ).SerializeToString(),
            REFUSED,
            "INVALID_MESSAGE_ID",
        ),
    ],
)
async def test_a_send_that_cannot_be_taken_is_answered_and_the_next_is_taken(
    doors: Doors, send: bytes, verdict: int, reason: str
) -> None:
    edge = await doors.submit()

    await edge.send(send, edge.say(1))
    await edge.until(2)

    assert edge.verdicts == {1: verdict, 2: STORED}
    assert reason_of(edge.frames[1]) == reason


async def test_what_an_edge_sends_again_counts_as_a_retry(doors: Doors) -> None:
    edge = await doors.submit()
    send = edge.say(1)
    await edge.send(send)
    await edge.until(1)
    doors.clock.pass_s(3600)

    await edge.send(send, first=2, resends=[1])
    await edge.until(2)

    assert edge.verdicts == {1: STORED, 2: STORED}
    assert edge.frames[2].send_ack.is_duplicate


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        (Batch(item_ids=[1, 2], user_ids=[ALICE], device_ids=[1], sends=[b""]), "batch.item_ids"),
        (Batch(item_ids=[1], user_ids=[ALICE], device_ids=[1], sends=[b""], resends=[1, 1]), "batch.resends"),
        (Batch(item_ids=[1], user_ids=[b"short"], device_ids=[1], sends=[b""]), "batch.user_ids"),
        (Batch(item_ids=[1], user_ids=[ALICE], device_ids=[2**31], sends=[b""]), "batch.device_ids"),
        (Batch(ack_item_ids=[1], ack_user_ids=[ALICE], ack_device_ids=[1]), "batch.ack_item_ids"),
        (
            Batch(ack_item_ids=[1], ack_user_ids=[ALICE], ack_device_ids=[1], ack_keys=[b"k" * 63]),
            "batch.ack_keys",
        ),
        (
            Batch(ack_item_ids=[1], ack_user_ids=[ALICE], ack_device_ids=[1], ack_keys=[b"k" * 64], ack_resends=[0, 1]),
            "batch.resends",
        ),
    ],
)
async def test_columns_that_do_not_fit_together_end_the_stream(doors: Doors, batch: Batch, field: str) -> None:
    edge = await doors.submit()

    await edge.write(batch)

    assert (await edge.refusal()).metadata["field"] == field


async def test_an_edge_beyond_its_credit_is_cut_off(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(*[b""] * (CREDITS + 1))

    assert (await edge.refusal()).code == "RESOURCE_EXHAUSTED"


async def test_credit_comes_back_with_the_answers(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(*[edge.say(number) for number in range(CREDITS // 4)])
    await edge.until(CREDITS // 4)
    while not edge.credits:
        await edge.read()

    assert edge.credits == CREDITS // 4


async def test_an_acknowledgement_is_confirmed_once_its_receipts_are_durable(doors: Doors, store: HeldStore) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1))
    await edge.until(1)
    (event,) = await inbox(doors, BOB)
    store.is_down = True
    store.asked.clear()

    await edge.acknowledge(item_key(event))
    await store.asked.wait()
    store.is_down = False
    await edge.until(2)

    assert edge.acked == {100}
    assert len(await inbox(doors, ALICE)) == 2


async def test_a_read_is_answered_and_told(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(read_of(b"m" * 16, clock=doors.clock), read_of(clock=doors.clock, number=51))
    await edge.until(2)

    assert edge.verdicts == {1: STORED, 2: REFUSED}
    assert reason_of(edge.frames[2]) == "INVALID_FIELD"


async def test_what_a_client_sends_again_while_it_waits_is_done_once(doors: Doors, store: HeldStore) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1))
    await edge.until(1)
    target = edge.frames[1].send_ack.message_id
    acted = [
        act_of(10, doors.clock, reaction=send_pb2.SendReaction(peer_user_id=BOB, message_id=target, envelope=content))
        for content in (envelope_of(b":)"), envelope_of(b":("))
    ]
    batches: list[int] = []

    async def act(batch: Sequence[Any]) -> list[Any]:
        batches.append(len(batch))
        return await type(store.actions).act(store.actions, batch)

    store.actions.act = act  # type: ignore[method-assign]  # counts
    await edge.send(acted[0], acted[0], acted[1], acted[0], first=2)
    await edge.until(5)

    assert batches == [1]
    assert [edge.verdicts[number] for number in range(2, 6)] == [STORED, STORED, REFUSED, STORED]


async def test_a_drain_answers_everything_before_the_stream_ends(doors: Doors, store: HeldStore) -> None:
    store.writes.clear()
    edge = await doors.submit()
    await edge.send(edge.say(1), edge.say(2, to=b"?" * 16), read_of(b"m" * 16, clock=doors.clock))
    await store.asked.wait()

    draining = asyncio.create_task(doors.rpc.drain())
    while not edge.is_drained:
        await edge.read()
    store.writes.set()
    code = await edge.finish()
    await draining

    assert (code.name, edge.verdicts) == ("OK", {1: STORED, 2: REFUSED, 3: STORED})


async def test_a_drain_does_not_wait_for_acknowledgements_while_the_store_is_down(
    doors: Doors, store: HeldStore
) -> None:
    store.is_down = True
    edge = await doors.submit()
    await edge.acknowledge(b"k" * 64)
    await store.asked.wait()

    await doors.rpc.drain()
    code = await edge.finish()

    assert (code.name, edge.acked) == ("OK", set())


async def test_a_ledger_that_drains_takes_no_new_stream(doors: Doors) -> None:
    await doors.rpc.drain()

    edge: Any = message_service_pb2_grpc.MessageServiceStub(doors.channel).Submit()

    assert (await edge.code()).name == "UNAVAILABLE"


async def test_a_bug_in_a_flush_leaves_no_send_without_an_answer(
    doors: Doors, store: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bug = ValueError("a bug")
    edge = await doors.submit()

    await edge.send(edge.say(1))
    await edge.until(1)

    assert (edge.verdicts, edge.frames[1].send_nack.is_retryable) == ({1: REFUSED}, True)
    assert "a flush of 1 items failed" in caplog.text


async def test_append_events_reaches_inboxes_under_a_position_of_the_ledgers(doors: Doors) -> None:
    doors.caller = "svc-identity"
    item = item_pb2.Item(position=b"p" * 16, profile=item_pb2.ProfileEvent(user_id=ALICE, version=7))
    event = message_service_pb2.InboxEvent(change_id=b"c" * 16, user_ids=[ALICE, BOB], item=item)

    await doors.call(MESSAGES, "AppendEvents", message_service_pb2.AppendEventsRequest(events=[event]))

    doors.caller = "svc-edge"
    query = history_service_pb2.InboxQuery(user_id=BOB, device_id=1)
    answer = await doors.call(HISTORY, "SyncInbox", history_service_pb2.SyncInboxRequest(queries=[query]))
    found = item_pb2.Item.FromString(answer.answers[0].items[0])
    assert (found.profile.version, len(found.position)) == (7, 16)
    assert found.position != b"p" * 16
    assert answer.answers[0].keys[0][16:32] == b"c" * 16


async def test_append_events_is_for_svc_identity_alone(doors: Doors) -> None:
    error = await doors.refusal(MESSAGES, "AppendEvents", message_service_pb2.AppendEventsRequest())

    assert error.code == "PERMISSION_DENIED"


async def test_sync_inbox_answers_with_items_flags_and_a_cursor(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1))
    await edge.until(1)
    queries = [history_service_pb2.InboxQuery(user_id=user, device_id=2) for user in (ALICE, BOB)]

    answer = await doors.call(HISTORY, "SyncInbox", history_service_pb2.SyncInboxRequest(queries=queries))

    alices, bobs = answer.answers
    assert (alices.items, alices.keys) == (bobs.items, bobs.keys)
    assert (list(alices.flags), list(bobs.flags)) == ([0], [1])
    cursor = position_pb2.Cursor.FromString(bobs.cursor)
    assert (cursor.epoch, cursor.position.value) == (1, bobs.pass_bound)


@pytest.mark.parametrize("cursor", [b"\xff\xff", position_pb2.Cursor(epoch=1).SerializeToString()])
async def test_a_garbled_cursor_starts_anew(doors: Doors, cursor: bytes) -> None:
    query = history_service_pb2.InboxQuery(user_id=BOB, device_id=1, cursor=cursor)

    answer = await doors.call(HISTORY, "SyncInbox", history_service_pb2.SyncInboxRequest(queries=[query]))

    assert answer.answers[0].is_resync


async def test_a_client_lists_its_own_messages_with_their_states(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1, b"one"), edge.say(2, b"two"))
    await edge.until(2)
    request = history_service_pb2.ListMessagesRequest(peer_user_id=ALICE)

    page = await doors.call(HISTORY, "ListMessages", request, BOB)

    assert [stored.message.envelope.content for stored in page.messages] == [b"two", b"one"]
    assert [stored.state for stored in page.messages] == [receipt_state_pb2.RECEIPT_STATE_SENT] * 2


async def test_a_client_reads_nobody_elses_messages(doors: Doors) -> None:
    own = history_service_pb2.ListMessagesRequest(owner_user_id=BOB, peer_user_id=ALICE)
    foreign = history_service_pb2.ListMessagesRequest(owner_user_id=ALICE, peer_user_id=BOB)

    await doors.call(HISTORY, "ListMessages", own, BOB)
    error = await doors.refusal(HISTORY, "ListMessages", foreign, BOB)

    assert (error.code, error.reason) == ("PERMISSION_DENIED", "NOT_IN_CONVERSATION")


async def test_an_internal_caller_says_whose_messages_it_lists(doors: Doors) -> None:
    doors.caller = "auditor"

    named = history_service_pb2.ListMessagesRequest(owner_user_id=ALICE, peer_user_id=BOB)
    unnamed = history_service_pb2.ListMessagesRequest(peer_user_id=BOB)

    await doors.call(HISTORY, "ListMessages", named)
    error = await doors.refusal(HISTORY, "ListMessages", unnamed)
    assert (error.code, error.metadata["field"]) == ("INVALID_ARGUMENT", "owner_user_id")


async def test_list_conversations_shows_the_last_message_and_what_is_unread(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1, b"one"), edge.say(2, b"two"))
    await edge.until(2)
    request = conversation_service_pb2.ListConversationsRequest()

    (chat,) = (await doors.call(CONVERSATIONS, "ListConversations", request, BOB)).conversations

    assert (chat.peer_user_id, chat.last_message.message.envelope.content, chat.unread_count) == (ALICE, b"two", 2)


def act_of(number: int, clock: ManualClock, **action: Any) -> bytes:
    """Returns a serialised Send of Alice's that does something to a message."""
    minted = message_id(ALICE, 1, clock.wall_ms(), number)
    return send_pb2.Send(message_id=minted, attempt=1, **action).SerializeToString()


def envelope_of(content: bytes) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)


async def test_edits_revokes_and_reactions_are_submitted_like_messages(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1), edge.say(2))
    await edge.until(2)
    targets = [edge.frames[number].send_ack.message_id for number in (1, 2)]
    about = [{"peer_user_id": BOB, "message_id": target} for target in targets]

    await edge.send(
        act_of(10, doors.clock, edit=send_pb2.SendEdit(**about[0], envelope=envelope_of(b"new"))),
        act_of(11, doors.clock, reaction=send_pb2.SendReaction(**about[0], envelope=envelope_of(b":)"))),
        act_of(12, doors.clock, revoke=send_pb2.SendRevoke(**about[1], scope=send_pb2.REVOKE_SCOPE_EVERYONE)),
        act_of(13, doors.clock, revoke=send_pb2.SendRevoke(**about[1], scope=send_pb2.REVOKE_SCOPE_ME)),
        first=3,
    )
    await edge.until(6)

    assert [edge.verdicts[number] for number in range(3, 7)] == [STORED] * 4
    assert {edge.frames[number].send_ack.conversation_id for number in range(3, 7)} == {direct_conversation(ALICE, BOB)}
    request = history_service_pb2.ListMessagesRequest(peer_user_id=ALICE)
    revoked, edited = (await doors.call(HISTORY, "ListMessages", request, BOB)).messages
    assert (edited.message.envelope.content, edited.message.edited_ms) == (b"new", doors.clock.wall_ms())
    assert [(one.user_id, one.envelope.content) for one in edited.reactions] == [(ALICE, b":)")]
    assert not revoked.message.HasField("envelope")
    assert revoked.message.revoked_ms == doors.clock.wall_ms()


@pytest.mark.parametrize(
    ("action", "reason", "detail"),
    [
        ({"edit": send_pb2.SendEdit(message_id=bytes(16))}, "INVALID_FIELD", "edit.envelope: must be set"),
        (
            {"edit": send_pb2.SendEdit(message_id=bytes(16), envelope=envelope_of(b"?"))},
            "INVALID_FIELD",
            "edit.peer_user_id: must be set, or edit.group_id",
        ),
        (
            {"revoke": send_pb2.SendRevoke(peer_user_id=BOB, scope=send_pb2.REVOKE_SCOPE_ME)},
            "INVALID_FIELD",
            "revoke.message_id: has 0 bytes, must have 16",
        ),
        (
            {"revoke": send_pb2.SendRevoke(peer_user_id=BOB, message_id=bytes(16))},
            "INVALID_FIELD",
            "revoke.scope: is 0, which is no value that may be given",
        ),
        (
            {
                "reaction": send_pb2.SendReaction(
                    peer_user_id=BOB, message_id=bytes(16), envelope=envelope_of(b"?" * 1024)
                )
            },
            "TOO_LARGE",
            "reaction.envelope: has 1029 bytes in all, the most is 1024",
        ),
        (
            {"reaction": send_pb2.SendReaction(peer_user_id=BOB, message_id=bytes(16), envelope=envelope_of(b"?"))},
            "MESSAGE_NOT_FOUND",
            "message_id: there is no such message in this conversation, or not any more",
        ),
    ],
)
async def test_actions_that_cannot_be_taken_say_why(
    doors: Doors, action: dict[str, Any], reason: str, detail: str
) -> None:
    edge = await doors.submit()

    await edge.send(act_of(1, doors.clock, **action))
    await edge.until(1)

    assert edge.verdicts == {1: REFUSED}
    assert (reason_of(edge.frames[1]), edge.frames[1].send_nack.detail) == (reason, detail)


async def test_conversations_are_kept_and_listed_apart(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1))
    await edge.until(1)
    update = conversation_service_pb2.UpdateConversationRequest(
        peer_user_id=ALICE, muted_until_ms=9, is_pinned=True, is_archived=True, expiry_s=60
    )

    settings = (await doors.call(CONVERSATIONS, "UpdateConversation", update, BOB)).settings

    expected = item_pb2.ConversationSettings(
        muted_until_ms=9, pinned_ms=doors.clock.wall_ms(), is_archived=True, expiry_s=60
    )
    assert settings == expected
    lists = [
        (await doors.call(CONVERSATIONS, "ListConversations", request, BOB)).conversations
        for request in (
            conversation_service_pb2.ListConversationsRequest(),
            conversation_service_pb2.ListConversationsRequest(is_archived=True),
        )
    ]
    assert [[chat.settings for chat in chats] for chats in lists] == [[], [expected]]
    (event,) = [event for event in await inbox(doors, ALICE) if isinstance(event, SettingEvent)]
    assert event.settings.expiry_s == 60


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"is_pinned": True}, "INVALID_FIELD"),
        ({"peer_user_id": ALICE}, "INVALID_FIELD"),
        ({"peer_user_id": b"?" * 16, "is_pinned": True}, "NOT_IN_CONVERSATION"),
        ({"peer_user_id": ALICE, "expiry_s": 7_776_001}, "INVALID_FIELD"),
        ({"peer_user_id": ALICE, "muted_until_ms": -1}, "INVALID_FIELD"),
        ({"peer_user_id": ALICE, "cleared_upto": b"short"}, "INVALID_FIELD"),
        ({"group_id": b"?" * 16, "is_pinned": True}, "NOT_IN_CONVERSATION"),
    ],
)
async def test_changes_that_cannot_be_made_say_why(doors: Doors, fields: dict[str, Any], reason: str) -> None:
    request = conversation_service_pb2.UpdateConversationRequest(**fields)

    refusal = await doors.refusal(CONVERSATIONS, "UpdateConversation", request, BOB)

    assert refusal.reason == reason


async def test_a_long_read_holds_up_no_other(doors: Doors) -> None:
    desk, edge = Desk(), await doors.submit()
    messages = [desk.write(sender=BOB, recipient=ALICE) for _ in range(2002)]
    await doors.store.accept(messages)
    first, last = messages[0].message_id, messages[-1].message_id
    longer, shorter = read_of(upto=last, clock=doors.clock), read_of(upto=first, clock=doors.clock, number=51)

    await edge.send(longer, shorter)
    await edge.until(2)

    assert list(edge.verdicts) == [2, 1]
    assert set(edge.verdicts.values()) == {STORED}
    (chat,) = (await doors.store.list_chats(ALICE, None, 10)).chats
    assert (chat.unread_count, chat.read_upto) == (0, last)
