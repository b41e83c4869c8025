"""A group of a crowd: who is in it by what its owner was told, and changes that are repeated until they stand."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from chappe.api.identity.v1 import group_pb2, group_service_pb2
from chappe.client.errors import NotConnectedError, RefusedError
from chappe.client.lean import LeanClient
from chappe.client.methods import ADD_MEMBERS, CREATE_GROUP, REMOVE_MEMBER
from tests.system.handset import Handset

Answer = TypeVar("Answer")

CHANGED_WITHIN_S: Final = 60.0
AGAIN_S: Final = 0.25
PASSING: Final = frozenset({"DEPENDENCY_UNAVAILABLE", "INTERNAL", "RATE_LIMITED"})
"""Reasons that go away by themselves."""
BITES_WITHIN_S: Final = 2.0
"""Who was added has whatever is sent later than this, also when its sender has not heard of it."""


class Membership(NamedTuple):
    """What the owner was told when somebody was added."""

    version: int
    returned_s: float
    """On the monotonic clock."""


class Circle:
    """One group; all changes are made by its owner, one after the other, and written into its history."""

    def __init__(self, owner: Handset, group: group_pb2.Group) -> None:
        self.group_id: bytes = group.group_id
        self.owner = owner
        self.version = group.version
        self.members: dict[bytes, Membership] = {}
        """Everybody who is in it for certain; whoever is being removed is not."""
        self._parted: dict[bytes, int] = {}
        self._turn = asyncio.Lock()

    @classmethod
    async def create(cls, owner: Handset, user_ids: Iterable[bytes], name: str = "circle") -> "Circle":
        """Makes a group of some people, with its owner."""
        request = group_service_pb2.CreateGroupRequest(
            request_id=time.time_ns().to_bytes(16, "big"), group_name=name, user_ids=list(user_ids)
        )
        began_ms = time.time() * 1000
        answer = await _until_done(lambda: _client(owner).call(CREATE_GROUP, request))
        assert not answer.refusals, f"{len(answer.refusals)} people are not in the group: {answer.refusals[0]}"
        circle = cls(owner, answer.group)
        circle._come({owner.user_id, *request.user_ids}, answer.group.version, began_ms)
        return circle

    async def add(self, *user_ids: bytes) -> None:
        """Adds people; returns once they are members."""
        request = group_service_pb2.AddMembersRequest(group_id=self.group_id, user_ids=user_ids)
        async with self._turn:
            began_ms = time.time() * 1000
            answer = await _until_done(lambda: _client(self.owner).call(ADD_MEMBERS, request))
            assert not answer.refusals
            self._come(user_ids, answer.group.version, began_ms)

    async def remove(self, user_id: bytes) -> None:
        """Removes somebody; returns once that is done."""
        request = group_service_pb2.RemoveMemberRequest(group_id=self.group_id, user_id=user_id)
        async with self._turn:
            del self.members[user_id]
            began_ms = time.time() * 1000
            answer = await _until_done(lambda: _client(self.owner).call(REMOVE_MEMBER, request))
            self.version = answer.group.version
            self._parted[user_id] = self.version
            self._note("leave", [user_id], began_ms)

    def entitled(self, known_version: int) -> set[bytes]:
        """Returns who must have what somebody sends now who knows of this version of the group."""
        late_s = time.monotonic() - BITES_WITHIN_S
        return {
            user_id
            for user_id, (version, returned_s) in self.members.items()
            if version <= known_version or returned_s < late_s
        }

    def news(self, user_id: bytes) -> int:
        """Returns the last version of which somebody must hear; 0 for who never was in it."""
        return self.version if user_id in self.members else self._parted.get(user_id, 0)

    def _come(self, user_ids: Iterable[bytes], version: int, began_ms: float) -> None:
        names = list(user_ids)
        self.version = version
        self._note("join", names, began_ms)
        self.members.update(dict.fromkeys(names, Membership(version, time.monotonic())))

    def _note(self, op: str, user_ids: list[bytes], began_ms: float) -> None:
        members = [user_id.hex() for user_id in user_ids]
        self.owner.history.note(op, conv=self.group_id.hex(), members=members, at=began_ms, version=self.version)


def _client(handset: Handset) -> LeanClient:
    if handset.client is None:
        raise NotConnectedError(f"{handset.actor} is switched off")
    return handset.client


async def _until_done(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeats a call until it is answered: what is asked twice is done once."""
    deadline_s = time.monotonic() + CHANGED_WITHIN_S
    while True:
        try:
            return await call()
        except (NotConnectedError, RefusedError) as error:
            is_final = isinstance(error, RefusedError) and error.reason not in PASSING
            if is_final or time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(AGAIN_S)
