"""Counts of own messages to groups are asked for until somebody answers: over a real socket to a small edge."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2, server_frame_pb2
from chappe.api.message.v1 import receipt_service_pb2
from chappe.api.type.v1 import error_reason_pb2
from chappe.client import Client, GroupTickChanged, Message, recounting
from chappe.client.destination import to_group
from chappe.client.methods import BATCH_GET_RECEIPTS, LIST_CONTACTS, LIST_GROUPS
from chappe.client.mint import time_ms_of
from chappe.client.parts import ClientParts
from chappe.client.seams import Seams, SystemRandomness
from chappe.client.store_sqlite import SqliteStore
from tests.client.group_model import GROUP
from tests.client.model_edge import DEVICE, ME
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import next_of
from tests.client.test_connection import HastyClock, until

OTHER_DEVICE = 2


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        edge.answers[LIST_CONTACTS.name] = lambda _: b""
        edge.answers[LIST_GROUPS.name] = lambda _: b""
        yield edge


def count(payload: bytes) -> bytes:
    """Counts every message that is asked about as delivered to one of two."""
    question = receipt_service_pb2.BatchGetReceiptsRequest.FromString(payload)
    counts = [
        receipt_service_pb2.ReceiptCounts(
            message_id=query.message_id, is_found=True, recipient_count=2, delivered_count=1
        )
        for query in question.queries
    ]
    return receipt_service_pb2.BatchGetReceiptsResponse(counts=counts).SerializeToString()


def refuse(_payload: bytes) -> server_frame_pb2.CallError:
    return server_frame_pb2.CallError(
        code=14, reason=error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE, detail="the ledger's store is away"
    )


def tell(edge: SocketEdge, told_ms: int = 0) -> None:
    """Says in the log that messages to the group came further."""
    push_news(edge, item_pb2.GroupReceiptEvent(group_id=GROUP, recorded_ms=told_ms))


def push_news(edge: SocketEdge, news: item_pb2.GroupReceiptEvent) -> None:
    edge.model.log.append(item_pb2.Item(position=bytes(16), group_receipt=news))
    # The cursor behind it, so that the log does not say it again to the next session.
    edge.push(cursor=len(edge.model.log))


async def counted(me: Client) -> list[str]:
    return [str(message.counts) for message in await me.stored_history(GROUP)]


async def say_and_be_told(edge: SocketEdge, me: Client) -> Message:
    message = await me.send(to_group(GROUP), "hello")
    tell(edge)
    await until(lambda: BATCH_GET_RECEIPTS.name in edge.calls)
    return message


async def test_counts_are_asked_for_again_after_a_refusal(edge: SocketEdge, folder: Path) -> None:
    edge.answers[BATCH_GET_RECEIPTS.name] = refuse
    clock = HastyClock()
    parts = ClientParts(seams=Seams(clock, SystemRandomness()))
    async with chappe_client.connect(edge.address, profile=folder, parts=parts) as me:
        message = await say_and_be_told(edge, me)
        await until(lambda: edge.calls.count(BATCH_GET_RECEIPTS.name) > 1)
        edge.answers[BATCH_GET_RECEIPTS.name] = count

        changed = await next_of(me, GroupTickChanged)

        assert (changed.message_id, str(changed.counts)) == (message.message_id, "delivered to 1/2, read by 0/2")


async def test_counts_are_asked_for_again_by_the_next_session(edge: SocketEdge, folder: Path) -> None:
    def part(_payload: bytes) -> server_frame_pb2.CallError:
        edge.answers[BATCH_GET_RECEIPTS.name] = count
        edge.drop()
        return refuse(b"")

    edge.answers[BATCH_GET_RECEIPTS.name] = part
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await say_and_be_told(edge, me)

        await next_of(me, GroupTickChanged)

        assert await counted(me) == ["delivered to 1/2, read by 0/2"]


async def test_counts_are_asked_for_by_the_next_process(edge: SocketEdge, folder: Path) -> None:
    edge.answers[BATCH_GET_RECEIPTS.name] = refuse
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await say_and_be_told(edge, me)
    edge.answers[BATCH_GET_RECEIPTS.name] = count

    async with chappe_client.connect(edge.address, profile=folder) as me:
        await next_of(me, GroupTickChanged)

        assert await counted(me) == ["delivered to 1/2, read by 0/2"]


async def test_what_was_answered_is_not_asked_for_again(edge: SocketEdge, folder: Path) -> None:
    edge.answers[BATCH_GET_RECEIPTS.name] = count
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await say_and_be_told(edge, me)
        await next_of(me, GroupTickChanged)

    store = SqliteStore(folder / "store.db", ME, DEVICE)
    assert store.groups.to_ask() == []
    store.close()


async def test_an_own_message_that_is_heard_of_after_the_news_is_counted(edge: SocketEdge, folder: Path) -> None:
    edge.answers[BATCH_GET_RECEIPTS.name] = count
    async with chappe_client.connect(edge.address, profile=folder) as me:
        first = await say_and_be_told(edge, me)
        await next_of(me, GroupTickChanged)
        accepted_ms = time_ms_of(first.message_id)
        asked = edge.calls.count(BATCH_GET_RECEIPTS.name)
        tell(edge, told_ms=accepted_ms + 60_000)
        await until(lambda: edge.calls.count(BATCH_GET_RECEIPTS.name) > asked)
        item = said_elsewhere(accepted_ms + 1)
        edge.model.log.append(item)
        edge.push()

        changed = await next_of(me, GroupTickChanged)

        assert changed.message_id == item.message.message_id


async def test_older_messages_are_asked_about_while_the_answers_are_news(
    edge: SocketEdge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recounting, "RECOUNTED", 2)
    monkeypatch.setattr(recounting, "QUIET_PAGES", 1)
    edge.answers[BATCH_GET_RECEIPTS.name] = count
    async with chappe_client.connect(edge.address, profile=folder) as me:
        for text in ("one", "two", "three", "four", "five"):
            await me.send(to_group(GROUP), text)
        tell(edge)
        for _ in range(5):
            await next_of(me, GroupTickChanged)
        tell(edge)
        await until(lambda: edge.calls.count(BATCH_GET_RECEIPTS.name) == 3 + 1)

        assert await counted(me) == ["delivered to 1/2, read by 0/2"] * 5


async def test_older_messages_are_asked_about_behind_some_that_are_known(
    edge: SocketEdge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recounting, "RECOUNTED", 2)
    monkeypatch.setattr(recounting, "QUIET_PAGES", 2)
    edge.answers[BATCH_GET_RECEIPTS.name] = count
    async with chappe_client.connect(edge.address, profile=folder) as me:
        sent = [await me.send(to_group(GROUP), text) for text in ("one", "two", "three")]
        push_counts(edge, sent[1:])
        for _ in sent[1:]:
            await next_of(me, GroupTickChanged)

        tell(edge)
        changed = await next_of(me, GroupTickChanged)

        assert changed.message_id == sent[0].message_id
        assert await counted(me) == ["delivered to 1/2, read by 0/2"] * 3


async def test_a_ledger_that_answers_slowly_is_asked_less(
    edge: SocketEdge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recounting, "RECOUNTED", 1)
    clock = HastyClock()
    asked_s: list[float] = []

    def count_slowly(payload: bytes) -> bytes:
        asked_s.append(clock.now_s)
        clock.pass_s(100.0)
        return count(payload)

    edge.answers[BATCH_GET_RECEIPTS.name] = count_slowly
    parts = ClientParts(seams=Seams(clock, SystemRandomness()))
    async with chappe_client.connect(edge.address, profile=folder, parts=parts) as me:
        for text in ("one", "two", "three"):
            await me.send(to_group(GROUP), text)
        tell(edge)
        await until(lambda: len(asked_s) == 3)

    assert [after - before >= 100.0 + 400.0 for before, after in pairwise(asked_s)] == [True, True]


def push_counts(edge: SocketEdge, messages: Sequence[Message]) -> None:
    """Tells how far messages have come."""
    news = item_pb2.GroupReceiptEvent(
        group_id=GROUP,
        message_ids=[message.message_id for message in messages],
        delivered_counts=[1] * len(messages),
        read_counts=[0] * len(messages),
        recipient_counts=[2] * len(messages),
    )
    push_news(edge, news)


def said_elsewhere(accepted_ms: int) -> item_pb2.Item:
    """Returns a message to the group from another device of the user."""
    message = item_pb2.MessageEvent(
        message_id=accepted_ms.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7),
        conversation_id=GROUP,
        group_id=GROUP,
        sender_user_id=ME,
        sender_device_id=OTHER_DEVICE,
        accepted_ms=accepted_ms,
    )
    return item_pb2.Item(position=b"\x01" * 16, message=message)
