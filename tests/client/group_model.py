"""A group as the directory keeps it, without I/O: what the device's knowledge is compared with."""

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import group_pb2
from tests.client.model_edge import ME

GROUP = b"\x09" * 16
CREATED, ADDED, JOINED, REMOVED, LEFT, ROLE, UPDATED = (
    item_pb2.GROUP_CHANGE_CREATED,
    item_pb2.GROUP_CHANGE_ADDED,
    item_pb2.GROUP_CHANGE_JOINED,
    item_pb2.GROUP_CHANGE_REMOVED,
    item_pb2.GROUP_CHANGE_LEFT,
    item_pb2.GROUP_CHANGE_ROLE,
    item_pb2.GROUP_CHANGE_UPDATED,
)
MEMBER, ADMIN, OWNER = item_pb2.GROUP_ROLE_MEMBER, item_pb2.GROUP_ROLE_ADMIN, item_pb2.GROUP_ROLE_OWNER


def user(number: int) -> bytes:
    return bytes([number]) * 16


def event(
    version: int,
    change: int,
    *user_ids: bytes,
    actor: bytes = user(7),
    role: int = MEMBER,
    name: str = "Hikers",
    count: int = 3,
) -> item_pb2.GroupChangeEvent:
    return item_pb2.GroupChangeEvent(
        group_id=GROUP,
        version=version,
        change=item_pb2.GroupChange.ValueType(change),
        actor_user_id=actor,
        user_ids=user_ids,
        group_name=name,
        role=item_pb2.GroupRole.ValueType(role),
        changed_ms=1000 + version,
        member_count=count,
    )


def group_item(change: item_pb2.GroupChangeEvent) -> item_pb2.Item:
    return item_pb2.Item(position=(1 << 32 | change.version).to_bytes(16, "big"), group_change=change)


def answer(version: int, **fields: object) -> group_pb2.Group:
    """Returns what the directory says of the group."""
    said: dict[str, object] = {"group_name": "Hikers", "owner_user_id": user(7), "member_count": 3, "role": MEMBER}
    return group_pb2.Group(group_id=GROUP, version=version, **(said | fields))  # type: ignore[arg-type]  # fields of a Group


class ModelGroup:
    """A group of some people, me among them, that changes in every way; keeps the events of all its changes."""

    def __init__(self) -> None:
        self.version = 1
        self.name = "Hikers"
        self.description = "at first"
        self.roles: dict[bytes, int] = {user(7): OWNER, ME: MEMBER, user(3): MEMBER}
        self.events = [event(1, CREATED, ME, user(3))]

    def answer(self) -> group_pb2.Group:
        owner = next((user_id for user_id, role in self.roles.items() if role == OWNER), b"")
        return answer(
            self.version if ME in self.roles else 0,
            group_name=self.name,
            description=self.description,
            owner_user_id=owner,
            member_count=len(self.roles),
            role=self.roles.get(ME, 0),
        )

    def add(self, user_id: bytes) -> None:
        if user_id not in self.roles:
            self.roles[user_id] = MEMBER
            self._record(ADDED, user_id, MEMBER)

    def remove(self, user_id: bytes) -> None:
        if self.roles.get(user_id, OWNER) != OWNER:
            del self.roles[user_id]
            self._record(REMOVED, user_id, MEMBER)

    def promote(self, user_id: bytes) -> None:
        if self.roles.get(user_id) == MEMBER:
            self.roles[user_id] = ADMIN
            self._record(ROLE, user_id, ADMIN)

    def hand_over(self, user_id: bytes) -> None:
        if self.roles.get(user_id, OWNER) != OWNER:
            owner = next(each for each, role in self.roles.items() if role == OWNER)
            self.roles[owner] = ADMIN
            self._record(ROLE, owner, ADMIN)
            self.roles[user_id] = OWNER
            self._record(ROLE, user_id, OWNER)

    def rename(self, name: str) -> None:
        self.name = name
        self.description = name * 2
        self._record(UPDATED, b"", MEMBER)

    def _record(self, change: int, user_id: bytes, role: int) -> None:
        self.version += 1
        # Whoever was not there before and is not there after a change is not told of it.
        if ME in self.roles or user_id == ME:
            named = (user_id,) if user_id else ()
            self.events.append(event(self.version, change, *named, role=role, name=self.name, count=len(self.roles)))
