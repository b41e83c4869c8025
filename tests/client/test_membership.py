"""What a device knows of a group, event by event, and however events and answers come."""

from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import LogChange
from chappe.client.group_views import Role, to_group_view
from chappe.client.membership import MOST_NAMED, KnownGroup, changed, learned
from chappe.client.store import Batch
from chappe.client.store_sqlite import SqliteStore
from tests.client.group_model import (
    ADDED,
    CREATED,
    GROUP,
    LEFT,
    OWNER,
    REMOVED,
    ROLE,
    UPDATED,
    ModelGroup,
    answer,
    event,
    group_item,
    user,
)
from tests.client.model_edge import DEVICE, ME, message_item

UNKNOWN = KnownGroup(GROUP)


def after(*events: item_pb2.GroupChangeEvent) -> KnownGroup:
    known = UNKNOWN
    for each in events:
        known = changed(known, each, ME)
    return known


def test_who_creates_a_group_owns_it() -> None:
    known = after(event(1, CREATED, user(3), actor=ME))

    assert (known.role, known.owner_id, known.name) == (Role.OWNER, ME, "Hikers")


def test_details_are_known_from_an_answer_on_until_they_change() -> None:
    created = after(event(1, CREATED, ME))
    told = learned(created, to_group_view(answer(1, description="up")))

    assert (created.details_version, told.details_version) == (0, 1)
    assert changed(told, event(2, ADDED, user(4)), ME).details_version == 2
    assert changed(told, event(2, UPDATED), ME).details_version == 1


def test_who_is_added_is_a_member_and_who_is_removed_is_none() -> None:
    assert after(event(4, ADDED, ME)).role == Role.MEMBER
    assert after(event(4, ADDED, ME), event(5, REMOVED, ME)).role == Role.NONE
    assert after(event(4, ADDED, ME), event(5, REMOVED, user(3))).role == Role.MEMBER


def test_who_is_told_of_an_addition_without_being_named_is_a_member() -> None:
    many = [user(number) for number in range(100, 100 + MOST_NAMED)]

    assert after(event(1, CREATED, *many)).role == Role.MEMBER


def test_an_owner_who_leaves_hands_over() -> None:
    known = after(event(1, CREATED, ME), event(2, LEFT, user(7)), event(3, ROLE, ME, role=OWNER))

    assert (known.owner_id, known.role) == (ME, Role.OWNER)


def test_settings_are_asked_for_after_they_changed() -> None:
    known = after(event(1, CREATED, ME), event(2, UPDATED, name="Climbers"))

    assert (known.name, known.version, known.details_version) == ("Climbers", 2, 0)
    assert learned(known, to_group_view(answer(2, description="up"))).details_version == 2


def test_an_answer_that_is_older_than_an_event_changes_nothing() -> None:
    known = after(event(4, ADDED, ME))

    assert learned(known, to_group_view(answer(3))) == known
    assert learned(known, to_group_view(answer(0))) == known


class Device:
    """A store that is told events and answers."""

    def __init__(self) -> None:
        self.store = SqliteStore(None, ME, DEVICE)
        self.shown: list[int] = []

    def hear(self, *events: item_pb2.GroupChangeEvent) -> list[LogChange]:
        batch = Batch()
        batch.items = [group_item(each) for each in events]
        changes = self.store.commit(batch)
        self.shown += [change.item.group_change.version for change in changes]  # type: ignore[union-attr]  # all are items
        return changes

    @property
    def group(self) -> KnownGroup:
        found = self.store.groups.find(GROUP)
        assert found is not None
        return found

    @property
    def roles(self) -> dict[bytes, int]:
        return {member.user_id: member.role for member in self.store.groups.members(GROUP)}


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "promote", "hand_over", "rename", "answer", "hear", "double"]),
        st.integers(1, 5),
    ),
    max_size=40,
)


@given(steps)
def test_however_events_and_answers_come_the_device_knows_the_group_as_it_is(steps: list[tuple[str, int]]) -> None:
    group, device, heard = ModelGroup(), Device(), 0
    device.hear(group.events[0])

    for step, number in steps:
        if step == "answer":
            device.store.groups.learn(to_group_view(group.answer()))
        elif step == "hear":
            device.hear(*group.events[heard : heard + number])
            heard = min(heard + number, len(group.events))
        elif step == "double":
            device.hear(*group.events[max(0, heard - number) : heard])
        elif step == "rename":
            group.rename(f"name {number}")
        else:
            getattr(group, step)(user(number))
    device.hear(*group.events[heard:])

    last = group.events[-1]
    known = device.group
    assert (known.name, known.member_count, known.role) == (
        last.group_name,
        last.member_count,
        group.roles.get(ME, 0),
    )
    assert device.shown == sorted(set(device.shown))
    assert known.version == last.version
    if known.members_version == group.version:
        assert device.roles == group.roles
    if known.details_version == group.version:
        assert known.description == group.description


def test_members_are_known_from_the_beginning_on_and_asked_for_after_a_gap() -> None:
    device = Device()
    device.hear(event(1, CREATED, ME, user(3)), event(2, ADDED, user(4)), event(3, REMOVED, user(3)))

    assert device.roles == {user(7): Role.OWNER, ME: Role.MEMBER, user(4): Role.MEMBER}
    assert device.group.members_version == 3

    device.hear(event(5, ADDED, user(5)))

    assert (device.group.members_version, device.group.version) == (3, 5)


def test_a_message_tells_of_a_newer_version_and_of_a_group_that_was_not_known() -> None:
    device = Device()
    batch = Batch()
    batch.items = [message_item(1)]
    batch.items[0].message.conversation_id = batch.items[0].message.group_id = GROUP
    batch.items[0].message.members_version = 9

    device.store.commit(batch)

    assert (device.group.version, device.group.role, device.group.name) == (9, Role.MEMBER, "")
