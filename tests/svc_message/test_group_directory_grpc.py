"""Leased copies of groups, against a svc_identity that says what a test wants."""

from __future__ import annotations

import asyncio

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.runtime.errors import UnavailableError
from svc_message.adapters import directory_copies
from svc_message.adapters.directory_copies import LEASE_MS
from svc_message.adapters.group_directory_grpc import MAX_PAIRS
from svc_message.model import ConversationId
from svc_message.model.group import Membership, Window
from tests.svc_message.test_directory_grpc import ALICE, BOB, CAROL, Response, Rig, rig

__all__ = ["rig"]

GROUP = ConversationId(b"G" * 16)
OWNER, ADMIN, MEMBER = item_pb2.GROUP_ROLE_OWNER, item_pb2.GROUP_ROLE_ADMIN, item_pb2.GROUP_ROLE_MEMBER


def group(version: int = 3) -> wire.DirectoryGroup:
    return wire.DirectoryGroup(
        group_id=GROUP,
        exists=True,
        version=version,
        is_announcement_only=True,
        expiry_s=60,
        member_user_ids=[BOB, ALICE, CAROL],
        roles=[MEMBER, OWNER, ADMIN],
        joined_versions=[3, 1, 2],
    )


async def change(rig: Rig, version: int) -> None:
    said = wire.DirectoryChange(kind=wire.DIRECTORY_CHANGE_KIND_GROUP, group_id=GROUP, version=version)
    await rig.identity.say(Response(batch=wire.ChangeBatch(changes=[said])))


async def test_a_group_that_was_read_is_cached_with_its_members_by_id(rig: Rig) -> None:
    rig.identity.groups[GROUP] = group()
    await rig.heartbeat()

    (found,) = await rig.directory.groups.read([GROUP])

    assert (found.group_id, found.exists, found.version) == (GROUP, True, 3)
    assert (found.is_announcement_only, found.expiry_s, found.latest_join) == (True, 60, 3)
    assert found.user_ids == (ALICE, BOB, CAROL)
    assert found.is_admin == (True, False, True)
    assert found.joined_versions == (1, 3, 2)
    assert [found.place(user_id) for user_id in (BOB, b"?" * 16, b"\xff" * 16)] == [1, -1, -1]
    assert (found.entitled(3), found.entitled(2)) == ((ALICE, BOB, CAROL), (ALICE, CAROL))
    assert rig.directory.groups.cached(GROUP) == found
    rig.clock.pass_s(LEASE_MS / 1000 + 0.001)
    assert rig.directory.groups.cached(GROUP) is None


async def test_a_change_of_a_group_drops_its_copy_and_no_users(rig: Rig) -> None:
    rig.identity.groups[GROUP] = group()
    await rig.heartbeat()
    await rig.directory.read([ALICE])
    await rig.directory.groups.read([GROUP])

    await change(rig, 4)
    await rig.received()

    assert rig.directory.groups.cached(GROUP) is None
    assert rig.directory.cached(ALICE) is not None


async def test_a_group_that_was_read_before_its_change_was_seen_is_read_again(rig: Rig) -> None:
    rig.identity.groups[GROUP] = group()
    await rig.heartbeat()
    rig.identity.gate.clear()
    reading = asyncio.create_task(rig.directory.groups.read([GROUP]))
    await rig.identity.is_asked.wait()

    rig.identity.groups[GROUP] = group(4)
    await change(rig, 4)
    await rig.received()
    rig.identity.gate.set()

    assert [found.version for found in await reading] == [4]
    assert rig.identity.reads == [[GROUP], [GROUP]]


async def test_a_group_that_does_not_exist_is_an_answer(rig: Rig) -> None:
    await rig.heartbeat()

    (found,) = await rig.directory.groups.read([GROUP])

    assert (found.exists, found.user_ids) == (False, ())


async def test_large_groups_push_out_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_copies, "CAPACITY", 2)
    crowd = [bytes([number]) * 16 for number in range(20)]
    large = wire.DirectoryGroup(
        group_id=b"L" * 16, exists=True, version=1, member_user_ids=crowd, roles=[MEMBER] * 20, joined_versions=[1] * 20
    )
    rig.identity.groups = {GROUP: group(), b"L" * 16: large}
    await rig.heartbeat()

    await rig.directory.groups.read([ConversationId(b"L" * 16)])
    await rig.directory.groups.read([GROUP])

    assert rig.directory.groups.cached(ConversationId(b"L" * 16)) is None
    assert rig.directory.groups.cached(GROUP) is not None


async def test_memberships_come_with_the_times_in_the_group(rig: Rig) -> None:
    windows = [wire.MembershipWindow(joined_version=2, left_version=5), wire.MembershipWindow(joined_version=8)]
    rig.identity.memberships = {
        (GROUP, ALICE): wire.Membership(is_member=True, role=ADMIN, windows=windows, group_version=9),
        (GROUP, BOB): wire.Membership(is_member=True, role=MEMBER, windows=windows[1:], group_version=8),
    }

    found = await rig.directory.groups.memberships([(GROUP, BOB), (GROUP, ALICE), (GROUP, CAROL)])

    assert found == [
        Membership(is_member=True, is_admin=False, windows=(Window(8, 0),), group_version=8),
        Membership(is_member=True, is_admin=True, windows=(Window(2, 5), Window(8, 0)), group_version=9),
        Membership(is_member=False, is_admin=False, windows=(), group_version=0),
    ]
    assert [Window(2, 5).shows(version) for version in (1, 2, 4, 5)] == [False, True, True, False]


async def test_many_memberships_are_read_in_parts(rig: Rig) -> None:
    found = await rig.directory.groups.memberships([(GROUP, ALICE)] * (MAX_PAIRS + 1))

    assert len(found) == MAX_PAIRS + 1
    assert sorted(rig.identity.pairs) == [1, MAX_PAIRS]


async def test_a_directory_that_is_down_is_unavailable(rig: Rig) -> None:
    rig.identity.is_down = True

    with pytest.raises(UnavailableError, match="svc_identity"):
        await rig.directory.groups.read([GROUP])
    with pytest.raises(UnavailableError, match="svc_identity"):
        await rig.directory.groups.memberships([(GROUP, ALICE)])
