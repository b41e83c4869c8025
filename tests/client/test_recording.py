"""What a history says of sends and events of every kind."""

from typing import Any

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.type.v1 import presence_pb2
from chappe.client.changes import (
    GroupTickRaised,
    ItemArrived,
    LogChange,
    MessageEdited,
    MessageReacted,
    MessageRevoked,
    PresenceTold,
    ReadElsewhere,
)
from chappe.client.destination import Destination
from chappe.client.frames import edit_action, group_message_action, message_action, reaction_action, revoke_action
from chappe.client.outgoing import Kind, Outgoing
from chappe.client.recorder import RecordedEvent
from chappe.client.recording import record, record_presences, recorded_action, recorded_event
from chappe.client.store import Batch
from chappe.client.store_memory import LeanStore
from tests.client.group_model import ADDED, event, group_item

ME, PEER, GROUP = (bytes([number]) * 16 for number in (1, 2, 3))
MESSAGE, ACT = (bytes.fromhex(f"01970000000{number}7001800000000000000a") for number in (1, 2))
CHAT = Destination(GROUP)


@pytest.mark.parametrize(
    ("kind", "action", "expected"),
    [
        ("message", group_message_action(GROUP, 7, 1, b"hello"), ("message", b"", 7)),
        ("edit", edit_action(CHAT, MESSAGE, 1, b"other"), ("edit", MESSAGE, 0)),
        ("revoke", revoke_action(CHAT, MESSAGE, is_for_me=False), ("revoke", MESSAGE, 0)),
        ("revoke", revoke_action(CHAT, MESSAGE, is_for_me=True), ("hide", MESSAGE, 0)),
        ("reaction", reaction_action(CHAT, MESSAGE, 1, b"+1"), ("reaction", MESSAGE, 0)),
    ],
)
def test_a_send_is_written_down_with_what_it_is_about(
    kind: Kind, action: bytes, expected: tuple[str, bytes, int]
) -> None:
    outgoing = Outgoing(kind, b"", GROUP, action)
    outgoing.message_id = ACT

    recorded = recorded_action(outgoing)

    assert (recorded.kind, recorded.target, recorded.version) == expected
    assert (recorded.id, recorded.conv, recorded.to) == (ACT, GROUP, b"")


def test_a_direct_message_is_written_down_with_its_peer() -> None:
    recorded = recorded_action(Outgoing("message", PEER, GROUP, message_action(PEER, 1, b"hello")))

    assert (recorded.kind, recorded.to, recorded.version) == ("message", PEER, 0)


def test_what_alters_a_message_is_an_event_about_it() -> None:
    edit = item_pb2.EditEvent(conversation_id=GROUP, message_id=MESSAGE, edit_id=ACT, sender_user_id=PEER)
    revoke = item_pb2.RevokeEvent(conversation_id=GROUP, message_id=MESSAGE, revoke_id=ACT, user_id=PEER)
    hiding = item_pb2.RevokeEvent(
        conversation_id=GROUP, message_id=MESSAGE, revoke_id=ACT, user_id=PEER, is_for_me=True
    )
    reaction = item_pb2.ReactionEvent(conversation_id=GROUP, message_id=MESSAGE, reaction_id=ACT, user_id=PEER)
    changes = (MessageEdited(edit), MessageRevoked(revoke), MessageRevoked(hiding), MessageReacted(reaction))

    events = [recorded_event(change) for change in changes]

    ms = int.from_bytes(ACT[:6], "big")
    kinds = ("edit", "revoke", "hide", "reaction")
    assert events == [RecordedEvent(ACT, GROUP, PEER, b"", ms, kind, MESSAGE) for kind in kinds]


def test_what_is_no_message_is_no_event() -> None:
    assert recorded_event(ItemArrived(item_pb2.Item())) is None


class Notes:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def note(self, op: str, **fields: object) -> None:
        self.lines.append((op, fields))


def test_a_change_of_a_group_is_written_down_as_learned() -> None:
    notes: Any = Notes()
    change = item_pb2.GroupChangeEvent(group_id=GROUP, version=4, change=item_pb2.GROUP_CHANGE_REMOVED, user_ids=[PEER])

    record(notes, batch_of(item_pb2.Item(group_change=change)), [])

    fields = {"conv": GROUP.hex(), "version": 4, "change": "removed", "members": [PEER.hex()]}
    assert notes.lines == [("learn", fields)]


def test_counts_of_recipients_are_a_tally() -> None:
    notes: Any = Notes()

    record(notes, Batch(), [GroupTickRaised(MESSAGE, GROUP, 5, 2, 9, 0)])

    assert notes.lines == [("tally", {"id": MESSAGE.hex(), "delivered": 5, "read": 2, "of": 9})]


def test_what_was_read_on_another_device_is_written_down() -> None:
    notes: Any = Notes()

    record(notes, Batch(), [ReadElsewhere(GROUP, MESSAGE)])

    assert notes.lines == [("elsewhere", {"conv": GROUP.hex(), "upto": MESSAGE.hex()})]


def test_how_people_are_shown_is_written_down_and_nothing_of_the_hidden() -> None:
    notes: Any = Notes()
    states = ("ONLINE", "OFFLINE", "UNKNOWN", "HIDDEN")

    record_presences(
        notes, [PresenceTold(PEER, presence_pb2.PresenceState.Value(f"PRESENCE_STATE_{state}"), 0) for state in states]
    )

    shown = ("online", "offline", "unknown", "unknown")
    assert notes.lines == [("presence", {"whom": PEER.hex(), "state": state}) for state in shown]


def test_the_lean_store_keeps_the_greatest_counts() -> None:
    store = LeanStore()
    shown: list[LogChange] = []
    for delivered, read in ((3, 1), (2, 1), (2, 2), (3, 2)):
        receipt = item_pb2.GroupReceiptEvent(
            group_id=GROUP,
            message_ids=[MESSAGE],
            delivered_counts=[delivered],
            read_counts=[read],
            recipient_counts=[9],
        )
        shown += store.commit(batch_of(item_pb2.Item(group_receipt=receipt)))

    assert shown == [GroupTickRaised(MESSAGE, GROUP, 3, read, 9, 0) for read in (1, 2)]


def test_a_receipt_that_says_only_that_something_came_further_is_passed_on() -> None:
    item = item_pb2.Item(group_receipt=item_pb2.GroupReceiptEvent(group_id=GROUP))

    assert LeanStore().commit(batch_of(item)) == [ItemArrived(item)]


def batch_of(*items: item_pb2.Item) -> Batch:
    batch = Batch()
    batch.items += items
    return batch


def test_the_lean_store_passes_on_an_alteration_once() -> None:
    edit = item_pb2.EditEvent(conversation_id=GROUP, message_id=MESSAGE, edit_id=ACT)
    revoke = item_pb2.RevokeEvent(conversation_id=GROUP, message_id=MESSAGE, revoke_id=MESSAGE)
    reaction = item_pb2.ReactionEvent(conversation_id=GROUP, message_id=MESSAGE, reaction_id=PEER)
    items = [item_pb2.Item(edit=edit), item_pb2.Item(revoke=revoke), item_pb2.Item(reaction=reaction)]
    store = LeanStore()
    store.load()

    changes = [store.commit(batch_of(*items)) for _ in range(2)]

    assert changes == [[MessageEdited(edit), MessageRevoked(revoke), MessageReacted(reaction)], []]


def test_the_lean_store_passes_on_each_change_of_a_group_once_whatever_their_order() -> None:
    items = [group_item(event(version, ADDED, PEER)) for version in (1, 3, 2)]
    store = LeanStore()

    changes = [store.commit(batch_of(*items)) for _ in range(2)]

    assert changes == [[ItemArrived(item) for item in items], []]
