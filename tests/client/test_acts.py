"""What people do with messages through the client, over a real socket to a small edge."""

from pathlib import Path
from typing import Any

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.api.type.v1 import content_pb2, envelope_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.client import methods
from chappe.client.acts import MOST_FORWARDS
from chappe.client.api import Client
from chappe.client.changes import LogChange
from chappe.client.content import SUITE_NONE, Said, encode
from chappe.client.errors import NotConnectedError, RefusedError, StoreError
from chappe.client.parts import ClientParts
from chappe.client.seams import Seams, SystemClock, SystemRandomness
from chappe.client.store_sqlite import SqliteStore
from chappe.client.views import ChatChanged, Deleted, Edited, Expired, Message, Online, Reacted, Reaction
from tests.client.model_edge import CONVERSATION, ME, PEER, message_item
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import edge, folder, hello_item, me, next_of
from tests.client.test_connection import until

__all__ = ["edge", "folder", "me"]

OTHER = b"\x02" * 16


def sent(edge: SocketEdge, number: int = -1) -> send_pb2.Send:
    """Returns one of the sends that the ledger has stored, the last unless told otherwise."""
    return send_pb2.Send.FromString(list(edge.model.stored.values())[number])


def content_of(envelope: envelope_pb2.Envelope) -> content_pb2.Content:
    return content_pb2.Content.FromString(envelope.content)


def position(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def test_an_edit_goes_out_and_is_kept(edge: SocketEdge, me: Client) -> None:
    message = await me.send(PEER, "helo")

    edited = await me.edit(message, "hello")

    action = sent(edge).edit
    assert (action.peer_user_id, action.message_id) == (PEER, message.message_id)
    assert content_of(action.envelope).text == "hello"
    assert (edited.text, edited.edited_ms) == ("hello", edge.model.now_ms)
    assert [(kept.text, kept.edited_ms) for kept in await me.stored_history(PEER)] == [("hello", edge.model.now_ms)]


async def test_an_edit_keeps_what_a_message_answers_and_how_often_it_was_forwarded(
    edge: SocketEdge, me: Client
) -> None:
    first = await me.send(PEER, "first")
    answer = await me.reply(first, "answr")

    await me.edit(answer, "answer")

    content = content_of(sent(edge).edit.envelope)
    assert (content.text, content.reply_to_message_id) == ("answer", first.message_id)


async def test_a_message_is_taken_back_and_another_one_hidden(edge: SocketEdge, me: Client) -> None:
    first, second = await me.send(PEER, "one"), await me.send(PEER, "two")

    await me.delete_for_everyone(first)
    await me.delete_for_me(second)

    scopes = [sent(edge, number).revoke.scope for number in (-2, -1)]
    assert scopes == [send_pb2.REVOKE_SCOPE_EVERYONE, send_pb2.REVOKE_SCOPE_ME]
    (kept,) = await me.stored_history(PEER)
    assert (kept.message_id, kept.text, kept.revoked_ms) == (first.message_id, "", edge.model.now_ms)


async def test_a_reaction_is_given_and_taken_away(edge: SocketEdge, me: Client) -> None:
    message = await me.send(PEER, "hello")

    await me.react(message, "👍")
    kept = (await me.stored_history(PEER))[0].reactions
    await me.react(message, "")

    assert content_of(sent(edge, -2).reaction.envelope).text == "👍"
    assert not sent(edge).reaction.HasField("envelope")
    assert kept == (Reaction(user_id=ME, emoji="👍", reacted_ms=edge.model.now_ms),)
    assert (await me.stored_history(PEER))[0].reactions == ()


async def test_replies_and_forwards_are_said_inside_the_content(edge: SocketEdge, me: Client) -> None:
    item = message_item(1)
    item.message.envelope.content = encode(Said("news", forward_count=4))
    edge.model.log.append(item)
    edge.push()
    received = await next_of(me, Message)

    reply = await me.reply(received, "indeed")
    forwarded = await me.forward(received, OTHER)

    answered, handed_on = sent(edge, -2).message, sent(edge).message
    assert content_of(answered.envelope).reply_to_message_id == received.message_id == reply.reply_to
    assert (handed_on.user_id, content_of(handed_on.envelope).forward_count) == (OTHER, 5)
    assert (forwarded.text, forwarded.peer_id, forwarded.forward_count) == ("news", OTHER, 5)


async def test_what_was_forwarded_too_often_to_count_is_forwarded_once_more(edge: SocketEdge, me: Client) -> None:
    item = message_item(1)
    item.message.envelope.content = encode(Said("news", forward_count=MOST_FORWARDS))
    edge.model.log.append(item)
    edge.push()
    received = await next_of(me, Message)

    forwarded = await me.forward(received, OTHER)

    assert forwarded.forward_count == content_of(sent(edge).message.envelope).forward_count == MOST_FORWARDS


async def test_what_was_taken_back_is_not_unread(edge: SocketEdge, me: Client) -> None:
    first, second = hello_item(1, "one"), hello_item(2, "two")
    revoke = item_pb2.RevokeEvent(
        conversation_id=CONVERSATION,
        message_id=second.message.message_id,
        revoke_id=b"v" * 16,
        user_id=PEER,
        revoked_ms=4,
    )
    edge.model.log += [first, second, item_pb2.Item(position=position(3), revoke=revoke)]
    edge.push(3)
    await next_of(me, Deleted)

    (chat,) = await me.stored_chats()

    assert (chat.unread_count, chat.last_message and chat.last_message.revoked_ms) == (1, 4)


async def test_what_others_did_is_told(edge: SocketEdge, me: Client) -> None:
    edge.model.log.append(hello_item(1, "helo"))
    edge.push()
    message = await next_of(me, Message)
    about: dict[str, Any] = {"conversation_id": CONVERSATION, "message_id": message.message_id}
    new = envelope_pb2.Envelope(suite=SUITE_NONE, content=encode(Said("hello")))
    edge.model.log += [
        item_pb2.Item(
            position=position(2),
            edit=item_pb2.EditEvent(
                **about,
                edit_id=b"e" * 16,
                sender_user_id=PEER,
                edited_ms=2,
                envelope=new,
            ),
        ),
        item_pb2.Item(
            position=position(3),
            reaction=item_pb2.ReactionEvent(
                **about,
                reaction_id=b"r" * 16,
                user_id=PEER,
                reacted_ms=3,
                envelope=new,
            ),
        ),
        item_pb2.Item(
            position=position(4),
            revoke=item_pb2.RevokeEvent(**about, revoke_id=b"v" * 16, user_id=PEER, revoked_ms=4),
        ),
        item_pb2.Item(
            position=position(5),
            conversation_setting=item_pb2.ConversationSettingEvent(
                conversation_id=CONVERSATION, settings=item_pb2.ConversationSettings(expiry_s=60)
            ),
        ),
    ]

    edge.push(4)

    edited, reacted = await next_of(me, Edited), await next_of(me, Reacted)
    deleted, changed = await next_of(me, Deleted), await next_of(me, ChatChanged)
    assert (edited.message_id, edited.text, edited.by_user_id) == (message.message_id, "hello", PEER)
    assert (reacted.emoji, reacted.by_user_id) == ("hello", PEER)
    assert (deleted.message_id, deleted.is_for_me) == (message.message_id, False)
    assert changed.settings.expiry_s == 60


async def test_new_messages_follow_the_timer_of_the_chat_unless_they_have_their_own(
    edge: SocketEdge, me: Client
) -> None:
    settings = item_pb2.ConversationSettings(expiry_s=3600)
    event = item_pb2.ConversationSettingEvent(conversation_id=CONVERSATION, settings=settings)
    edge.model.log.append(item_pb2.Item(position=position(1), conversation_setting=event))
    edge.push()
    await next_of(me, ChatChanged)

    following = await me.send(PEER, "brief")
    own = await me.send(PEER, "briefer", expiry_s=60)
    never = await me.send(PEER, "kept", expiry_s=0)

    assert [sent(edge, number).message.expiry_s for number in (-3, -2, -1)] == [3600, 60, 0]
    accepted_ms = edge.model.now_ms
    assert [message.expires_ms for message in (following, own, never)] == [
        accepted_ms + 3_600_000,
        accepted_ms + 60_000,
        0,
    ]


async def test_what_has_disappeared_vanishes_and_is_told(edge: SocketEdge, me: Client) -> None:
    item = hello_item(1, "brief")
    item.message.expires_ms = edge.model.now_ms + 1_500
    edge.model.log.append(item)
    edge.push()
    await next_of(me, Message)

    expired = await next_of(me, Expired)

    assert expired.message_id == item.message.message_id
    assert await me.stored_history(PEER) == []


class FastWall(SystemClock):
    """The clock of a machine that is a year ahead."""

    def wall_ms(self) -> int:
        return super().wall_ms() + 365 * 86_400_000


async def test_a_machine_whose_clock_is_ahead_removes_nothing_before_it_knows_the_time_of_the_server(
    edge: SocketEdge, folder: Path
) -> None:
    edge.model.now_ms = SystemClock().wall_ms()
    item = hello_item(1, "for a day")
    item.message.expires_ms = edge.model.now_ms + 86_400_000
    async with chappe_client.connect(edge.address, profile=folder) as me:
        edge.model.log.append(item)
        # With a cursor behind it, so that the log does not tell it again.
        edge.push(cursor=1)
        await next_of(me, Message)

    parts = ClientParts(may_start_offline=True, seams=Seams(FastWall(), SystemRandomness()))
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        shown_offline = await me.stored_history(PEER)
        chats_offline = await me.stored_chats()
    async with chappe_client.connect(edge.address, profile=folder, parts=parts) as me:
        await next_of(me, Online)
        shown = await me.stored_history(PEER)

    assert (shown_offline, chats_offline[0].last_message) == ([], None)
    assert [message.text for message in shown] == ["for a day"]


async def test_what_has_disappeared_unseen_is_not_shown_by_the_next_process(edge: SocketEdge, folder: Path) -> None:
    edge.model.now_ms = SystemClock().wall_ms()
    brief, lasting = hello_item(1, "brief"), hello_item(2, "lasting")
    brief.message.expires_ms = edge.model.now_ms + 60_000
    async with chappe_client.connect(edge.address, profile=folder):
        edge.model.log += [brief, lasting]
        edge.push(2, cursor=2)
        await until(lambda: edge.model.acked == 2)
    edge.model.now_ms += 90_000

    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert (await next_of(me, Message)).text == "lasting"


async def test_what_has_disappeared_is_removed_though_the_store_failed_for_a_moment(
    edge: SocketEdge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire, failures = SqliteStore.expire, [StoreError("database is locked")] * 2

    def fail_at_first(store: SqliteStore, now_ms: int) -> list[LogChange]:
        if failures:
            raise failures.pop()
        return expire(store, now_ms)

    monkeypatch.setattr(SqliteStore, "expire", fail_at_first)
    monkeypatch.setattr("chappe.client.leading.EXPIRY_S", 0.01)
    item = hello_item(1, "brief")
    item.message.expires_ms = edge.model.now_ms + 1_500
    edge.model.log.append(item)
    async with chappe_client.connect(edge.address, profile=folder) as me:
        assert (await next_of(me, Expired)).message_id == item.message.message_id


async def test_what_is_done_offline_is_done_with_the_next_session(edge: SocketEdge, folder: Path) -> None:
    async with chappe_client.connect(edge.address, profile=folder) as me:
        message = await me.send(PEER, "helo")
    parts = ClientParts(may_start_offline=True)
    async with chappe_client.connect("ws://127.0.0.1:1", profile=folder, parts=parts) as me:
        with pytest.raises(NotConnectedError, match="stays in the outbox"):
            await me.edit(message, "hello", timeout_s=0.05)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        await until(lambda: len(edge.model.stored) == 2)
        await until_edited(me)

    assert sent(edge).edit.message_id == message.message_id


async def until_edited(me: Client) -> None:
    """Waits until the answer to an edit is in the local store."""
    while [kept.text for kept in await me.stored_history(PEER)] != ["hello"]:
        await me.call(methods.LOOKUP_CONTACTS, methods.LOOKUP_CONTACTS.question())


async def test_what_is_refused_for_good_changes_nothing_here(edge: SocketEdge, me: Client) -> None:
    message = await me.send(PEER, "hello")
    edge.model.refuse_next(reasons.ERROR_REASON_TOO_LATE, is_retryable=False)

    with pytest.raises(RefusedError, match="TOO_LATE"):
        await me.edit(message, "too late")

    assert [kept.text for kept in await me.stored_history(PEER)] == ["hello"]


async def test_pages_show_what_became_of_messages(edge: SocketEdge, me: Client) -> None:
    edited, revoked = hello_item(1, "new").message, hello_item(2, "").message
    edited.edited_ms = 7
    revoked.revoked_ms = 8
    revoked.ClearField("envelope")
    reaction = history_service_pb2.MessageReaction(
        user_id=PEER, reacted_ms=9, envelope=envelope_pb2.Envelope(suite=SUITE_NONE, content=encode(Said("👍")))
    )
    edge.answers[methods.LIST_MESSAGES.name] = lambda _: history_service_pb2.ListMessagesResponse(
        messages=[
            history_service_pb2.StoredMessage(message=revoked),
            history_service_pb2.StoredMessage(message=edited, reactions=[reaction]),
        ]
    ).SerializeToString()

    taken_back, changed = (await me.history(PEER)).messages

    assert (taken_back.text, taken_back.revoked_ms) == ("", 8)
    assert (changed.text, changed.edited_ms) == ("new", 7)
    assert changed.reactions == (Reaction(user_id=PEER, emoji="👍", reacted_ms=9),)
