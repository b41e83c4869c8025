"""What a device knows of its groups, and how an event changes that. No I/O.

Events of a group come in the order of its versions, but answers of the directory may run ahead of them, and of a large
change only some are named. Three versions keep them apart: of the group, of its details, and of its list of members.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import GroupTickRaised
from chappe.client.group_views import Group, Member, Role

MOST_NAMED: Final = 64
"""An event that names so many may have happened to more."""

_ADDING: Final = frozenset({item_pb2.GROUP_CHANGE_CREATED, item_pb2.GROUP_CHANGE_ADDED, item_pb2.GROUP_CHANGE_JOINED})
_REMOVING: Final = frozenset({item_pb2.GROUP_CHANGE_REMOVED, item_pb2.GROUP_CHANGE_LEFT})


class KnownGroup(NamedTuple):
    """One group as the local store keeps it."""

    group_id: bytes
    name: str = ""
    description: str = ""
    owner_id: bytes = b""
    member_count: int = 0
    role: int = 0
    is_announcement_only: int = 0
    expiry_s: int = 0
    create_ms: int = 0
    version: int = 0
    """The newest that this device knows of."""
    event_version: int = 0
    """Of the newest event that was applied."""
    told_version: int = 0
    """Of which name, count and role are known, from an event or an answer."""
    details_version: int = 0
    """Of which description, owner and settings are known; older than `version` when they have to be asked for."""
    members_version: int = 0
    """Of which the members are known; zero when they are not."""

    def view(self) -> Group:
        """Returns what people see."""
        return Group(
            group_id=self.group_id,
            name=self.name,
            description=self.description,
            owner_id=self.owner_id,
            member_count=self.member_count,
            role=Role(self.role),
            is_announcement_only=bool(self.is_announcement_only),
            expiry_s=self.expiry_s,
            create_ms=self.create_ms,
            version=self.version,
        )


class KnownMember(NamedTuple):
    """One member as the local store keeps it."""

    user_id: bytes
    role: int
    join_ms: int = 0

    def view(self) -> Member:
        """Returns what people see."""
        return Member(user_id=self.user_id, role=Role(self.role), join_ms=self.join_ms)


def learned(known: KnownGroup, group: Group) -> KnownGroup:
    """Returns what is known after the directory's answer; one that is older than what is known changes nothing."""
    if group.version < max(known.told_version, 1):
        return known
    return KnownGroup(
        group_id=group.group_id,
        name=group.name,
        description=group.description,
        owner_id=group.owner_id,
        member_count=group.member_count,
        role=group.role,
        is_announcement_only=group.is_announcement_only,
        expiry_s=group.expiry_s,
        create_ms=group.create_ms,
        version=max(known.version, group.version),
        event_version=known.event_version,
        told_version=group.version,
        details_version=group.version,
        members_version=known.members_version,
    )


def changed(known: KnownGroup, event: item_pb2.GroupChangeEvent, user_id: bytes) -> KnownGroup:
    """Returns what this user's device knows after an event; one that is older than what is known changes little."""
    known = known._replace(
        version=max(known.version, event.version),
        event_version=max(known.event_version, event.version),
        members_version=event.version if is_complete(known, event) else known.members_version,
    )
    if event.version <= known.told_version:
        return known
    # No event holds the details, so that they stay known only from an answer on and while they do not change.
    is_next = 0 < known.details_version == event.version - 1 and event.change != item_pb2.GROUP_CHANGE_UPDATED
    return known._replace(
        name=event.group_name,
        member_count=event.member_count,
        owner_id=_owner(known, event),
        role=_role(known, event, user_id),
        create_ms=event.changed_ms if event.change == item_pb2.GROUP_CHANGE_CREATED else known.create_ms,
        told_version=event.version,
        details_version=event.version if is_next else known.details_version,
    )


def is_complete(known: KnownGroup, event: item_pb2.GroupChangeEvent) -> bool:
    """Tells whether the members after an event are known: those before it were, and it names everybody concerned."""
    return event.version == known.members_version + 1 and len(event.user_ids) < MOST_NAMED


def members_after(members: dict[bytes, KnownMember], event: item_pb2.GroupChangeEvent) -> None:
    """Changes the members as an event says that names everybody concerned."""
    if event.change == item_pb2.GROUP_CHANGE_CREATED:
        members[event.actor_user_id] = KnownMember(event.actor_user_id, Role.OWNER, event.changed_ms)
    for user_id in event.user_ids:
        if event.change in _REMOVING:
            members.pop(user_id, None)
        elif event.change in _ADDING:
            members.setdefault(user_id, KnownMember(user_id, event.role, event.changed_ms))
        elif event.change == item_pb2.GROUP_CHANGE_ROLE and user_id in members:
            members[user_id] = members[user_id]._replace(role=event.role)


def counted(receipt: item_pb2.GroupReceiptEvent) -> Iterable[GroupTickRaised]:
    """Yields the counts of an event, message by message."""
    columns = (receipt.message_ids, receipt.delivered_counts, receipt.read_counts, receipt.recipient_counts)
    for message_id, delivered, read, recipients in zip(*columns, strict=False):
        yield GroupTickRaised(message_id, receipt.group_id, delivered, read, recipients, receipt.recorded_ms)


def _owner(known: KnownGroup, event: item_pb2.GroupChangeEvent) -> bytes:
    if event.change == item_pb2.GROUP_CHANGE_CREATED:
        return event.actor_user_id
    if event.change == item_pb2.GROUP_CHANGE_ROLE and event.role == item_pb2.GROUP_ROLE_OWNER and event.user_ids:
        return event.user_ids[0]
    return known.owner_id


def _role(known: KnownGroup, event: item_pb2.GroupChangeEvent, user_id: bytes) -> int:
    """Returns the user's own role; whoever is told of a change was there before or after it."""
    if event.change in _REMOVING and user_id in event.user_ids:
        return Role.NONE
    if event.change == item_pb2.GROUP_CHANGE_CREATED and event.actor_user_id == user_id:
        return Role.OWNER
    if user_id in event.user_ids:
        return min(event.role, Role.OWNER) or Role.MEMBER
    return known.role or Role.MEMBER
