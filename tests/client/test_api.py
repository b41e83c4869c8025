"""The client for people, over a real socket to a small edge."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import TypeVar

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2, server_frame_pb2
from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    device_service_pb2,
    profile_service_pb2,
    registration_service_pb2,
    session_service_pb2,
    settings_pb2,
)
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.api.type.v1 import receipt_state_pb2
from chappe.client import methods
from chappe.client.api import Client
from chappe.client.content import encode_text
from chappe.client.device import DeviceKey
from chappe.client.errors import (
    ChappeClientError,
    NotConnectedError,
    ProfileError,
    RefusedError,
    SessionEndedError,
    StoreError,
    UnknownPersonError,
    WaitsInOutboxError,
)
from chappe.client.parts import ClientParts
from chappe.client.profiles import About, Profile, folder_of
from chappe.client.store_sqlite import SqliteStore
from chappe.client.views import (
    AccountChanged,
    ChatChanged,
    Message,
    Offline,
    Online,
    ProfileChanged,
    SendFailed,
    Tick,
    TickChanged,
)
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER, frame, message_item, receipt_item
from tests.client.socket_edge import SocketEdge
from tests.client.test_connection import until

Kind = TypeVar("Kind")
PHONE = "+441632960002"


def hello_item(number: int, text: str) -> item_pb2.Item:
    item = message_item(number)
    item.message.envelope.content = encode_text(text)
    return item


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    about = About(user_id=ME.hex(), device_id=DEVICE, phone_number="+441632960001", name="Alice")
    Profile.create(tmp_path / "alice", about, DeviceKey.generate()).close()
    return tmp_path / "alice"


@pytest.fixture
async def me(edge: SocketEdge, folder: Path) -> AsyncIterator[Client]:
    edge.model.now_ms = 1_790_000_000_000
    async with chappe_client.connect(edge.address, profile=folder) as me:
        yield me


async def next_of(me: Client, kind: type[Kind]) -> Kind:
    """Returns the next event of a kind."""
    async with asyncio.timeout(30):
        async for event in me.events():
            if isinstance(event, kind):
                return event
    raise AssertionError


async def test_six_lines_send_and_receive(edge: SocketEdge, folder: Path) -> None:
    edge.model.log.append(hello_item(1, "good morning"))

    async with chappe_client.connect(edge.address, profile=folder) as me:
        message = await me.send(PHONE, "hello")
        async for event in me.events():
            if isinstance(event, Message):
                break

    assert message.tick is Tick.SENT
    assert bytes.fromhex(message.id) in edge.model.stored
    assert isinstance(event, Message)
    assert (event.text, event.sender_id, event.is_mine) == ("good morning", PEER, False)


async def test_ticks_are_told_and_kept(edge: SocketEdge, me: Client) -> None:
    message = await me.send(PEER, "hello")
    edge.model.log.append(receipt_item(1, [message.message_id], 3))

    edge.push()
    tick = await next_of(me, TickChanged)

    assert (tick.message_id, tick.tick) == (message.message_id, Tick.READ)
    assert [kept.tick for kept in await me.stored_history(PEER)] == [Tick.READ]


async def test_messages_that_came_while_nobody_listened_are_told_by_the_next_process(
    edge: SocketEdge, folder: Path
) -> None:
    edge.model.log += [hello_item(number, f"{number}") for number in range(1, 4)]
    async with chappe_client.connect(edge.address, profile=folder) as me:
        first = await next_of(me, Message)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        second = await next_of(me, Message)
        third = await next_of(me, Message)

    assert [first.text, second.text, third.text] == ["1", "2", "3"]


async def test_who_gives_up_while_the_store_is_read_is_told_everything_later(edge: SocketEdge, folder: Path) -> None:
    edge.model.log.append(hello_item(1, "while nobody listened"))
    async with chappe_client.connect(edge.address, profile=folder):
        await until(lambda: edge.model.acked == 1)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(me.events())
        message = await next_of(me, Message)

    assert message.text == "while nobody listened"


async def test_what_was_being_shown_when_the_time_was_over_is_told_again(edge: SocketEdge, me: Client) -> None:
    edge.model.log += [hello_item(number, f"{number}") for number in range(1, 4)]
    edge.push(3)
    shown: list[str] = []

    async def show_slowly() -> None:
        async with asyncio.timeout(None) as limit, aclosing(me.events()) as events:
            async for event in events:
                if isinstance(event, Message):
                    shown.append(event.text)
                if shown[-1:] == ["2"]:
                    limit.reschedule(0.0)
                    await asyncio.sleep(60)

    await until(lambda: edge.model.acked == 3)
    with pytest.raises(TimeoutError):
        await show_slowly()

    assert shown == ["1", "2"]
    assert [(await next_of(me, Message)).text for _ in range(2)] == ["2", "3"]


async def test_what_was_being_shown_when_its_reader_was_cancelled_is_told_again_also_if_the_store_has_it_not(
    edge: SocketEdge, me: Client
) -> None:
    async def show_slowly() -> None:
        async with aclosing(me.events()) as events:
            async for event in events:
                if isinstance(event, TickChanged):
                    is_showing.set()
                    await asyncio.sleep(60)

    is_showing = asyncio.Event()
    reading = asyncio.create_task(show_slowly())
    message = await me.send(PEER, "hello")
    edge.model.log.append(receipt_item(1, [message.message_id], 3))
    edge.push()
    await is_showing.wait()
    reading.cancel()
    await asyncio.wait([reading])

    assert (await next_of(me, TickChanged)).message_id == message.message_id


async def test_what_was_shown_stays_shown_when_the_time_is_over_while_that_is_stored(
    edge: SocketEdge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.model.log += [hello_item(number, f"{number}") for number in range(1, 3)]
    is_stored = threading.Event()
    mark_seen = SqliteStore.mark_seen

    def mark_late(store: SqliteStore, message_ids: list[bytes]) -> None:
        is_stored.wait(30)
        mark_seen(store, message_ids)

    async def show_the_first(me: Client) -> None:
        async with asyncio.timeout(None) as limit, aclosing(me.events()) as events:
            async for event in events:
                if isinstance(event, Message):
                    # The store's thread is busy, so that what is stored next has not begun when the time is over.
                    waiting.append(asyncio.create_task(me._host.in_store(is_stored.wait, 30)))
                    await asyncio.sleep(0)
                    limit.reschedule(0.0)

    waiting: list[asyncio.Task[bool]] = []
    async with chappe_client.connect(edge.address, profile=folder) as me:
        monkeypatch.setattr(SqliteStore, "mark_seen", mark_late)
        with pytest.raises(TimeoutError):
            await show_the_first(me)
        is_stored.set()
        await asyncio.wait(waiting)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert (await next_of(me, Message)).text == "2"


async def test_a_message_that_is_sent_offline_leaves_with_the_next_session(edge: SocketEdge, folder: Path) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError, match="stays in the outbox"):
            await me.send(PEER, "later", timeout_s=0.05)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        await until(lambda: edge.model.stored)
        tick = await next_of(me, TickChanged)

    assert tick.tick is Tick.SENT
    assert [body.endswith(b"later") for body in edge.model.stored.values()] == [True]


@pytest.mark.parametrize(("retry_after_ms", "times", "calls"), [(1, 2, 3), (0, 1, 1), (60_000, 1, 1), (1, 99, 6)])
async def test_a_call_that_comes_too_fast_waits_as_it_is_told(
    edge: SocketEdge, me: Client, retry_after_ms: int, times: int, calls: int
) -> None:
    method = methods.GET_PROFILE.name
    refusal = server_frame_pb2.CallError(
        code=8, reason=reasons.ERROR_REASON_RATE_LIMITED, detail="too fast", retry_after_ms=retry_after_ms
    )
    answers: list[bytes | server_frame_pb2.CallError] = [refusal] * times
    answers.append(profile_service_pb2.GetProfileResponse().SerializeToString())
    edge.answers[method] = lambda _: answers.pop(0)

    if calls == times + 1:
        await me.account.profile()
    else:
        with pytest.raises(RefusedError, match="RATE_LIMITED"):
            await me.account.profile()

    assert edge.calls.count(method) == calls


async def test_a_refused_message_raises(edge: SocketEdge, me: Client) -> None:
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)

    with pytest.raises(RefusedError, match="RECIPIENT_NOT_FOUND: because"):
        await me.send(PEER, "hello")


async def test_a_message_of_an_earlier_process_that_is_refused_is_an_event(edge: SocketEdge, folder: Path) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError):
            await me.send(PEER, "later", timeout_s=0.01)
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        failed = await next_of(me, SendFailed)

    assert (failed.peer_id, failed.reason, failed.text) == (PEER, "RECIPIENT_NOT_FOUND", "later")


def untold(folder: Path) -> int:
    """Returns how much the outbox holds that was refused."""
    with closing(sqlite3.connect(folder / "store.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM outbox WHERE reason IS NOT NULL").fetchone()
    return int(count)


async def compose_offline(folder: Path, text: str) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError):
            await me.send(PEER, text, timeout_s=0.01)


async def test_what_was_refused_while_nobody_listened_is_told_by_a_later_process_once(
    edge: SocketEdge, folder: Path
) -> None:
    await compose_offline(folder, "later")
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await me.drained(30)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        failed = await next_of(me, SendFailed)

    assert (failed.text, failed.kind, untold(folder)) == ("later", "message", 0)
    edge.model.log.append(hello_item(1, "nothing before me"))
    async with chappe_client.connect(edge.address, profile=folder) as me:
        async for event in me.events():
            assert not isinstance(event, SendFailed)
            if isinstance(event, Message):
                break


async def test_what_is_refused_while_somebody_listens_is_told_once(edge: SocketEdge, folder: Path) -> None:
    await compose_offline(folder, "later")
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)
    told: list[SendFailed] = []

    async with chappe_client.connect(edge.address, profile=folder) as me:
        await me.drained(30)
        edge.model.log.append(hello_item(1, "the last"))
        edge.push()
        async for event in me.events():
            told += [event] if isinstance(event, SendFailed) else []
            if isinstance(event, Message):
                break

    assert [failed.text for failed in told] == ["later"]


async def test_whoever_waits_for_what_is_refused_is_told_by_the_answer_and_no_other(
    edge: SocketEdge, folder: Path
) -> None:
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        with pytest.raises(RefusedError):
            await me.send(PEER, "hello")

    assert untold(folder) == 0


async def test_nobody_is_told_that_a_receipt_was_refused(edge: SocketEdge, folder: Path) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError):
            await me.mark_read(PEER, message_item(1).message.message_id, timeout_s=0.01)
    edge.model.refuse_next(reasons.ERROR_REASON_NOT_IN_CONVERSATION, is_retryable=False)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert await me.drained(30)

    assert untold(folder) == 0


async def test_reading_is_told_up_to_a_message(edge: SocketEdge, me: Client) -> None:
    edge.model.log.append(hello_item(1, "hello"))
    edge.push()

    await me.mark_read(await next_of(me, Message))
    await me.mark_read(PEER)

    assert edge.model.read_upto == [edge.model.log[0].message.message_id] * 2


async def test_going_off_and_on_is_told(edge: SocketEdge, me: Client) -> None:
    online = await next_of(me, Online)
    edge.close(4001, "slow")

    offline = await next_of(me, Offline)

    assert online.edge == offline.edge == f"127.0.0.1:{edge.port}"
    await next_of(me, Online)


async def test_a_session_that_has_ended_ends_the_events_and_the_sends(edge: SocketEdge, me: Client) -> None:
    edge.is_mute = True
    sending = asyncio.ensure_future(me.send(PEER, "hello"))
    await until(lambda: edge.model.stored)

    edge.close(4403, "not allowed any more")

    with pytest.raises(SessionEndedError):
        await sending
    with pytest.raises(SessionEndedError):
        await next_of(me, Message)
    with pytest.raises(SessionEndedError):
        await me.send(PEER, "more")


async def test_a_page_and_the_chats_come_from_the_server(edge: SocketEdge, me: Client) -> None:
    stored = history_service_pb2.StoredMessage(
        message=hello_item(1, "hello").message, state=receipt_state_pb2.RECEIPT_STATE_READ
    )
    edge.answers[methods.LIST_MESSAGES.name] = lambda _: history_service_pb2.ListMessagesResponse(
        messages=[stored], next_page_token="more"
    ).SerializeToString()
    chat = conversation_service_pb2.Conversation(
        conversation_id=CONVERSATION, peer_user_id=PEER, last_message=stored, unread_count=2
    )
    edge.answers[methods.LIST_CONVERSATIONS.name] = lambda _: conversation_service_pb2.ListConversationsResponse(
        conversations=[chat]
    ).SerializeToString()

    page = await me.history(PEER)
    chats = await me.chats()

    assert ([message.text for message in page.messages], page.next_page) == (["hello"], "more")
    assert (chats[0].peer_id, chats[0].unread_count, chats[0].last_message) == (PEER, 2, page.messages[0])


async def test_chats_are_read_window_by_window_until_there_are_enough(edge: SocketEdge, me: Client) -> None:
    asked: list[tuple[int, str]] = []
    windows = {"": ((1, 2), "second"), "second": ((2, 3), "third"), "third": ((4, 5), "fourth")}

    def list_conversations(payload: bytes) -> bytes:
        request = conversation_service_pb2.ListConversationsRequest.FromString(payload)
        asked.append((request.page_size, request.page_token))
        numbers, token = windows[request.page_token]
        ids = [bytes([number]) * 16 for number in numbers]
        chats = [conversation_service_pb2.Conversation(conversation_id=one, peer_user_id=one) for one in ids]
        return conversation_service_pb2.ListConversationsResponse(
            conversations=chats, next_page_token=token
        ).SerializeToString()

    edge.answers[methods.LIST_CONVERSATIONS.name] = list_conversations

    chats = await me.chats(limit=5)

    assert [chat.conversation_id[0] for chat in chats] == [1, 2, 3, 4, 5]
    assert asked == [(5, ""), (3, "second"), (2, "third")]
    assert await me.chats(limit=2) == chats[:2]


async def test_a_resync_reads_the_newest_pages_and_acknowledges_by_id(edge: SocketEdge, me: Client) -> None:
    old = hello_item(1, "from long ago")
    reaction = history_service_pb2.MessageReaction(
        user_id=PEER, reaction_id=b"r" * 16, envelope=old.message.envelope, reacted_ms=5
    )
    page = history_service_pb2.ListMessagesResponse(
        messages=[history_service_pb2.StoredMessage(message=old.message, reactions=[reaction])]
    )
    chats = conversation_service_pb2.ListConversationsResponse(
        conversations=[
            conversation_service_pb2.Conversation(
                conversation_id=CONVERSATION,
                peer_user_id=PEER,
                settings=item_pb2.ConversationSettings(expiry_s=60),
                settings_position=b"\x01" * 16,
            )
        ]
    )
    edge.answers[methods.LIST_MESSAGES.name] = lambda _: page.SerializeToString()
    edge.answers[methods.LIST_CONVERSATIONS.name] = lambda asked: (
        b""
        if conversation_service_pb2.ListConversationsRequest.FromString(asked).is_archived
        else chats.SerializeToString()
    )
    resync = server_frame_pb2.Resync(reason=reasons.ERROR_REASON_CURSOR_EXPIRED)
    edge.model.frames.append(frame(resync=resync).SerializeToString())
    edge.deliver()

    changed = await next_of(me, ChatChanged)
    message = await next_of(me, Message)
    await until(lambda: edge.model.acked_ids)

    assert changed.settings.expiry_s == 60
    assert message.text == "from long ago"
    assert [one.reactions[0].emoji for one in await me.stored_history(PEER)] == ["from long ago"]
    assert edge.model.acked_ids == [old.message.message_id]


async def test_a_resync_reads_the_pages_of_groups_and_of_archived_chats_too(edge: SocketEdge, me: Client) -> None:
    group_id, old = b"g" * 16, hello_item(1, "from long ago")
    asked: list[tuple[bytes, bytes]] = []

    def list_messages(payload: bytes) -> bytes:
        request = history_service_pb2.ListMessagesRequest.FromString(payload)
        asked.append((request.peer_user_id, request.group_id))
        stored = [history_service_pb2.StoredMessage(message=old.message)] if request.peer_user_id else []
        return history_service_pb2.ListMessagesResponse(messages=stored).SerializeToString()

    def list_conversations(payload: bytes) -> bytes:
        request = conversation_service_pb2.ListConversationsRequest.FromString(payload)
        archived = conversation_service_pb2.Conversation(conversation_id=CONVERSATION, peer_user_id=PEER)
        group = conversation_service_pb2.Conversation(conversation_id=group_id, group_id=group_id)
        return conversation_service_pb2.ListConversationsResponse(
            conversations=[archived if request.is_archived else group]
        ).SerializeToString()

    edge.answers[methods.LIST_MESSAGES.name] = list_messages
    edge.answers[methods.LIST_CONVERSATIONS.name] = list_conversations
    resync = server_frame_pb2.Resync(reason=reasons.ERROR_REASON_CURSOR_EXPIRED)
    edge.model.frames.append(frame(resync=resync).SerializeToString())
    edge.deliver()

    assert (await next_of(me, Message)).text == "from long ago"
    assert asked == [(b"", group_id), (PEER, b"")]


async def test_people_are_named_by_contact_name_or_number(edge: SocketEdge, me: Client) -> None:
    contact = contact_service_pb2.Contact(phone_number=PHONE, contact_name="Bob", user_id=PEER)
    edge.answers[methods.LIST_CONTACTS.name] = lambda _: contact_service_pb2.ListContactsResponse(
        contacts=[contact]
    ).SerializeToString()

    by_name = await me.people.resolve("bob")
    by_number = await me.people.resolve(PHONE)

    assert by_name == by_number == PEER
    assert await me.people.name_of(PEER) == "Bob"
    assert methods.LOOKUP_CONTACTS.name not in edge.calls
    with pytest.raises(UnknownPersonError, match="'carol' is no contact"):
        await me.people.resolve("carol")


def name_contacts(edge: SocketEdge, *named: tuple[str, bytes]) -> None:
    """Lets the address book hold these names."""
    contacts = [
        contact_service_pb2.Contact(phone_number=f"+44163296{user_id[0]:04d}", contact_name=name, user_id=user_id)
        for name, user_id in named
    ]
    answer = contact_service_pb2.ListContactsResponse(contacts=contacts).SerializeToString()
    edge.answers[methods.LIST_CONTACTS.name] = lambda _: answer


def change_contacts(edge: SocketEdge, version: int) -> None:
    """Says in the log that another device has changed the address book."""
    account = item_pb2.AccountEvent(change=item_pb2.ACCOUNT_CHANGE_CONTACTS, version=version)
    edge.model.log.append(item_pb2.Item(position=bytes(16), account=account))
    edge.push(cursor=len(edge.model.log))


async def test_a_name_that_another_device_has_given_to_somebody_else_means_the_other(
    edge: SocketEdge, folder: Path
) -> None:
    dave, robert = b"\x04" * 16, b"\x05" * 16
    name_contacts(edge, ("Bob", PEER), ("Dave", dave))
    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert [await me.people.find(name) for name in ("Bob", "Dave")] == [PEER, dave]
        change_contacts(edge, version=7)
        await next_of(me, AccountChanged)
    name_contacts(edge, ("Robert", PEER), ("Bob", robert))

    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert [await me.people.find(name) for name in ("Bob", "Robert", "Dave")] == [robert, PEER, b""]
        assert await me.people.resolve("Bob") == robert

    assert edge.calls.count(methods.LIST_CONTACTS.name) == 2


async def test_without_an_answer_a_name_means_whom_this_device_remembers(edge: SocketEdge, folder: Path) -> None:
    name_contacts(edge, ("Bob", PEER))
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await me.people.find("Bob")
        change_contacts(edge, version=7)
        await next_of(me, AccountChanged)

    parts = ClientParts(may_start_offline=True, online_s=0.01)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        assert await me.people.resolve("Bob") == PEER


def name_profile(edge: SocketEdge, name: str) -> None:
    """Lets the profile of the peer have this name."""
    profile = profile_service_pb2.Profile(user_id=PEER, profile_name=name)
    one = profile_service_pb2.GetProfileResponse(profile=profile).SerializeToString()
    many = profile_service_pb2.BatchGetProfilesResponse(profiles=[profile]).SerializeToString()
    edge.answers |= {methods.GET_PROFILE.name: lambda _: one, methods.BATCH_GET_PROFILES.name: lambda _: many}


async def change_profile(edge: SocketEdge, me: Client) -> None:
    """Says in the log that the profile of the peer has changed."""
    profile = item_pb2.ProfileEvent(user_id=PEER, version=len(edge.model.log) + 1)
    edge.model.log.append(item_pb2.Item(position=bytes(16), profile=profile))
    edge.push(cursor=len(edge.model.log))
    await next_of(me, ProfileChanged)


async def test_whoever_calls_itself_something_else_is_called_so_also_by_the_next_process(
    edge: SocketEdge, folder: Path
) -> None:
    names: list[str] = []
    name_profile(edge, "Bob")
    async with chappe_client.connect(edge.address, profile=folder) as me:
        names.append(await me.people.name_of(PEER))
        name_profile(edge, "Robert")
        await change_profile(edge, me)
        names += [await me.people.name_of(PEER), (await me.people.names_of([PEER]))[PEER]]
        name_profile(edge, "Bobby")
        await change_profile(edge, me)
        names += [(await me.people.names_of([PEER]))[PEER], await me.people.name_of(PEER)]
        name_profile(edge, "Rob")
        await change_profile(edge, me)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        names += [await me.people.name_of(PEER), await me.people.name_of(PEER)]

    assert names == ["Bob", "Robert", "Robert", "Bobby", "Bobby", "Rob", "Rob"]
    assert edge.calls.count(methods.GET_PROFILE.name) + edge.calls.count(methods.BATCH_GET_PROFILES.name) == 4


async def test_whoever_calls_itself_something_else_keeps_the_old_name_while_nobody_answers(
    edge: SocketEdge, me: Client
) -> None:
    name_profile(edge, "Bob")
    await me.people.name_of(PEER)
    edge.answers[methods.GET_PROFILE.name] = lambda _: server_frame_pb2.CallError(
        code=14, reason=reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE
    )
    await change_profile(edge, me)

    assert await me.people.name_of(PEER) == "Bob"


async def test_a_name_that_a_stranger_chose_addresses_nobody(edge: SocketEdge, me: Client) -> None:
    profile = profile_service_pb2.Profile(user_id=PEER, profile_name="Bob")
    edge.answers[methods.GET_PROFILE.name] = lambda _: profile_service_pb2.GetProfileResponse(
        profile=profile
    ).SerializeToString()
    edge.answers[methods.LIST_CONTACTS.name] = lambda _: b""

    assert await me.people.name_of(PEER) == "Bob"
    with pytest.raises(UnknownPersonError):
        await me.people.resolve("Bob")


@pytest.mark.parametrize("chosen", ["Bob", "bob", " BOB", "B\u200bob", "\uff22ob"])
async def test_a_stranger_that_calls_itself_like_a_contact_does_not_look_like_it(
    edge: SocketEdge, me: Client, chosen: str
) -> None:
    name_contacts(edge, ("Bob", b"\x05" * 16))
    name_profile(edge, chosen)
    await me.people.list()

    assert await me.people.name_of(PEER) == f"~{chosen}"
    assert await me.people.names_of([PEER, b"\x05" * 16]) == {PEER: f"~{chosen}", b"\x05" * 16: "Bob"}
    name_contacts(edge, ("Rob", b"\x05" * 16))
    await me.people.list()
    assert await me.people.name_of(PEER) == chosen


def test_profiles_are_found_where_the_command_line_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPPE_HOME", str(tmp_path / "home"))

    assert folder_of("alice") == tmp_path / "home" / "profiles" / "alice"
    monkeypatch.delenv("CHAPPE_HOME")
    assert folder_of("alice") == Path.home() / ".chappe" / "profiles" / "alice"


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u00a0"])
async def test_no_name_reaches_nobody(edge: SocketEdge, me: Client, name: str) -> None:
    edge.answers[methods.LIST_CONTACTS.name] = edge.answers[methods.LIST_GROUPS.name] = lambda _: b""
    await me.people.resolve(PHONE)

    for act in (me.send(name, "hi"), me.people.resolve(name), me.account.block(name), me.presence.of(name)):
        with pytest.raises(UnknownPersonError, match=r"named; write .*\+number"):
            await act
    assert await me.people.find(name) == b""
    assert not edge.model.stored


async def test_a_number_is_looked_up_once(edge: SocketEdge, me: Client) -> None:
    for _ in range(3):
        assert await me.people.resolve(PHONE) == PEER

    assert edge.calls.count(methods.LOOKUP_CONTACTS.name) == 1


async def test_the_account_is_managed_over_the_bridge(edge: SocketEdge, me: Client) -> None:
    edge.answers |= {
        methods.START_LINK.name: lambda _: device_service_pb2.StartLinkResponse(
            link_code="ABCD2345"
        ).SerializeToString(),
        methods.LIST_DEVICES.name: lambda _: device_service_pb2.ListDevicesResponse(
            devices=[device_service_pb2.Device(device_id=1)]
        ).SerializeToString(),
        methods.LIST_SESSIONS.name: lambda _: session_service_pb2.ListSessionsResponse(
            sessions=[session_service_pb2.Session(device_id=1)]
        ).SerializeToString(),
        methods.LIST_BLOCKS.name: lambda _: block_service_pb2.ListBlocksResponse(user_ids=[PEER]).SerializeToString(),
    }
    for method in (methods.BLOCK_USER, methods.UNBLOCK_USER, methods.REVOKE_SESSION, methods.UNLINK_DEVICE):
        edge.answers[method.name] = lambda _: b""

    await me.account.block(PHONE)
    await me.account.unblock(PEER)
    await me.account.revoke(device_id=2)
    await me.account.unlink(2)

    shown = settings_pb2.Settings(privacy=settings_pb2.PrivacySettings(read_receipts=False))
    edge.answers |= {
        methods.GET_SETTINGS.name: lambda _: profile_service_pb2.GetSettingsResponse(
            settings=shown
        ).SerializeToString(),
        methods.UPDATE_SETTINGS.name: lambda asked: asked,
    }

    assert await me.account.settings() == shown
    assert await me.account.update_settings(shown) == shown
    assert await me.account.create_link_code() == "ABCD2345"
    assert [device.device_id for device in await me.account.devices()] == [1]
    assert [session.device_id for session in await me.account.sessions()] == [1]
    assert await me.account.blocked() == [PEER]


async def test_whoever_does_not_want_to_follow_is_refused_a_profile_in_use(
    edge: SocketEdge, me: Client, folder: Path
) -> None:
    with pytest.raises(ProfileError, match="in use by another process"):
        async with chappe_client.connect(edge.address, profile=folder, parts=ClientParts(may_follow=False)):
            pass


async def test_an_edge_that_does_not_answer_is_said_so(folder: Path) -> None:
    with pytest.raises(NotConnectedError, match="no edge has answered"):
        async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=ClientParts(online_s=0.05)):
            pass


async def test_what_is_no_address_is_told_once_and_crashes_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("http://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(ChappeClientError, match="is not the address of an edge"):
            await me.chats()

    assert "crashed" not in caplog.text


@pytest.mark.parametrize("has_code", [True, False])
async def test_a_phone_number_becomes_a_profile(edge: SocketEdge, tmp_path: Path, *, has_code: bool) -> None:
    started = registration_service_pb2.StartVerificationResponse(
        verification_id=bytes(16), development_code="123456" if has_code else ""
    )
    codes = []

    def check(payload: bytes) -> bytes:
        codes.append(registration_service_pb2.CheckVerificationRequest.FromString(payload).code)
        return registration_service_pb2.CheckVerificationResponse(registration_token=bytes(32)).SerializeToString()

    edge.answers |= {
        methods.START_VERIFICATION.name: lambda _: started.SerializeToString(),
        methods.CHECK_VERIFICATION.name: check,
        methods.REGISTER_ACCOUNT.name: lambda _: registration_service_pb2.RegisterAccountResponse(
            user_id=ME, device_id=DEVICE
        ).SerializeToString(),
    }

    await chappe_client.register(
        f"ws://127.0.0.1:1,{edge.address}", PHONE, name="Alice", profile=tmp_path / "a", ask_code=lambda: "654321"
    )
    async with chappe_client.connect(edge.address, profile=tmp_path / "a") as me:
        assert me.user_id == ME

    assert codes == ["123456" if has_code else "654321"]


async def test_somebody_may_take_minutes_to_find_the_code(edge: SocketEdge, tmp_path: Path) -> None:
    edge.answers |= {
        methods.START_VERIFICATION.name: lambda _: registration_service_pb2.StartVerificationResponse(
            verification_id=bytes(16)
        ).SerializeToString(),
        methods.CHECK_VERIFICATION.name: lambda _: registration_service_pb2.CheckVerificationResponse(
            registration_token=bytes(32)
        ).SerializeToString(),
        methods.REGISTER_ACCOUNT.name: lambda _: registration_service_pb2.RegisterAccountResponse(
            user_id=ME, device_id=DEVICE
        ).SerializeToString(),
    }

    def ask_code() -> str:
        # As an edge does that has heard nothing for 45 seconds.
        edge.drop()
        return "654321"

    about = await chappe_client.register(edge.address, PHONE, name="Alice", profile=tmp_path / "a", ask_code=ask_code)

    assert about.user_id == ME.hex()


async def test_a_link_code_makes_this_machine_a_second_device(edge: SocketEdge, tmp_path: Path) -> None:
    edge.answers[methods.LINK_DEVICE.name] = lambda _: device_service_pb2.LinkDeviceResponse(
        user_id=ME, device_id=2
    ).SerializeToString()

    about = await chappe_client.link(edge.address, "abcd-2345", profile=tmp_path / "b")

    assert (about.user_id, about.device_id) == (ME.hex(), 2)
    with pytest.raises(ProfileError, match="already"):
        await chappe_client.link(edge.address, "abcd-2345", profile=tmp_path / "b")


async def test_who_starts_offline_hears_that_a_message_waits_once_it_is_on_the_disk(
    edge: SocketEdge, folder: Path
) -> None:
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(WaitsInOutboxError, match="stays in the outbox"):
            await me.send(PEER, "later", timeout_s=0)
        rows = sqlite3.connect(folder / "store.db").execute("SELECT count(*) FROM outbox").fetchall()

    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert await me.drained(5)
    assert rows == [(1,)]
    assert len(edge.model.stored) == 1


async def test_a_message_that_nothing_has_kept_is_not_said_to_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(SqliteStore, "commit", full)
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(ChappeClientError) as failed:
            await me.send(PEER, "lost", timeout_s=0.05)

    assert not isinstance(failed.value, WaitsInOutboxError)


async def test_chats_of_the_store_are_what_the_server_would_say(edge: SocketEdge, folder: Path) -> None:
    edge.model.log += [hello_item(number, f"{number}") for number in range(1, 4)]
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await next_of(me, Message)
        await me.mark_read(PEER, edge.model.log[0].message.message_id)

    parts = ClientParts(may_start_offline=True, online_s=0.01)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        [chat] = await me.stored_chats()
        archived = await me.stored_chats(is_archived=True)
        title = await me.title(chat)

    assert (chat.peer_id, chat.unread_count, chat.last_message and chat.last_message.text) == (PEER, 2, "3")
    assert archived == []
    assert title == PEER.hex()


async def test_without_a_server_a_call_waits_once_and_the_next_ones_fail_at_once(folder: Path) -> None:
    parts = ClientParts(may_start_offline=True, online_s=0.05)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError):
            await me.chats()
        async with asyncio.timeout(5):
            for _ in range(1000):
                with pytest.raises(NotConnectedError):
                    await me.chats()
