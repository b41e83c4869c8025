"""Groups through the client, over a real socket to a small edge."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message as Wire

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.identity.v1 import contact_service_pb2, group_pb2, group_service_pb2, profile_service_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2, receipt_service_pb2
from chappe.api.type.v1 import receipt_state_pb2
from chappe.client import (
    Client,
    Counts,
    GroupChanged,
    GroupEvent,
    GroupTickChanged,
    Message,
    RefusalReason,
    Role,
    Tick,
    methods,
)
from chappe.client.content import SUITE_NONE, encode_text
from chappe.client.destination import to_group
from chappe.client.errors import UnknownGroupError, UnknownPersonError
from chappe.client.methods import Method
from tests.client.group_model import ADDED, CREATED, GROUP, LEFT, UPDATED, answer, event, group_item, user
from tests.client.model_edge import ME, PEER
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import PHONE, hello_item, next_of


class Office:
    """Answers calls, and keeps what was asked."""

    def __init__(self, edge: SocketEdge) -> None:
        self.edge = edge
        self.asked: list[Any] = []

    def say(self, method: Method[Any, Any], *answers: Wire) -> None:
        """Answers a method, the last answer again and again."""
        left = list(answers)

        def reply(payload: bytes) -> bytes:
            self.asked.append(method.question.FromString(payload))
            return (left.pop(0) if len(left) > 1 else left[0]).SerializeToString()

        self.edge.answers[method.name] = reply


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        edge.answers[methods.LIST_CONTACTS.name] = lambda _: b""
        edge.answers[methods.LIST_GROUPS.name] = lambda _: b""
        yield edge


@pytest.fixture
def office(edge: SocketEdge) -> Office:
    return Office(edge)


@pytest.fixture
async def me(edge: SocketEdge, folder: Path) -> AsyncIterator[Client]:
    async with chappe_client.connect(edge.address, profile=folder) as me:
        yield me


async def hear(edge: SocketEdge, me: Client, change: item_pb2.GroupChangeEvent) -> GroupChanged:
    edge.model.log.append(group_item(change))
    edge.push()
    return await next_of(me, GroupChanged)


def sent(edge: SocketEdge) -> send_pb2.Send:
    return send_pb2.Send.FromString(list(edge.model.stored.values())[-1])


async def test_a_message_goes_to_a_group_by_name_with_the_version_that_the_device_knows(
    edge: SocketEdge, me: Client
) -> None:
    await hear(edge, me, event(4, ADDED, ME))
    edge.answers[methods.GET_GROUP.name] = lambda _: group_service_pb2.GetGroupResponse(
        group=answer(4, expiry_s=60)
    ).SerializeToString()

    message = await me.send("hikers", "up we go")

    action = sent(edge).message
    assert (action.group_id, action.members_version, action.expiry_s) == (GROUP, 4, 60)
    assert (message.group_id, message.peer_id, message.tick) == (GROUP, b"", Tick.SENT)
    assert [kept.text for kept in await me.stored_history("Hikers")] == ["up we go"]


@pytest.mark.parametrize("name", [GROUP, GROUP.hex(), GROUP.hex()[:6], "HIKERS"])
async def test_a_group_is_named_by_id_start_of_id_or_name(edge: SocketEdge, me: Client, name: str | bytes) -> None:
    await hear(edge, me, event(1, CREATED, ME))

    where = await me.destination(name)

    assert (where.group_id, where.conversation_id) == (GROUP, GROUP)


async def test_a_name_of_a_contact_and_of_a_group_alike_means_neither(edge: SocketEdge, me: Client) -> None:
    await hear(edge, me, event(1, CREATED, ME, name="Bob"))
    contact = contact_service_pb2.Contact(phone_number=PHONE, contact_name="Bob", user_id=PEER)
    edge.answers[methods.LIST_CONTACTS.name] = lambda _: contact_service_pb2.ListContactsResponse(
        contacts=[contact]
    ).SerializeToString()

    with pytest.raises(UnknownPersonError, match=f"a contact and a group of yours; use .*{GROUP.hex()}"):
        await me.destination("bob")
    assert (await me.destination(GROUP.hex()[:8])).group_id == GROUP
    assert (await me.destination(PHONE)).peer_id == PEER


async def test_a_contact_is_meant_by_the_name_of_a_group_that_one_has_left(edge: SocketEdge, me: Client) -> None:
    await hear(edge, me, event(1, CREATED, ME, name="Bob"))
    await hear(edge, me, event(2, LEFT, ME, name="Bob"))
    contact = contact_service_pb2.Contact(phone_number=PHONE, contact_name="Bob", user_id=PEER)
    edge.answers[methods.LIST_CONTACTS.name] = lambda _: contact_service_pb2.ListContactsResponse(
        contacts=[contact]
    ).SerializeToString()

    assert (await me.destination("bob")).peer_id == PEER


@pytest.mark.parametrize("name", ["", " "])
async def test_no_name_means_no_group_even_one_whose_name_was_not_heard(
    edge: SocketEdge, me: Client, name: str
) -> None:
    item = hello_item(1, "from a group")
    item.message.ClearField("recipient_user_id")
    item.message.group_id = item.message.conversation_id = GROUP
    edge.model.log.append(item)
    edge.push()
    await next_of(me, Message)

    with pytest.raises(UnknownGroupError, match="no group is named"):
        await me.groups.get(name)
    with pytest.raises(UnknownPersonError, match="no chat is named"):
        await me.send(name, "hello")


async def test_two_groups_of_one_name_are_told_apart_by_id(edge: SocketEdge, me: Client) -> None:
    await hear(edge, me, event(1, CREATED, ME))
    other = event(1, CREATED, ME)
    other.group_id = user(0xAB)
    await hear(edge, me, other)

    with pytest.raises(UnknownGroupError, match=f"{GROUP.hex()}.*{other.group_id.hex()}"):
        await me.send("hikers", "hello")
    assert (await me.destination("abab")).group_id == other.group_id


async def test_nobody_and_no_group_is_said_with_what_there_is(edge: SocketEdge, me: Client, office: Office) -> None:
    office.say(methods.LIST_GROUPS, group_service_pb2.ListGroupsResponse(groups=[answer(1)]))

    with pytest.raises(UnknownPersonError, match=r"neither a contact .*\(nobody\) nor a group of yours \(Hikers\)"):
        await me.send("nowhere", "hello")


async def test_a_group_that_only_the_server_knows_is_found_by_name(me: Client, office: Office) -> None:
    office.say(methods.LIST_GROUPS, group_service_pb2.ListGroupsResponse(groups=[answer(5)]))

    assert (await me.destination("Hikers")).group_id == GROUP
    assert (await me.groups.get(GROUP)).version == 5


async def test_counts_rise_and_are_kept_with_the_message(edge: SocketEdge, me: Client) -> None:
    await hear(edge, me, event(1, CREATED, ME))
    message = await me.send(GROUP, "hello")
    for number, counts in enumerate([(1, 0), (2, 2), (2, 1)], 1):
        edge.model.log.append(receipt(number, message, *counts))
        edge.push()

    first, second = await next_of(me, GroupTickChanged), await next_of(me, GroupTickChanged)
    [kept] = await me.stored_history(GROUP)

    assert str(first.counts) == "delivered to 1/2, read by 0/2"
    assert first.counts.tick is Tick.SENT
    assert second.counts == kept.counts == Counts(delivered=2, read=2, recipients=2)
    assert (kept.tick, kept.counts.tick) == (Tick.READ, Tick.READ)


def receipt(number: int, message: Message, delivered: int, read: int) -> item_pb2.Item:
    counts = item_pb2.GroupReceiptEvent(
        group_id=GROUP,
        message_ids=[message.message_id],
        delivered_counts=[delivered],
        read_counts=[read],
        recipient_counts=[2],
        recorded_ms=number,
    )
    return item_pb2.Item(position=number.to_bytes(16, "big"), group_receipt=counts)


async def test_reading_a_group_is_told_with_its_id(edge: SocketEdge, me: Client) -> None:
    item = hello_item(1, "hello")
    item.message.group_id = item.message.conversation_id = GROUP
    item.message.recipient_user_id = b""
    edge.model.log.append(item)
    edge.push()

    message = await next_of(me, Message)
    await me.mark_read(message)
    await me.mark_read(GROUP)

    assert (message.group_id, message.sender_id) == (GROUP, PEER)
    assert edge.model.read_upto == [message.message_id] * 2
    assert sent(edge).read.group_id == GROUP


async def test_a_group_is_made_and_changed_by_calls(me: Client, office: Office) -> None:
    refusal = group_pb2.MemberRefusal(user_id=user(5), reason=group_pb2.MEMBER_REFUSAL_REASON_NOT_ALLOWED)
    office.say(methods.CREATE_GROUP, group_service_pb2.CreateGroupResponse(group=answer(1), refusals=[refusal]))
    office.say(methods.ADD_MEMBERS, group_service_pb2.AddMembersResponse(group=answer(2, member_count=4)))
    office.say(methods.UPDATE_GROUP, group_service_pb2.UpdateGroupResponse(group=answer(3, group_name="Climbers")))
    office.say(methods.SET_ROLE, group_service_pb2.SetRoleResponse(group=answer(4)))
    office.say(methods.REMOVE_MEMBER, group_service_pb2.RemoveMemberResponse(group=answer(5)))
    office.say(methods.LEAVE_GROUP, group_service_pb2.LeaveGroupResponse())

    made = await me.groups.create("Hikers", [PHONE, user(5)], description="up and down")
    added = await me.groups.add(made.group, [user(4)])
    renamed = await me.groups.update("Hikers", name="Climbers")
    await me.groups.set_role("climbers", user(4), Role.ADMIN)
    await me.groups.remove(GROUP, user(4))
    await me.groups.leave(GROUP)

    create, add, update, role, remove, leave = office.asked
    assert [(each.user_id, each.reason) for each in made.refusals] == [(user(5), RefusalReason.NOT_ALLOWED)]
    assert (create.group_name, list(create.user_ids), len(create.request_id)) == ("Hikers", [PEER, user(5)], 16)
    assert (list(add.user_ids), added.group.member_count) == ([user(4)], 4)
    assert (update.HasField("description"), renamed.name) == (False, "Climbers")
    assert (role.role, remove.user_id, leave.group_id) == (item_pb2.GROUP_ROLE_ADMIN, user(4), GROUP)


async def test_members_come_from_the_server_once_and_from_events_after_that(
    edge: SocketEdge, me: Client, office: Office
) -> None:
    await hear(edge, me, event(4, ADDED, ME))
    one, two = (
        group_pb2.GroupMember(user_id=user(7), role=item_pb2.GROUP_ROLE_OWNER),
        group_pb2.GroupMember(user_id=ME, role=item_pb2.GROUP_ROLE_MEMBER),
    )
    page = group_service_pb2.ListMembersResponse
    office.say(
        methods.LIST_MEMBERS,
        page(members=[one], version=3, next_page_token="more"),
        page(members=[one, two], version=4),
        page(members=[two, one], version=4),
    )

    members = await me.groups.members(GROUP)
    await hear(edge, me, event(5, ADDED, user(5)))
    more = await me.groups.members(GROUP)

    # The version rose between the pages, so that the first was read again.
    assert [each.page_token for each in office.asked] == ["", "more", ""]
    assert [(each.user_id, each.role) for each in members] == [(user(7), Role.OWNER), (ME, Role.MEMBER)]
    assert user(5) in [each.user_id for each in more]


async def test_invites_are_made_revoked_and_used(me: Client, office: Office) -> None:
    invite = group_pb2.GroupInvite(invite_id=bytes(16), invite_code="A" * 22, expire_ms=5, use_limit=2)
    office.say(methods.CREATE_INVITE, group_service_pb2.CreateInviteResponse(invite=invite))
    office.say(methods.REVOKE_INVITE, group_service_pb2.RevokeInviteResponse())
    office.say(methods.JOIN_BY_INVITE, group_service_pb2.JoinByInviteResponse(group=answer(2)))

    made = await me.groups.invite(GROUP, lifetime_s=60, use_limit=2)
    joined = await me.groups.join(made.code)
    await me.groups.revoke_invites(GROUP, made.invite_id)

    create, join, revoke = office.asked
    assert (create.lifetime_s, create.use_limit, made.expire_ms) == (60, 2, 5)
    assert (join.invite_code, joined.name, revoke.invite_id) == ("A" * 22, "Hikers", made.invite_id)


async def test_what_happens_to_a_group_is_told_and_its_new_settings_are_asked_for(
    edge: SocketEdge, me: Client, office: Office
) -> None:
    office.say(methods.GET_GROUP, group_service_pb2.GetGroupResponse(group=answer(2, group_name="Climbers")))

    created = await hear(edge, me, event(1, CREATED, ME, user(3)))
    renamed = await hear(edge, me, event(2, UPDATED, name="Climbers"))
    group = await me.groups.get(GROUP)
    await me.groups.get(GROUP)

    assert (created.what, created.by_user_id, created.user_ids) == (GroupEvent.CREATED, user(7), (ME, user(3)))
    assert (renamed.what, renamed.name, group.name) == (GroupEvent.UPDATED, "Climbers", "Climbers")
    assert len(office.asked) == 1


async def test_names_of_many_take_one_question(me: Client, office: Office) -> None:
    profiles = [profile_service_pb2.Profile(user_id=user(3), profile_name="Carol")]
    office.say(methods.BATCH_GET_PROFILES, profile_service_pb2.BatchGetProfilesResponse(profiles=profiles))

    names = await me.people.names_of([user(3), user(4), user(3)])
    again = await me.people.names_of([user(3)])

    assert names == {user(3): "Carol", user(4): user(4).hex()}
    assert again == {user(3): "Carol"}
    assert [list(each.user_ids) for each in office.asked] == [[user(3), user(4)]]


def stored(message: Message) -> history_service_pb2.StoredMessage:
    event = item_pb2.MessageEvent(
        message_id=message.message_id,
        conversation_id=message.conversation_id,
        group_id=message.group_id,
        sender_user_id=message.sender_id,
    )
    event.envelope.suite = SUITE_NONE
    event.envelope.content = encode_text(message.text)
    return history_service_pb2.StoredMessage(message=event, state=receipt_state_pb2.RECEIPT_STATE_SENT)


def counts(delivered: int, read: int) -> receipt_service_pb2.BatchGetReceiptsResponse:
    one = receipt_service_pb2.ReceiptCounts(
        is_found=True, recipient_count=2, delivered_count=delivered, read_count=read
    )
    return receipt_service_pb2.BatchGetReceiptsResponse(counts=[one])


async def test_history_and_chats_of_a_group_come_from_the_server_with_counts(me: Client, office: Office) -> None:
    message = await me.send(to_group(GROUP), "hello")
    office.say(methods.BATCH_GET_RECEIPTS, counts(2, 1))
    office.say(methods.LIST_MESSAGES, history_service_pb2.ListMessagesResponse(messages=[stored(message)]))
    chat = conversation_service_pb2.Conversation(
        conversation_id=GROUP, group_id=GROUP, last_message=stored(message), unread_count=0
    )
    office.say(methods.LIST_CONVERSATIONS, conversation_service_pb2.ListConversationsResponse(conversations=[chat]))

    [said] = (await me.history(to_group(GROUP))).messages
    [listed] = await me.chats()

    assert (said.text, str(said.counts), said.tick) == ("hello", "delivered to 2/2, read by 1/2", Tick.DELIVERED)
    assert (listed.group_id, listed.last_message) == (GROUP, said)


async def test_receipts_are_listed_with_the_readers_first(me: Client, office: Office) -> None:
    message = await me.send(to_group(GROUP), "hello")
    receipt = receipt_service_pb2.Receipt
    one = receipt(user_id=user(3), state=receipt_state_pb2.RECEIPT_STATE_DELIVERED, delivered_ms=5)
    two = receipt(user_id=user(4), state=receipt_state_pb2.RECEIPT_STATE_READ, delivered_ms=6, read_ms=7)
    office.say(
        methods.LIST_RECEIPTS,
        receipt_service_pb2.ListReceiptsResponse(receipts=[one], next_page_token="more"),
        receipt_service_pb2.ListReceiptsResponse(receipts=[two]),
    )

    found = await me.receipts(message)

    assert [(each.user_id, each.tick, each.read_ms) for each in found] == [
        (user(4), Tick.READ, 7),
        (user(3), Tick.DELIVERED, 0),
    ]
    assert [each.message.group_id for each in office.asked] == [GROUP, GROUP]


async def test_counts_are_asked_for_when_the_log_says_only_that_something_came_further(
    edge: SocketEdge, me: Client, office: Office
) -> None:
    message = await me.send(to_group(GROUP), "hello")
    office.say(methods.BATCH_GET_RECEIPTS, counts(1, 0))
    edge.model.log.append(item_pb2.Item(position=bytes(16), group_receipt=item_pb2.GroupReceiptEvent(group_id=GROUP)))
    edge.push()

    changed = await next_of(me, GroupTickChanged)

    assert (changed.message_id, str(changed.counts)) == (message.message_id, "delivered to 1/2, read by 0/2")
    assert [query.message_id for query in office.asked[0].queries] == [message.message_id]
