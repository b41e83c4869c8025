"""A chat that is in the middle of something: what the tests of the chat look at, and the picture in docs/chat.md."""

import datetime as dt
from dataclasses import replace

from chappe.cli.chat.layout import View
from chappe.cli.chat.state import Row, State
from chappe.client import (
    Chat,
    ChatSettings,
    Counts,
    GroupChanged,
    GroupEvent,
    Message,
    Online,
    Presence,
    PresenceChanged,
    Reaction,
    Role,
    Tick,
    TypingChanged,
    Typist,
)

ALICE, BOB, CAROL, DAVE = (letter.encode() * 16 for letter in "abcd")
HIKERS, WITH_BOB, WITH_DAVE = b"h" * 16, b"1" * 16, b"2" * 16
NOW = dt.datetime(2026, 11, 28, 16, 45, tzinfo=dt.UTC)
VIEW = View(NOW)
NAMES = {ALICE: "you", BOB: "Bob", CAROL: "Carol Smith", DAVE: "Dave"}


def at(hour: int, minute: int, day: int = 28) -> int:
    return int(dt.datetime(2026, 11, day, hour, minute, tzinfo=dt.UTC).timestamp() * 1000)


def message(text: str, sent_ms: int, sender: bytes = BOB, chat: bytes = WITH_BOB, **fields: object) -> Message:
    said = Message(
        message_id=sent_ms.to_bytes(6, "big") + bytes(10),
        conversation_id=chat,
        sender_id=sender,
        peer_id={WITH_BOB: BOB, WITH_DAVE: DAVE}.get(chat, b""),
        text=text,
        sent_ms=sent_ms,
        accepted_ms=sent_ms,
        is_mine=sender == ALICE,
        tick=Tick.SENT if sender == ALICE else Tick.NONE,
    )
    return replace(said, **fields)  # type: ignore[arg-type]  # fields of a message


def counts(delivered: int, read: int, recipients: int = 2) -> Counts:
    return Counts(delivered=delivered, read=read, recipients=recipients)


def sample() -> State:
    """Alice looks at a group, while Bob is online and Dave has written."""
    state = State(me=ALICE, names=dict(NAMES))
    plan = message("up at eight, then?", at(9, 2), BOB, HIKERS)
    last = message("I bring the map 🗺", at(16, 44), ALICE, HIKERS, counts=counts(2, 1), tick=Tick.DELIVERED)
    chats = [
        Chat(conversation_id=HIKERS, peer_id=b"", last_message=last, unread_count=0, read_upto=b""),
        Chat(
            conversation_id=WITH_BOB,
            peer_id=BOB,
            last_message=message("see you there", at(16, 40), ALICE, tick=Tick.READ),
            unread_count=0,
            read_upto=b"",
            settings=ChatSettings(pinned_ms=1),
        ),
        Chat(
            conversation_id=WITH_DAVE,
            peer_id=DAVE,
            last_message=message("are you still at the hut? I lost my gloves", at(20, 15, 27), DAVE, WITH_DAVE),
            unread_count=2,
            read_upto=b"",
            settings=ChatSettings(muted_until_ms=1),
        ),
    ]
    state.list_chats(chats, {HIKERS: "Hikers", WITH_BOB: "Bob", WITH_DAVE: "Dave"})
    state.open_id = HIKERS
    said = [
        message("the forecast says sun until noon", at(18, 30, 27), CAROL, HIKERS),
        plan,
        message(
            "yes! The path along the ridge should be dry by now, and we are back before it rains.",
            at(9, 3),
            ALICE,
            HIKERS,
            tick=Tick.READ,
            counts=counts(2, 2),
            reply_to=plan.message_id,
        ),
        message("wonderful", at(9, 4), CAROL, HIKERS, reactions=(Reaction(user_id=BOB, emoji="👍", reacted_ms=1),)),
        message("who takes the rope?", at(9, 5), CAROL, HIKERS, edited_ms=1),
        last,
    ]
    state.add_page(state.rows[HIKERS], said[::-1], "")
    for event in (
        Online(edge="edge:1"),
        PresenceChanged(user_id=BOB, presence=Presence.ONLINE),
        PresenceChanged(user_id=DAVE, presence=Presence.OFFLINE, last_seen_ms=at(20, 30, 27)),
        GroupChanged(
            group_id=HIKERS,
            what=GroupEvent.ADDED,
            by_user_id=ALICE,
            user_ids=(CAROL,),
            name="Hikers",
            role=Role.MEMBER,
            member_count=3,
            changed_ms=at(18, 29, 27),
            version=2,
        ),
        TypingChanged(conversation_id=HIKERS, peer_id=b"", typists=(Typist(user_id=CAROL),)),
    ):
        state.apply(event)
    return state


def open_row(state: State) -> Row:
    """Returns the chat that is shown."""
    row = state.open_row
    assert row is not None
    return row
