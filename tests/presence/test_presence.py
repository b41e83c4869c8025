"""What people see of each other across edges and replicas, while these come, go and die; and how soon."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.presence.house import HIDDEN, OFFLINE, ONLINE, UNKNOWN, Guest, House, Process, until

SOON_S = 5.0
"""Watchers see a change within this time, whatever happens to replicas meanwhile."""
GROUP = b"g" * 16


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House() as house:
        yield house


async def test_people_at_different_edges_see_each_other_come_and_go(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id)

    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")
    await bob.leave()
    left_ms = house.clock.wall_ms()
    await house.pass_until(lambda: alice.sees(bob) == OFFLINE, 10)
    seen_ms = alice.last_seen_ms[bob.user_id]
    await bob.sign_in()

    await until(lambda: alice.sees(bob) == ONLINE, "bob is back", SOON_S)
    assert alice.views[bob.user_id] == [ONLINE, OFFLINE, ONLINE]
    assert abs(seen_ms - left_ms) < 5_000


async def test_a_reconnect_to_another_edge_within_seconds_shows_no_flap(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(0)
    house.town.befriend(alice.user_id, bob.user_id)
    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")

    await bob.leave()
    house.clock.leap(2)
    again = await house.guest(1, bob.person)
    for _ in range(40):
        house.clock.leap(0.5)
        await asyncio.sleep(0.005)

    assert alice.views[bob.user_id] == [ONLINE]
    await again.leave()


async def test_a_dead_socket_is_offline_within_a_minute(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id)
    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")
    dead_ms = house.clock.wall_ms()

    await bob.vanish()
    await house.pass_until(lambda: house.clock.wall_ms() - dead_ms > 46_000, 60)
    # The edge cuts the line a second after it has said why; that second is one of the machine's clock.
    await until(lambda: metric(house.edges[1], "edge_connections") == 0, "the edge lets go")
    await house.pass_until(lambda: alice.sees(bob) == OFFLINE, 15)

    assert 40_000 < house.clock.wall_ms() - dead_ms <= 60_000
    assert alice.views[bob.user_id][:2] == [ONLINE, OFFLINE]
    assert abs(alice.last_seen_ms[bob.user_id] - dead_ms) < 60_000


async def test_the_people_of_an_edge_that_was_killed_are_offline_within_a_minute(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id)
    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")

    await house.kill(house.edges[1])
    took_s = await house.pass_until(lambda: alice.sees(bob) == OFFLINE, 60)

    assert 40 < took_s <= 60


async def test_after_the_only_replica_was_killed_changes_are_seen_again_within_five_seconds(house: House) -> None:
    alice, bob, carol = await house.guest(0), await house.guest(1), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id, carol.user_id)
    alice.watch(bob.user_id, carol.user_id)
    await until(lambda: alice.sees(bob) == alice.sees(carol) == ONLINE, "both are there")

    await house.kill(house.replicas[0])
    await until(lambda: alice.sees(bob) == alice.sees(carol) == UNKNOWN, "nobody can say", SOON_S)
    await bob.leave()
    await house.start(0)
    begun_s = time.monotonic()
    await until(lambda: alice.sees(carol) == ONLINE, "carol is seen again", SOON_S)
    await bob.sign_in()
    await until(lambda: alice.sees(bob) == ONLINE, "bob is seen to come back", SOON_S)

    assert time.monotonic() - begun_s < SOON_S
    assert OFFLINE not in alice.views[carol.user_id]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_nothing_is_lost_when_replicas_go_from_one_to_three_and_back(house: House, end: str) -> None:
    chance = random.Random(5)
    watcher = await house.guest(0)
    crowd = [await house.guest(number % 2) for number in range(24)]
    house.town.befriend(watcher.user_id, *(guest.user_id for guest in crowd))
    watcher.watch(*(guest.user_id for guest in crowd))
    await until(lambda: all(watcher.sees(guest) == ONLINE for guest in crowd), "all are there")

    async def come_and_go() -> None:
        """Lets some leave and come back; the watcher sees it all soon."""
        some = chance.sample(crowd, 8)
        for guest in some:
            await guest.leave()
        await house.pass_until(lambda: all(watcher.sees(guest) == OFFLINE for guest in some), 15)
        for guest in some:
            await guest.sign_in()
        await until(lambda: all(watcher.sees(guest) == ONLINE for guest in crowd), "all are back", SOON_S)

    await come_and_go()
    for replica in (1, 2):
        await house.start(replica)
        await come_and_go()
    await until(lambda: all(replica in house.running for replica in house.replicas), "three are there")
    await come_and_go()
    for replica in (0, 2):
        await (house.stop(replica) if end == "stop" else house.kill(house.replicas[replica]))
        await come_and_go()

    assert all(UNKNOWN not in views for views in watcher.views.values()) or end == "kill"


async def test_with_three_replicas_the_people_are_spread_over_them(house: House) -> None:
    for replica in (1, 2):
        await house.start(replica)
    watcher = await house.guest(0)
    watcher.watch(*(number.to_bytes(16, "big") for number in range(90)))

    counts = lambda: [metric(replica, "presence_watched_people") for replica in house.replicas]  # noqa: E731 - one line

    await until(lambda: sum(counts()) == 90 and min(counts()) > 10, "each has its share")


def metric(process: Process, name: str) -> float:
    """Returns what a process has counted."""
    lines = process.app.metrics.render().splitlines()
    return float(next(line for line in lines if line.startswith(f"chappe_{name} ")).split()[1])


async def test_a_change_of_what_may_be_seen_is_told_within_two_seconds(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id)
    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")

    house.town.hide(bob.user_id, alice.user_id)
    await until(lambda: alice.sees(bob) == HIDDEN, "bob hides", 2)
    house.town.befriend(alice.user_id, bob.user_id)

    await until(lambda: alice.sees(bob) == ONLINE, "bob shows again", 2)


async def test_a_flush_makes_nobody_offline_and_is_mended_by_the_edges(house: House) -> None:
    alice, bob, carol = await house.guest(0), await house.guest(1), await house.guest(1)
    house.town.befriend(alice.user_id, bob.user_id, carol.user_id)
    alice.watch(bob.user_id)
    await until(lambda: alice.sees(bob) == ONLINE, "bob is there")

    house.store.forget_all()
    alice.watch(carol.user_id)
    await until(lambda: alice.sees(carol) == UNKNOWN, "of carol nobody can say")
    took_s = await house.pass_until(lambda: alice.sees(carol) == ONLINE, 30)

    assert took_s <= 30
    assert (alice.views[bob.user_id], alice.views[carol.user_id]) == ([ONLINE], [UNKNOWN, ONLINE])


# Typing


async def typed(house: House, typist: Guest, **named: bytes) -> None:
    """Lets somebody type once the second since the last time is over."""
    house.clock.leap(1.1)
    typist.type(**named)


async def test_typing_crosses_edges_and_survives_a_change_of_replicas(house: House) -> None:
    alice, bob = await house.guest(0), await house.guest(1)
    alice.look_at(peer_user_id=bob.user_id)
    shown = lambda: alice.typing.get(bob.user_id, [])  # noqa: E731 - one line

    bob.type(peer_user_id=alice.user_id)
    await until(lambda: shown() == [[bob.user_id]], "bob types")
    await house.pass_until(lambda: shown() == [[bob.user_id], []], 7)
    for replica in (1, 2):
        await house.start(replica)
    await house.kill(house.replicas[0])
    await until(lambda: house.replicas[0] not in house.running, "it is gone")

    begun_s = time.monotonic()
    while len(shown()) < 3:
        assert time.monotonic() - begun_s < SOON_S
        await typed(house, bob, peer_user_id=alice.user_id)
        await asyncio.sleep(0.1)
    assert shown()[2] == [bob.user_id]


async def test_typing_in_a_group_is_for_its_members(house: House) -> None:
    alice, bob, mallory = await house.guest(0), await house.guest(1), await house.guest(1)
    house.town.join(GROUP, alice.user_id, bob.user_id)
    for guest in (alice, bob, mallory):
        guest.look_at(group_id=GROUP)

    mallory.type(group_id=GROUP)
    alice.type(group_id=GROUP)
    await until(lambda: bob.typing.get(GROUP) == [[alice.user_id]], "alice types")
    house.town.join(GROUP, mallory.user_id)
    await until(lambda: mallory.typing.get(GROUP) == [[alice.user_id]], "mallory is in now", 2)

    assert GROUP not in alice.typing
