"""What the log does not hold any more is read after a Resync, until all of it is there: over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2, server_frame_pb2
from chappe.api.identity.v1 import group_pb2, group_service_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.api.type.v1 import receipt_state_pb2
from chappe.client import Client, GroupTickChanged, Message, Role, Tick
from chappe.client.destination import to_group, to_person
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, SessionEndedError, StoreError
from chappe.client.insisting import LAST_PAUSE_S, Insisting
from chappe.client.methods import BATCH_GET_RECEIPTS, LIST_CONTACTS, LIST_CONVERSATIONS, LIST_GROUPS, LIST_MESSAGES
from chappe.client.mint import conversation_of
from chappe.client.parts import ClientParts
from chappe.client.seams import Seams, SystemRandomness
from chappe.client.store_sqlite import SqliteStore
from tests.client.fakes import Dice, ToldClock
from tests.client.group_model import ADDED, GROUP, answer, event, group_item
from tests.client.model_edge import DEVICE, ME
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import hello_item, name_contacts, next_of
from tests.client.test_connection import HastyClock, until
from tests.client.test_recounting import count

PEERS = [bytes([number]) * 16 for number in (11, 12, 13)]

DELIVERED = receipt_state_pb2.RECEIPT_STATE_DELIVERED
READ = receipt_state_pb2.RECEIPT_STATE_READ

Refuse = Callable[[bytes], server_frame_pb2.CallError | None]


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


def refusal(reason: int) -> server_frame_pb2.CallError:
    return server_frame_pb2.CallError(code=14, reason=reasons.ErrorReason.ValueType(reason), detail="not now")


class Archive:
    """The chats of a ledger, one message in each, and which of their pages it refuses."""

    def __init__(self, edge: SocketEdge) -> None:
        self.asked: list[bytes] = []
        """Of which peers a page was asked for."""
        self.refuse: Refuse = lambda _peer: None
        edge.answers[LIST_CONVERSATIONS.name] = self._chats
        edge.answers[LIST_MESSAGES.name] = self._page
        self._edge = edge

    @property
    def listings(self) -> int:
        """How often the list of chats was asked for."""
        return self._edge.calls.count(LIST_CONVERSATIONS.name)

    def hold(
        self,
        chats: list[conversation_service_pb2.Conversation],
        pages: dict[bytes, list[history_service_pb2.StoredMessage]],
    ) -> None:
        """Has other chats, each with its page by the peer."""
        listed = conversation_service_pb2.ListConversationsResponse(conversations=chats).SerializeToString()

        def page(payload: bytes) -> bytes:
            peer = history_service_pb2.ListMessagesRequest.FromString(payload).peer_user_id
            return history_service_pb2.ListMessagesResponse(messages=pages[peer]).SerializeToString()

        self._edge.answers[LIST_CONVERSATIONS.name] = lambda asked: (
            b"" if conversation_service_pb2.ListConversationsRequest.FromString(asked).is_archived else listed
        )
        self._edge.answers[LIST_MESSAGES.name] = page

    def resync(self) -> None:
        """Says that the log cannot be resumed from."""
        self._edge.model.tell(resync=server_frame_pb2.Resync(reason=reasons.ERROR_REASON_CURSOR_EXPIRED))
        self._edge.deliver()

    def _chats(self, payload: bytes) -> bytes:
        if conversation_service_pb2.ListConversationsRequest.FromString(payload).is_archived:
            return b""
        chats = [
            conversation_service_pb2.Conversation(conversation_id=conversation_of(ME, peer), peer_user_id=peer)
            for peer in PEERS
        ]
        return conversation_service_pb2.ListConversationsResponse(conversations=chats).SerializeToString()

    def _page(self, payload: bytes) -> bytes | server_frame_pb2.CallError:
        peer = history_service_pb2.ListMessagesRequest.FromString(payload).peer_user_id
        self.asked.append(peer)
        refused = self.refuse(peer)
        if refused is not None:
            return refused
        stored = history_service_pb2.StoredMessage(message=said_by(peer).message)
        return history_service_pb2.ListMessagesResponse(messages=[stored]).SerializeToString()


def said_by(peer: bytes) -> item_pb2.Item:
    item = hello_item(peer[0], f"{peer[0]}")
    item.message.sender_user_id = peer
    item.message.conversation_id = conversation_of(ME, peer)
    return item


@pytest.fixture
def archive(edge: SocketEdge) -> Archive:
    return Archive(edge)


def connect(edge: SocketEdge, folder: Path) -> Client:
    parts = ClientParts(seams=Seams(HastyClock(), SystemRandomness()))
    return chappe_client.connect(edge.address, profile=folder, parts=parts)


async def read(me: Client, count: int) -> list[str]:
    """Returns what the next so many messages say."""
    return sorted([(await next_of(me, Message)).text for _ in range(count)])


def is_whole(folder: Path) -> bool:
    store = SqliteStore(folder / "store.db", ME, DEVICE)
    due = store.rebuilds.due()
    store.close()
    return due == 0


async def test_a_page_that_was_refused_is_read_later(edge: SocketEdge, folder: Path, archive: Archive) -> None:
    refusals = {PEERS[1]: [refusal(reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE)]}
    archive.refuse = lambda peer: refusals[peer].pop() if refusals.get(peer) else None

    async with connect(edge, folder) as me:
        archive.resync()
        texts = await read(me, 3)

    assert texts == ["11", "12", "13"]
    assert archive.asked == [PEERS[0], PEERS[1], PEERS[2], PEERS[1]]


async def test_a_page_that_is_never_given_out_holds_up_no_other(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    archive.refuse = lambda peer: refusal(reasons.ERROR_REASON_INTERNAL) if peer == PEERS[0] else None

    async with connect(edge, folder) as me:
        archive.resync()
        texts = await read(me, 2)
        await until(lambda: archive.asked.count(PEERS[0]) > 2)

    assert texts == ["12", "13"]
    assert not is_whole(folder)


async def test_a_chat_that_is_gone_meanwhile_is_passed_over(edge: SocketEdge, folder: Path, archive: Archive) -> None:
    archive.refuse = lambda peer: refusal(reasons.ERROR_REASON_NOT_IN_CONVERSATION) if peer == PEERS[0] else None

    async with connect(edge, folder) as me:
        archive.resync()
        await read(me, 2)
        await until(lambda: archive.listings == 2)

    assert is_whole(folder)
    assert archive.asked == PEERS


async def test_what_a_session_did_not_get_to_is_read_in_the_next(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    cuts = ["the call", "its repetition"]

    def cut(peer: bytes) -> server_frame_pb2.CallError | None:
        if peer != PEERS[1] or not cuts:
            return None
        cuts.pop()
        edge.drop()
        return refusal(reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE)

    archive.refuse = cut
    async with connect(edge, folder) as me:
        archive.resync()

        assert await read(me, 3) == ["11", "12", "13"]


async def test_what_a_process_did_not_get_to_is_read_by_the_next(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    archive.refuse = lambda _peer: refusal(reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE)
    async with connect(edge, folder):
        archive.resync()
        await until(lambda: archive.asked)
    archive.refuse = lambda _peer: None

    async with connect(edge, folder) as me:
        assert await read(me, 3) == ["11", "12", "13"]


async def test_what_was_read_is_not_read_again_before_the_next_resync(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    async with connect(edge, folder) as me:
        archive.resync()
        await read(me, 3)
        await until(lambda: edge.model.acked_ids)
    assert is_whole(folder)

    async with connect(edge, folder) as me:
        edge.model.log.append(hello_item(99, "later"))
        edge.push()
        await next_of(me, Message)
        listings = archive.listings
        archive.resync()
        await until(lambda: archive.listings == 4)

    assert listings == 2


def said_to(peer: bytes, number: int, *, group_id: bytes = b"") -> item_pb2.MessageEvent:
    message = hello_item(number, f"to {number}").message
    message.sender_user_id = ME
    message.recipient_user_id = peer
    message.conversation_id = group_id or conversation_of(ME, peer)
    message.group_id = group_id
    return message


async def test_what_was_read_and_how_far_own_messages_came_is_known_again(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    peer, theirs = PEERS[0], said_by(PEERS[0]).message
    delivered, read_by_peer = said_to(peer, 21), said_to(peer, 22)
    to_group = said_to(b"", 23, group_id=GROUP)
    chats = [
        conversation_service_pb2.Conversation(
            conversation_id=conversation_of(ME, peer), peer_user_id=peer, read_upto=theirs.message_id
        ),
        conversation_service_pb2.Conversation(conversation_id=GROUP, group_id=GROUP),
    ]
    pages = {
        peer: [
            history_service_pb2.StoredMessage(message=read_by_peer, state=READ, delivered_ms=5, read_ms=7),
            history_service_pb2.StoredMessage(message=delivered, state=DELIVERED, delivered_ms=6),
            history_service_pb2.StoredMessage(message=theirs, state=READ, delivered_ms=3, read_ms=4),
        ],
        b"": [history_service_pb2.StoredMessage(message=to_group)],
    }
    archive.hold(chats, pages)
    edge.answers[BATCH_GET_RECEIPTS.name] = count

    async with connect(edge, folder) as me:
        archive.resync()
        counted = await next_of(me, GroupTickChanged)
        history = await me.stored_history(to_person(ME, peer))
        unread = [chat.unread_count for chat in await me.stored_chats()]

    assert [message.tick for message in history] == [Tick.READ, Tick.DELIVERED, Tick.NONE]
    assert (counted.message_id, str(counted.counts)) == (to_group.message_id, "delivered to 1/2, read by 0/2")
    assert unread == [0, 0]


def groups(*listed: group_pb2.Group) -> bytes:
    return group_service_pb2.ListGroupsResponse(groups=listed).SerializeToString()


OTHER = b"\x08" * 16


def other(version: int) -> group_pb2.Group:
    """Returns a second group of the user."""
    group = answer(version, group_name="Climbers")
    group.group_id = OTHER
    return group


async def test_what_became_of_groups_meanwhile_is_known_after_a_resync(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    edge.answers[LIST_GROUPS.name] = lambda _asked: groups(answer(3), other(4))
    async with connect(edge, folder) as me:
        await me.groups.list()
        edge.answers[LIST_GROUPS.name] = lambda _asked: groups(answer(5, group_name="Walkers", member_count=9))
        archive.resync()
        await read(me, 3)
        renamed = await me.groups.get(GROUP)
        assert await me.title(to_group(OTHER)) == "Climbers"
        gone = await me.groups.get(OTHER)

    assert (renamed.name, renamed.member_count, renamed.version) == ("Walkers", 9, 5)
    assert gone.role is Role.NONE


async def test_a_name_is_looked_up_again_after_a_resync(edge: SocketEdge, folder: Path, archive: Archive) -> None:
    name_contacts(edge, ("Bob", PEERS[0]))
    async with connect(edge, folder) as me:
        assert await me.people.resolve("Bob") == PEERS[0]
        name_contacts(edge, ("Robert", PEERS[0]), ("Bob", PEERS[1]))
        archive.resync()
        await read(me, 3)

        assert [await me.people.resolve("Bob") for _ in range(2)] == [PEERS[1]] * 2

    assert edge.calls.count(LIST_CONTACTS.name) == 2


async def test_groups_that_are_never_listed_hold_up_no_chat(edge: SocketEdge, folder: Path, archive: Archive) -> None:
    edge.answers[LIST_GROUPS.name] = lambda _asked: refusal(reasons.ERROR_REASON_INTERNAL)

    async with connect(edge, folder) as me:
        archive.resync()
        texts = await read(me, 3)
        await until(lambda: edge.calls.count(LIST_GROUPS.name) > 1)

    assert texts == ["11", "12", "13"]
    assert not is_whole(folder)


async def test_a_group_that_is_joined_while_groups_are_listed_is_not_left(
    edge: SocketEdge, folder: Path, archive: Archive
) -> None:
    edge.answers[LIST_GROUPS.name] = lambda _asked: groups(answer(3))

    def list_slowly(_asked: bytes) -> bytes:
        edge.model.log.append(group_item(event(4, ADDED, ME)))
        edge.push()
        edge.deliver()
        return groups()

    async with connect(edge, folder) as me:
        await me.groups.list()
        edge.answers[LIST_GROUPS.name] = list_slowly
        archive.resync()
        await read(me, 3)
        kept = await me.groups.get(GROUP)

    assert kept.role is Role.MEMBER


class Work:
    """Fails as it is told to, and counts."""

    def __init__(self, *failures: ChappeClientError) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


class WaitingClock(ToldClock):
    """A clock whose waits give way to others."""

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s)
        await asyncio.sleep(0)


def insisting(work: Work, clock: ToldClock, *, has_session: bool = True) -> Insisting:
    engine: Any = SimpleNamespace(core=SimpleNamespace(session=SimpleNamespace(session_id=int(has_session))))
    return Insisting(work, engine, Seams(clock, Dice()))


async def test_what_fails_is_done_again_later_each_time_whatever_failed() -> None:
    failures = [RefusedError("INTERNAL", ""), StoreError("busy"), NotConnectedError("no answer in 15 s")] * 3
    work, clock = Work(*failures), WaitingClock()
    chore = insisting(work, clock)
    chore.due()

    running = asyncio.create_task(chore.run())
    await until(lambda: work.calls == 10)
    running.cancel()

    assert clock.waits == [1, 2, 4, 8, 16, 32, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S]


async def test_without_a_session_the_next_one_is_waited_for() -> None:
    work, clock = Work(NotConnectedError("no edge"), SessionEndedError(4401, "revoked")), WaitingClock()
    chore = insisting(work, clock, has_session=False)
    chore.due()
    running = asyncio.create_task(chore.run())
    await until(lambda: work.calls == 1)

    chore.due()
    await running

    assert (work.calls, clock.waits) == (2, [])
