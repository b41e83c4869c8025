"""The ways to phones and to svc_message."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import message_service_pb2, message_service_pb2_grpc
from chappe.runtime.contract import validate
from chappe.runtime.errors import UnavailableError
from svc_identity.adapters.inbox_grpc import GrpcInbox
from svc_identity.adapters.sms_sender_console import ConsoleSmsSender
from svc_identity.model import NO_USER, ChangeKind, Phone, UserId
from svc_identity.model.group import GroupChange, GroupChangeKind, GroupId, GroupRole
from svc_identity.ports import InboxEvent
from tests.runtime.probe import ALONE

ADA, BOB = UserId(b"a" * 16), UserId(b"b" * 16)


class FakeMessages(message_service_pb2_grpc.MessageServiceServicer):
    def __init__(self) -> None:
        self.events: list[message_service_pb2.InboxEvent] = []

    async def AppendEvents(self, request: message_service_pb2.AppendEventsRequest, context: Any) -> Any:
        validate(request)
        self.events += request.events
        return message_service_pb2.AppendEventsResponse()

    def Submit(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Send(self, request: message_service_pb2.SendRequest, context: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def served(messages: FakeMessages) -> AsyncIterator[str]:
    server = grpc.aio.server(options=ALONE)
    message_service_pb2_grpc.add_MessageServiceServicer_to_server(messages, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


def event(kind: ChangeKind, recipient: UserId, *, is_for_others: bool = False) -> InboxEvent:
    return InboxEvent(b"c" * 16, kind, ADA, 7, (recipient,), is_for_others=is_for_others)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (ChangeKind.PROFILE, item_pb2.ACCOUNT_CHANGE_PROFILE),
        (ChangeKind.CONTACTS, item_pb2.ACCOUNT_CHANGE_CONTACTS),
        (ChangeKind.BLOCKS, item_pb2.ACCOUNT_CHANGE_BLOCKS),
        (ChangeKind.DEVICES, item_pb2.ACCOUNT_CHANGE_DEVICES),
        (ChangeKind.SETTINGS, item_pb2.ACCOUNT_CHANGE_SETTINGS),
    ],
)
async def test_own_change_arrives_as_an_account_event(kind: ChangeKind, change: int) -> None:
    messages = FakeMessages()
    async with served(messages) as address, grpc.aio.insecure_channel(address) as channel:
        await GrpcInbox(channel).append([event(kind, ADA)])

    (sent,) = messages.events
    assert (sent.change_id, list(sent.user_ids)) == (b"c" * 16, [ADA])
    assert (sent.item.account.change, sent.item.account.version) == (change, 7)


async def test_new_profile_arrives_as_a_profile_event_at_others() -> None:
    messages = FakeMessages()
    async with served(messages) as address, grpc.aio.insecure_channel(address) as channel:
        await GrpcInbox(channel).append([event(ChangeKind.PROFILE, BOB, is_for_others=True)])

    (sent,) = messages.events
    assert list(sent.user_ids) == [BOB]
    assert (sent.item.profile.user_id, sent.item.profile.version) == (ADA, 7)


@pytest.mark.parametrize("kind", list(GroupChangeKind))
async def test_change_of_a_group_arrives_as_what_it_was(kind: GroupChangeKind) -> None:
    change = GroupChange(
        group_id=GroupId(b"g" * 16),
        version=7,
        kind=kind,
        actor_id=ADA,
        user_ids=(BOB,),
        group_name="Towers",
        role=GroupRole.ADMIN,
        member_count=3,
        change_ms=1_790_000_000_000,
    )
    messages = FakeMessages()
    async with served(messages) as address, grpc.aio.insecure_channel(address) as channel:
        sent = InboxEvent(b"c" * 16, ChangeKind.GROUP, NO_USER, 7, (ADA, BOB), is_for_others=True, group=change)
        await GrpcInbox(channel).append([sent])

    (arrived,) = messages.events
    assert list(arrived.user_ids) == [ADA, BOB]
    assert arrived.item.group_change == item_pb2.GroupChangeEvent(
        group_id=b"g" * 16,
        version=7,
        change=item_pb2.GroupChange.Value(f"GROUP_CHANGE_{kind.name}"),
        actor_user_id=ADA,
        user_ids=[BOB],
        group_name="Towers",
        role=item_pb2.GROUP_ROLE_ADMIN,
        changed_ms=1_790_000_000_000,
        member_count=3,
    )


async def test_ledger_that_is_away_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(UnavailableError, match="svc_message"):
            await GrpcInbox(channel).append([event(ChangeKind.PROFILE, ADA)])


async def test_console_shows_the_code() -> None:
    output = io.StringIO()

    await ConsoleSmsSender(output).send_code(Phone("+447700900001"), "123456")

    assert output.getvalue() == "code for +447700900001: 123456\n"
