"""Who sees whom while svc_presence, Valkey and svc_identity are killed, through the SDK and on real processes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from chappe.cli.launcher import Mesh
from chappe.client import Presence, PresenceChanged
from tests.system.conftest import Planner, started
from tests.system.crowd import until
from tests.system.figures import sample
from tests.system.person import Person, registered

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(180)]

EDGES = 2
SOON_S = 5.0
"""After an end of svc_presence changes are seen again within this time."""
GONE_S = 10.0
"""Whoever leaves is offline after this time, the moment for a comeback included."""


class Trio(NamedTuple):
    """Alice at one edge, who watches the two others at the other one."""

    alice: Person
    bob: Person
    carol: Person

    def views(self, user_id: bytes) -> list[Presence]:
        """Returns what Alice was told of somebody."""
        return [event.presence for event in self.alice.of(PresenceChanged) if event.user_id == user_id]

    async def alice_sees(self, user_id: bytes, presence: Presence, timeout_s: float = 30) -> None:
        """Waits until that is what Alice was told last."""
        await until(
            lambda: self.views(user_id)[-1:] == [presence], f"alice sees that one is {presence.name}", timeout_s
        )


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    with started(planned("presence", edges=2)) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def twins(planned: Planner) -> Iterator[Mesh]:
    with started(planned("presence-twins", replicas=2)) as mesh:
        yield mesh


async def trio_on(mesh: Mesh, folder: Path, stack: AsyncExitStack) -> Trio:
    alice = await registered(mesh.ws[0], folder / "alice", "Alice")
    bob = await registered(mesh.ws[1], folder / "bob", "Bob")
    carol = await registered(mesh.ws[1], folder / "carol", "Carol")
    trio = Trio(*[await stack.enter_async_context(person) for person in (alice, bob, carol)])
    for person in (bob, carol):
        await person.me.people.add(alice.number, "Alice")
    await alice.me.presence.watch(bob.me.user_id, carol.me.user_id)
    for person in (bob, carol):
        await trio.alice_sees(person.me.user_id, Presence.ONLINE)
    return trio


@pytest.fixture
async def trio(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        yield await trio_on(mesh, tmp_path, stack)


def streams_of(mesh: Mesh, number: int) -> float:
    """Returns how many edges a registry says to be connected with it."""
    return sample(mesh, "presence", number, "chappe_presence_track_streams")


async def test_the_registry_is_killed_and_watchers_see_changes_again_within_five_seconds(
    mesh: Mesh, trio: Trio
) -> None:
    bob_id, carol_id = trio.bob.me.user_id, trio.carol.me.user_id
    await mesh.kill("presence")
    await trio.alice_sees(bob_id, Presence.UNKNOWN, SOON_S)
    await trio.alice_sees(carol_id, Presence.UNKNOWN, SOON_S)
    await trio.bob.__aexit__(None, None, None)

    await mesh.restart("presence")
    await trio.alice_sees(carol_id, Presence.ONLINE, SOON_S)
    await trio.bob.__aenter__()
    await trio.alice_sees(bob_id, Presence.ONLINE, SOON_S)

    assert trio.views(carol_id) == [Presence.ONLINE, Presence.UNKNOWN, Presence.ONLINE]


async def test_valkey_is_killed_and_nobody_is_called_offline(mesh: Mesh, trio: Trio) -> None:
    bob_id = trio.bob.me.user_id
    await mesh.kill("valkey")
    await trio.alice_sees(bob_id, Presence.UNKNOWN, 40)
    await mesh.restart("valkey")
    await trio.alice_sees(bob_id, Presence.ONLINE, 40)

    assert Presence.OFFLINE not in [event.presence for event in trio.alice.of(PresenceChanged)]


async def test_svc_identity_is_killed_and_nobody_is_shown_meanwhile(mesh: Mesh, trio: Trio) -> None:
    bob_id = trio.bob.me.user_id
    await mesh.kill("identity")
    await trio.alice_sees(bob_id, Presence.UNKNOWN, 5)
    await mesh.restart("identity")

    await trio.alice_sees(bob_id, Presence.ONLINE, 10)


async def test_one_of_two_registries_is_killed_and_changes_are_seen_all_the_time(twins: Mesh, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        trio = await trio_on(twins, tmp_path, stack)
        user_id = trio.bob.me.user_id
        for number in (0, 1):
            await twins.kill("presence", number)
            before = len(trio.views(user_id))
            await trio.bob.__aexit__(None, None, None)
            await trio.alice_sees(user_id, Presence.OFFLINE, GONE_S)
            await trio.bob.__aenter__()
            await trio.alice_sees(user_id, Presence.ONLINE, SOON_S)
            assert trio.views(user_id)[before:] == [Presence.OFFLINE, Presence.ONLINE]
            await twins.restart("presence", number)
            # Until the edges have found it again the other one is the only one.
            await until(lambda at=number: streams_of(twins, at) == EDGES, "the edges are back", 10)  # type: ignore[misc]  # bound at once
