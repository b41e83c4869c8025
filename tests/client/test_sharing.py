"""Several clients of one profile: one leads, the others follow through it, and nothing is sent twice."""

import asyncio
import errno
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe import client as chappe_client
from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.identity.v1 import contact_service_pb2, profile_service_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.api.type.v1 import presence_pb2
from chappe.client import methods, views
from chappe.client.api import Client
from chappe.client.changes import SendRefused, Sent
from chappe.client.destination import to_group, to_person
from chappe.client.device import DeviceKey
from chappe.client.errors import (
    ChappeClientError,
    NotConnectedError,
    ProfileError,
    ProfileInUseError,
    ProtocolError,
    RefusedError,
    SessionEndedError,
    StoreError,
)
from chappe.client.frames import message_action
from chappe.client.hall import SOCKET, Guest
from chappe.client.link import Link, Stored, Submission
from chappe.client.looking import Looking
from chappe.client.outgoing import Outgoing
from chappe.client.presence_views import Presence, PresenceChanged, TypingChanged, Typist, WatchRefused
from chappe.client.profiles import About, Profile
from chappe.client.seat import Seat
from chappe.client.sharing_codec import error_fields, from_line, to_error, to_line
from chappe.client.store import Batch
from chappe.client.store_sqlite import SqliteStore
from chappe.client.submissions import Submissions
from chappe.client.views import Message, Offline, Online, SendFailed, Tick, TickChanged
from chappe.client.wishes import Wishes
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER, receipt_item
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import PHONE, change_contacts, hello_item, name_contacts, next_of
from tests.client.test_connection import until

CAROL = b"\x03" * 16


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


class Shared:
    """Clients of one profile, in the order in which they were opened."""

    def __init__(self, edge: SocketEdge, folder: Path, stack: AsyncExitStack) -> None:
        self.edge = edge
        self.folder = folder
        self._stack = stack

    async def open(self) -> Client:
        return await self._stack.enter_async_context(chappe_client.connect(self.edge.address, profile=self.folder))


@pytest.fixture
async def shared(edge: SocketEdge, folder: Path) -> AsyncIterator[Shared]:
    async with AsyncExitStack() as stack:
        yield Shared(edge, folder, stack)


async def test_a_second_client_sends_through_the_first_which_shows_it(edge: SocketEdge, shared: Shared) -> None:
    leader, follower = await shared.open(), await shared.open()

    sent = await follower.send(PHONE, "from the other terminal")
    shown = await next_of(leader, Message)

    assert len(edge.model.hellos) == 1
    assert (sent.tick, sent.text) == (Tick.SENT, "from the other terminal")
    assert shown == sent


async def test_what_comes_is_told_to_everybody(edge: SocketEdge, shared: Shared) -> None:
    leader, follower = await shared.open(), await shared.open()
    sent = await follower.send(PEER, "hello")
    edge.model.log += [hello_item(1, "hi"), receipt_item(2, [sent.message_id], 3)]
    edge.push(2)

    for client in (leader, follower):
        assert [(await next_of(client, Message)).text, (await next_of(client, TickChanged)).tick] in (
            ["hi", Tick.READ],
            ["hello", Tick.READ],
        )
    assert [kept.text for kept in await follower.stored_history(PEER)] == ["hello", "hi"]


async def test_what_the_leader_sends_is_shown_by_those_who_follow(shared: Shared) -> None:
    leader, follower = await shared.open(), await shared.open()

    sent = await leader.send(PEER, "from the leader")
    await leader.edit(sent, "put right")
    await leader.react(sent, "👍")
    await leader.delete_for_everyone(sent)

    assert (await next_of(follower, Message)).text == "from the leader"
    assert (await next_of(follower, views.Edited)).text == "put right"
    assert (await next_of(follower, views.Reacted)).emoji == "👍"
    assert (await next_of(follower, views.Deleted)).message_id == sent.message_id


async def test_calls_and_refusals_pass_through(edge: SocketEdge, shared: Shared) -> None:
    await shared.open()
    follower = await shared.open()
    profile = profile_service_pb2.Profile(user_id=ME, profile_name="Alice")
    edge.answers[methods.GET_PROFILE.name] = lambda _: profile_service_pb2.GetProfileResponse(
        profile=profile
    ).SerializeToString()
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)

    assert (await follower.account.profile()).profile_name == "Alice"
    with pytest.raises(RefusedError, match="RECIPIENT_NOT_FOUND: because"):
        await follower.send(PEER, "hello")


async def test_whoever_follows_leads_on_when_the_leader_leaves(edge: SocketEdge, shared: Shared) -> None:
    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower, third = await shared.open(), await shared.open()
    events = [await next_of(follower, kind) for kind in (Online, Offline, Online)]

    first = await follower.send(PEER, "still here")
    second = await third.send(PEER, "me too")

    assert events[0] == Online(edge=f"127.0.0.1:{edge.port}")
    assert len(edge.model.hellos) == 2
    assert len({first.message_id, second.message_id} & set(edge.model.stored)) == 2


async def test_a_message_under_way_when_the_leader_leaves_is_sent_once(edge: SocketEdge, shared: Shared) -> None:
    leader = chappe_client.connect(edge.address, profile=shared.folder)
    await leader.__aenter__()
    follower = await shared.open()
    edge.is_mute = True
    sending = asyncio.ensure_future(follower.send(PEER, "once"))
    await until(lambda: edge.model.stored)

    edge.is_mute = False
    await leader.__aexit__(None, None, None)
    sent = await sending

    [(message_id, attempts)] = edge.model.bodies.items()
    assert sent.message_id == message_id
    assert [attempt for attempt, _ in attempts] == [1, 2]
    assert len({body for _, body in attempts}) == 1


async def test_a_message_that_nobody_took_before_the_leader_left_is_sent_by_the_next(
    edge: SocketEdge, shared: Shared
) -> None:
    leader = chappe_client.connect(edge.address, profile=shared.folder)
    await leader.__aenter__()
    follower = await shared.open()

    sending = asyncio.ensure_future(follower.send(PEER, "late"))
    await leader.__aexit__(None, None, None)

    assert (await sending).text == "late"
    assert len(edge.model.stored) == 1


async def test_what_nobody_waits_for_any_more_is_sent_all_the_same(edge: SocketEdge, shared: Shared) -> None:
    leader = await shared.open()
    edge.is_mute = True
    async with chappe_client.connect(edge.address, profile=shared.folder) as follower:
        with pytest.raises(NotConnectedError, match="stays in the outbox"):
            await follower.send(PEER, "hello", timeout_s=0.1)
    edge.is_mute = False
    edge.drop()

    assert (await next_of(leader, Message)).text == "hello"


async def test_what_is_refused_when_its_process_has_gone_is_told_to_those_who_are_there(
    edge: SocketEdge, shared: Shared
) -> None:
    leader, other = await shared.open(), await shared.open()
    edge.is_mute = True
    async with chappe_client.connect(edge.address, profile=shared.folder) as follower:
        with pytest.raises(NotConnectedError, match="stays in the outbox"):
            await follower.send(PEER, "hello", timeout_s=0.1)
    refuse_what_was_not_answered(edge)

    for client in (leader, other):
        assert (await next_of(client, SendFailed)).text == "hello"


class SilentGuest(Guest):
    """A guest to whom nothing is said."""

    def say(self, **said: object) -> None:
        pass


async def test_what_is_given_up_in_the_same_breath_was_handed_over_all_the_same() -> None:
    taken: list[Submission] = []

    async def submit(submission: Submission, _seat: object) -> None:
        taken.append(submission)
        await asyncio.Event().wait()

    host: Any = SimpleNamespace(user_id=ME, edge="", submit=submit)
    writer: Any = None
    submission = Submission("message", to_person(ME, PEER), b"", b"t" * 16)
    reader = asyncio.StreamReader()
    reader.feed_data(to_line({"id": 1, "ask": "submit", "submission": submission}) + to_line({"cancel": 1}))
    reader.feed_eof()

    guest = SilentGuest(host, writer)
    await guest.serve(reader)
    await until(lambda: not guest._answering)

    assert taken == [submission]


async def test_whoever_gave_up_waiting_is_told_that_it_was_refused_after_all(edge: SocketEdge, shared: Shared) -> None:
    leader, follower = await shared.open(), await shared.open()
    edge.is_mute = True
    with pytest.raises(NotConnectedError, match="stays in the outbox"):
        await follower.send(PEER, "hello", timeout_s=0.1)
    refuse_what_was_not_answered(edge)

    for client in (follower, leader):
        assert (await next_of(client, SendFailed)).text == "hello"


def refuse_what_was_not_answered(edge: SocketEdge) -> None:
    """Refuses in the next session what this one has not answered."""
    edge.model.stored.clear()
    edge.model.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)
    edge.is_mute = False
    edge.drop()


async def test_what_the_leader_stored_and_told_nobody_is_shown_by_whoever_leads_on(
    edge: SocketEdge, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower = await shared.open()
        await next_of(follower, Online)
        # As if it were killed between its commit and the line to those who follow.
        monkeypatch.setattr(Guest, "say", lambda _guest, **_said: None)
        edge.model.log.append(hello_item(1, "stored"))
        edge.push(1)
        await until(lambda: edge.model.acked == 1)
    monkeypatch.undo()

    assert (await next_of(follower, Message)).text == "stored"


async def test_a_guest_that_was_let_go_reads_on_in_the_store(
    edge: SocketEdge, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.open()
    follower = await shared.open()
    await next_of(follower, Online)
    join, may_come_back = Seat.join, asyncio.Event()

    async def join_later(seat: Seat) -> Link:
        await may_come_back.wait()
        return await join(seat)

    monkeypatch.setattr(Seat, "join", join_later)
    monkeypatch.setattr("chappe.client.hall.MOST_WAITING_BYTES", -1)
    edge.model.log += [hello_item(1, "too much for a slow guest"), hello_item(2, "meanwhile")]
    edge.push(2)
    await until(lambda: edge.model.acked == 2)
    monkeypatch.undo()
    may_come_back.set()

    assert [(await next_of(follower, Message)).text for _ in range(2)] == ["too much for a slow guest", "meanwhile"]


async def test_whoever_follows_waits_for_a_leader_that_takes_long_to_let_go(
    edge: SocketEdge, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, waits = Seat.join, [ProfileInUseError("it is still being stored")] * 2

    async def join_late(seat: Seat) -> Link:
        if waits:
            raise waits.pop()
        return await join(seat)

    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower = await shared.open()
        monkeypatch.setattr(Seat, "join", join_late)

    assert (await follower.send(PEER, "still here")).tick is Tick.SENT


async def test_whoever_follows_does_not_lead_a_profile_that_was_replaced(
    edge: SocketEdge, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, may_come_back = Seat.join, asyncio.Event()

    async def join_later(seat: Seat) -> Link:
        await may_come_back.wait()
        return await join(seat)

    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower = await shared.open()
        monkeypatch.setattr(Seat, "join", join_later)
    Profile.create(shared.folder, About(user_id=ME.hex(), device_id=DEVICE + 1), DeviceKey.generate()).close()
    may_come_back.set()

    with pytest.raises(ProfileError, match="was replaced"):
        await next_of(follower, Message)
    Profile.open(shared.folder).close()


async def test_whoever_cannot_lead_on_says_why(
    edge: SocketEdge, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: Path) -> socket.socket:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower = await shared.open()
        monkeypatch.setattr("chappe.client.hall._listener", fail)

    with pytest.raises(ProfileError, match="No space left on device"):
        await next_of(follower, Message)
    with pytest.raises(ProfileError, match="No space left on device"):
        await follower.send(PEER, "hello")


async def test_a_folder_in_which_no_socket_can_be_made_is_said_to_be_one(edge: SocketEdge, folder: Path) -> None:
    (folder / SOCKET).mkdir()

    with pytest.raises(ProfileError, match="cannot be shared"):
        async with chappe_client.connect(edge.address, profile=folder):
            pass


async def test_the_end_of_a_session_is_the_end_for_all(edge: SocketEdge, shared: Shared) -> None:
    await shared.open()
    follower = await shared.open()

    edge.close(4403, "not allowed any more")

    with pytest.raises(SessionEndedError, match="not allowed any more"):
        await next_of(follower, Message)
    with pytest.raises(SessionEndedError):
        await follower.send(PEER, "hello")


async def test_the_wishes_of_all_are_one_and_each_is_told_what_it_asked_for(edge: SocketEdge, shared: Shared) -> None:
    leader, follower = await shared.open(), await shared.open()
    await leader.presence.watch(PEER)
    await until(lambda: edge.model.watched == [PEER])
    say_presence(edge, PEER)

    await follower.presence.watch(PEER, CAROL)
    await follower.presence.look_at(PEER)
    await until(lambda: edge.model.watched == [PEER, CAROL])
    told = await next_of(follower, PresenceChanged)
    say_presence(edge, CAROL)
    also = await next_of(follower, PresenceChanged)
    await leader.presence.unwatch(PEER)
    await asyncio.sleep(0)

    assert [told.user_id, also.user_id] == [PEER, CAROL]
    assert (await next_of(leader, PresenceChanged)).user_id == PEER
    assert edge.model.watched == [PEER, CAROL]


async def test_what_was_told_of_others_no_longer_holds_when_the_leader_leaves(edge: SocketEdge, shared: Shared) -> None:
    async with chappe_client.connect(edge.address, profile=shared.folder):
        follower = await shared.open()
        await follower.presence.watch(PEER, CAROL)
        await follower.presence.look_at(PEER)
        await until(lambda: edge.model.looked_at[-1:] == [[PEER]] and len(edge.model.watched) == 2)
        say_presence(edge, PEER)
        say_typing(edge, PEER)
        told = [await next_of(follower, PresenceChanged), await next_of(follower, TypingChanged)]

    offline = await next_of(follower, Offline)
    gone = [await next_of(follower, PresenceChanged), await next_of(follower, TypingChanged)]

    assert told[0] == PresenceChanged(user_id=PEER, presence=Presence.ONLINE)
    assert offline.edge == f"127.0.0.1:{edge.port}"
    assert gone == [
        PresenceChanged(user_id=PEER, presence=Presence.UNKNOWN),
        TypingChanged(conversation_id=CONVERSATION, peer_id=PEER, typists=()),
    ]


def test_what_is_wanted_no_more_is_not_taken_back_with_the_link() -> None:
    wishes = Wishes()
    wishes.watch([PEER, CAROL])
    wishes.look_at([to_person(ME, PEER)])
    for user_id in (PEER, CAROL):
        wishes.told(PresenceChanged(user_id=user_id, presence=Presence.ONLINE))
    wishes.told(TypingChanged(conversation_id=CONVERSATION, peer_id=PEER, typists=(Typist(user_id=PEER),)))

    wishes.unwatch([PEER])
    wishes.look_at([])

    assert wishes.lost() == [PresenceChanged(user_id=CAROL, presence=Presence.UNKNOWN)]
    assert wishes.lost() == []


def say_typing(edge: SocketEdge, user_id: bytes) -> None:
    typist = presence_pb2.Typist(user_id=user_id, kind=presence_pb2.TYPING_KIND_TEXT)
    chat = server_frame_pb2.ConversationTyping(
        conversation=presence_pb2.ConversationRef(peer_user_id=user_id), typists=[typist]
    )
    edge.model.tell(typing_delta=server_frame_pb2.TypingDelta(conversations=[chat]))
    edge.deliver()


def say_presence(edge: SocketEdge, user_id: bytes) -> None:
    one = presence_pb2.UserPresence(user_id=user_id, state=presence_pb2.PRESENCE_STATE_ONLINE)
    edge.model.tell(presence_delta=server_frame_pb2.PresenceDelta(presences=[one]))
    edge.deliver()


async def test_who_is_typing_is_told_to_whoever_looks_and_typing_passes_through(
    edge: SocketEdge, shared: Shared
) -> None:
    leader, follower = await shared.open(), await shared.open()
    await follower.presence.look_at(PEER)
    await until(lambda: edge.model.looked_at[-1:] == [[PEER]])

    say_typing(edge, PEER)
    async with follower.presence.typing(PEER):
        await until(lambda: edge.model.typings)
    await until(lambda: len(edge.model.typings) == 2)
    await leader.send(PEER, "a last event")

    assert (await next_of(follower, TypingChanged)).peer_id == PEER
    assert [is_over for _, _, is_over in edge.model.typings] == [False, True]


async def test_the_socket_is_for_its_user_alone_and_one_that_was_left_is_taken_away(
    shared: Shared, folder: Path
) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / SOCKET))
    left.close()

    async with chappe_client.connect(shared.edge.address, profile=folder):
        mode = stat.S_IMODE((folder / SOCKET).stat().st_mode)

    assert mode == 0o600
    assert not (folder / SOCKET).exists()


async def test_a_folder_with_a_long_name_is_shared_too(edge: SocketEdge, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("name" * 20)
    Profile.create(folder, About(user_id=ME.hex(), device_id=DEVICE), DeviceKey.generate()).close()

    async with (
        chappe_client.connect(edge.address, profile=folder),
        chappe_client.connect(edge.address, profile=folder) as follower,
    ):
        assert (await follower.send(PEER, "hello")).tick is Tick.SENT


async def test_a_leader_of_another_version_is_not_followed(edge: SocketEdge, folder: Path) -> None:
    profile = Profile.open(folder)

    async def say_hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(to_line({"hello": 99, "edge": ""}))
        writer.close()

    server = await asyncio.start_unix_server(say_hello, folder / SOCKET)
    with pytest.raises(ProfileError, match="another version of Chappe; end that one first"):
        async with chappe_client.connect(edge.address, profile=folder):
            pass
    server.close()
    profile.close()


async def test_a_guest_that_talks_nonsense_is_let_go_and_harms_nobody(shared: Shared, folder: Path) -> None:
    leader = await shared.open()
    for line in (b"nonsense\n", b"[]\n", b'{"id": 1, "ask": "open sesame"}\n', b'{"watch": {"$": "Popen"}}\n'):
        reader, writer = await asyncio.open_unix_connection(folder / SOCKET)
        writer.write(line)
        await reader.readline()
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()

    assert (await leader.send(PEER, "unharmed")).tick is Tick.SENT


def test_a_store_that_another_process_uses_is_not_brought_up_to_date(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a process of an older version"):
        SqliteStore(tmp_path / "store.db", ME, DEVICE, may_migrate=False)


# What was handed over before


def settled(store: SqliteStore, token: bytes, *, is_refused: bool = False) -> None:
    outgoing = Outgoing("message", PEER, CONVERSATION, message_action(PEER, 1, b"x"))
    outgoing.token, outgoing.message_id = token, token
    batch = Batch()
    batch.settled = [SendRefused(outgoing, "TOO_LATE", "no") if is_refused else Sent(outgoing, 5, is_duplicate=False)]
    store.commit(batch)


async def test_a_change_that_was_answered_is_not_sent_when_it_is_handed_over_again() -> None:
    store = SqliteStore(None, ME, DEVICE)
    settled(store, b"a" * 16)
    settled(store, b"b" * 16, is_refused=True)

    async def in_store(function: Any, *args: Any) -> Any:
        return function(*args)

    submissions = Submissions(store.answers, in_store)
    again = Submission("message", to_person(ME, PEER), b"", b"a" * 16, is_retry=True)

    assert await submissions.submit(again, "seat", lambda _: pytest.fail("it was sent")) == Stored(b"a" * 16, 5)
    with pytest.raises(RefusedError, match="TOO_LATE"):
        await submissions.submit(again._replace(token=b"b" * 16), "seat", lambda _: pytest.fail("it was sent"))


def test_only_the_newest_answers_are_kept() -> None:
    store = SqliteStore(None, ME, DEVICE)
    for number in range(1100):
        settled(store, number.to_bytes(16, "big"))

    kept = [number for number in range(1100) if store.answers.find(number.to_bytes(16, "big"))]

    assert kept == list(range(100, 1100))


# Who is told what


def answered(answer: bytes, _question: bytes) -> bytes:
    return answer


async def add_contact(edge: SocketEdge, client: Client, entry: tuple[str, str, bytes]) -> None:
    """Lets a process put a number under a name into the address book, which is the one of a user."""
    number, name, user_id = entry
    contact = contact_service_pb2.Contact(phone_number=number, contact_name=name, user_id=user_id)
    answer = contact_service_pb2.AddContactResponse(contact=contact).SerializeToString()
    edge.answers[methods.ADD_CONTACT.name] = partial(answered, answer)
    await client.people.add(number, name)


async def test_a_name_means_whom_another_process_of_the_profile_has_given_it_to(
    edge: SocketEdge, shared: Shared
) -> None:
    name_contacts(edge, ("Bob", PEER))
    leader, follower = await shared.open(), await shared.open()
    assert await leader.people.resolve("Bob") == await follower.people.resolve("Bob") == PEER

    await add_contact(edge, follower, ("+441632960002", "Robert", PEER))
    await add_contact(edge, follower, ("+441632960003", "Bob", CAROL))

    assert await leader.people.resolve("Bob") == CAROL


async def test_what_a_process_learns_later_takes_no_new_name_away(edge: SocketEdge, shared: Shared) -> None:
    name_contacts(edge, ("Bob", PEER))
    leader, follower = await shared.open(), await shared.open()
    await leader.people.list()
    await add_contact(edge, follower, (PHONE, "Robert", PEER))

    await leader.people.look_up(["+441632960009"])

    third = await shared.open()
    assert await third.people.name_of(PEER) == "Robert"


async def test_a_name_of_another_device_is_learnt_by_every_process_of_the_profile(
    edge: SocketEdge, shared: Shared
) -> None:
    name_contacts(edge, ("Bob", PEER))
    leader, follower = await shared.open(), await shared.open()
    assert await leader.people.resolve("Bob") == await follower.people.resolve("Bob") == PEER
    name_contacts(edge, ("Robert", PEER), ("Bob", CAROL))
    change_contacts(edge, version=7)
    await next_of(follower, views.AccountChanged)

    assert [await client.people.resolve("Bob") for client in (follower, leader)] == [CAROL, CAROL]


def test_what_is_known_of_people_is_told_to_whoever_asks_later() -> None:
    looking = Looking()
    online = PresenceChanged(user_id=PEER, presence=Presence.ONLINE)
    assert looking.watch("one", frozenset({PEER})) == []

    assert looking.told(online, ["one", "two"]) == ["one"]
    assert looking.watch("two", frozenset({PEER, CAROL})) == [online]
    assert looking.watch("two", frozenset({PEER, CAROL})) == []
    assert looking.told(Online(edge="e"), ["one", "two"]) == ["one", "two"]


def test_who_is_refused_is_wanted_no_more_and_who_has_left_wants_nothing() -> None:
    looking = Looking()
    looking.watch("one", frozenset({PEER, CAROL}))
    looking.watch("two", frozenset({CAROL}))
    refused = WatchRefused(user_ids=(CAROL,), reason="LIST_FULL", detail="", retry_after_ms=0)

    assert looking.told(refused, ["one", "two"]) == ["one", "two"]
    assert looking.people == {PEER}
    looking.leave("one")
    assert looking.people == frozenset()


def test_what_was_told_to_whoever_has_left_is_not_told_to_the_next() -> None:
    looking, chat = Looking(), to_person(ME, PEER)
    looking.watch("one", frozenset({PEER}))
    looking.look_at("one", (chat,))
    looking.told(PresenceChanged(user_id=PEER, presence=Presence.ONLINE), ["one"])
    typist = Typist(user_id=PEER)
    looking.told(TypingChanged(conversation_id=CONVERSATION, peer_id=PEER, typists=(typist,)), ["one"])

    looking.leave("one")

    assert looking.watch("two", frozenset({PEER})) == []
    assert looking.look_at("two", (chat,)) == []


def test_the_chat_that_was_opened_last_comes_first() -> None:
    looking = Looking()
    one, two, three = (to_group(bytes([number]) * 16) for number in (1, 2, 3))
    looking.look_at("one", (one, two))
    looking.look_at("two", (three, two))
    typing = TypingChanged(conversation_id=two.conversation_id, peer_id=b"", typists=())
    looking.told(typing, ["one", "two"])

    first = list(looking.chats)
    assert looking.look_at("three", (two,)) == [typing]
    assert looking.look_at("one", ()) == []
    assert (first, list(looking.chats)) == ([three, two, one], [two, three])


# What they say to each other


@given(st.one_of([st.from_type(kind) for kind in get_args(views.Event)]))
def test_every_event_is_the_same_on_the_other_side(event: Any) -> None:
    said = from_line(to_line({"event": event}))

    assert said == {"event": event}
    assert {type(getattr(said["event"], field.name)) for field in fields(event)} == {
        type(getattr(event, field.name)) for field in fields(event)
    }


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("TOO_LATE", "no", retry_after_ms=5),
        SessionEndedError(4409, "replaced"),
        NotConnectedError("gone"),
        StoreError("full"),
        ChappeClientError("else"),
    ],
)
def test_errors_are_the_same_on_the_other_side(error: ChappeClientError) -> None:
    said = to_error(from_line(to_line({"error": error_fields(error)}))["error"])

    assert (type(said), str(said), vars(said)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"a": {"$": "Unheard"}}', b'{"a": {"$": "Online"}}', b'"x"'])
def test_a_line_that_is_none_of_ours_makes_nothing(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="none of ours"):
        from_line(line)
