"""What people do, through the SDK, on real processes: the list by which the system is accepted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from chappe.api.edge.v1 import server_frame_pb2
from chappe.cli.launcher import Mesh
from chappe.client import LeanClient, Offline, Online, ReadOnOtherDevice, Tick, link
from chappe.client.profiles import Profile
from tests.system.crowd import until
from tests.system.person import Person, registered

pytestmark = pytest.mark.system

BLOCK_BITES_S = 2.0
"""A block may take so long until it bites."""


class Pair(NamedTuple):
    """Two people on two edges, connected."""

    alice: Person
    bob: Person


@pytest.fixture
def mesh(quiet_mesh: Mesh) -> Mesh:
    return quiet_mesh


@pytest.fixture
async def pair(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        alice = await registered(mesh.ws[0], tmp_path / "alice", "Alice")
        bob = await registered(mesh.ws[1], tmp_path / "bob", "Bob")
        yield Pair(await stack.enter_async_context(alice), await stack.enter_async_context(bob))


async def test_a_message_each_way_is_sent_delivered_and_read(pair: Pair) -> None:
    for sender, reader in (pair, reversed(pair)):
        message = await sender.me.send(reader.number, "hello")
        assert sender.tick(message) >= Tick.SENT

        await sender.sees_tick(message, Tick.DELIVERED)
        await reader.me.mark_read(await reader.sees("hello"))

        await sender.sees_tick(message, Tick.READ)


async def test_the_two_are_on_two_edges(mesh: Mesh, pair: Pair) -> None:
    edges = [(await person.sees_event(Online)).edge for person in pair]

    assert [f"ws://{edge}" for edge in edges] == mesh.ws


async def test_who_was_away_gets_250_messages_in_batches_of_100(mesh: Mesh, tmp_path: Path) -> None:
    bob = await registered(mesh.ws[1], tmp_path / "bob", "Bob")
    async with await registered(mesh.ws[0], tmp_path / "alice", "Alice") as alice:
        bob_id = await alice.me.people.resolve(bob.number)
        sent = await asyncio.gather(*(alice.me.send(bob_id, f"message {number}") for number in range(250)))

        batches = await items_of_each_frame(mesh.ws[1], tmp_path / "bob", expected=250)
        async with bob:
            await until(lambda: len(bob.messages) == 250, "all messages are shown")
        await until(lambda: all(alice.tick(message) == Tick.DELIVERED for message in sent), "all are delivered")

    # Behind the messages the log holds what the account itself has to say.
    assert (len(batches), batches[:2]) == (3, [100, 100])
    assert sorted(message.message_id for message in bob.messages) == sorted(message.message_id for message in sent)


async def items_of_each_frame(address: str, folder: Path, expected: int) -> list[int]:
    """Returns how many items each Events frame carried to a client that remembers nothing of it."""
    profile = Profile.open(folder)
    client = LeanClient(profile.device, address)
    profile.close()
    sizes: list[int] = []

    def count(data: bytes, *, is_last: bool) -> None:
        frame = server_frame_pb2.ServerFrame.FromString(data)
        if frame.HasField("events"):
            sizes.append(len(frame.events.items))
        take(data, is_last=is_last)

    take = client.engine.frame_arrived
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.engine, "frame_arrived", count)
        await client.start()
        await until(lambda: sum(sizes) >= expected, f"{expected} items have come")
    await client.close()
    return [size for size in sizes if size]


async def test_a_second_device_shows_what_the_first_sent_received_and_read(
    mesh: Mesh, pair: Pair, tmp_path: Path
) -> None:
    alice, bob = pair
    code = await alice.me.account.create_link_code()
    await link(mesh.ws[1], code, profile=tmp_path / "second")
    async with Person(mesh.ws[1], tmp_path / "second") as second:
        sent = await alice.me.send(bob.number, "from the first")
        await bob.me.send(alice.number, "to both")
        received = await alice.sees("to both")
        await alice.me.mark_read(received)
        await bob.me.mark_read(await bob.sees("from the first"))

        assert (await second.sees("from the first")).is_mine
        assert not (await second.sees("to both")).is_mine
        read = await second.sees_event(ReadOnOtherDevice)
        await second.sees_tick(sent, Tick.READ)

    assert read.read_upto == received.message_id


async def test_a_device_linked_later_shows_what_was_before(mesh: Mesh, pair: Pair, tmp_path: Path) -> None:
    alice, bob = pair
    await alice.me.send(bob.number, "early")
    await bob.me.send(alice.number, "answer")
    await alice.me.mark_read(await alice.sees("answer"))
    code = await alice.me.account.create_link_code()

    await link(mesh.ws[0], code, profile=tmp_path / "second")
    async with Person(mesh.ws[0], tmp_path / "second") as second:
        await second.sees("early")
        await second.sees("answer")
        await second.sees_event(ReadOnOtherDevice)


async def test_a_blocked_message_keeps_one_tick_and_the_next_after_an_unblock_arrives_at_once(pair: Pair) -> None:
    alice, bob = pair
    before = await alice.me.send(bob.number, "before")
    await alice.sees_tick(before, Tick.DELIVERED)

    await bob.me.account.block(alice.number)
    # The promise is that it bites within this time, not when.
    await asyncio.sleep(BLOCK_BITES_S)
    blocked = await alice.me.send(bob.number, "blocked")
    await bob.me.account.unblock(alice.number)
    after = await alice.me.send(bob.number, "after")
    await bob.sees("after", timeout_s=2.0)
    await alice.sees_tick(after, Tick.DELIVERED)

    assert alice.tick(blocked) == Tick.SENT
    assert [message.text for message in bob.messages] == ["before", "after"]
    assert [message.text for message in (await bob.me.history(alice.number)).messages] == ["after", "before"]


async def test_a_revoked_device_is_cut_off_within_2_seconds(mesh: Mesh, pair: Pair, tmp_path: Path) -> None:
    alice = pair.alice
    code = await alice.me.account.create_link_code()
    await link(mesh.ws[1], code, profile=tmp_path / "second")
    async with Person(mesh.ws[1], tmp_path / "second") as second:
        device_id = max(session.device_id for session in await alice.me.account.sessions())

        start_s = time.monotonic()
        await alice.me.account.revoke(device_id=device_id)
        await second.sees_event(Offline)

        assert time.monotonic() - start_s < 2.0
        await until(lambda: second.end is not None, "the client knows that it is not wanted")
