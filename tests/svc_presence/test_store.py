"""The conformance suite of the port `PresenceStore`: in memory, on one Valkey, and on a Cluster of three."""

import asyncio
import contextlib
import itertools
import random
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis, RedisCluster

from chappe.client.connection import GHOST_S
from chappe.runtime.clock import SystemClock
from chappe.runtime.engines import EmbeddedValkey
from chappe.runtime.engines.ports import is_free
from chappe.runtime.errors import UnavailableError
from svc_edge.protocol.session import PING_INTERVAL_S
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.adapters.presence_store_redis import RedisPresenceStore
from svc_presence.model import (
    Changes,
    Connected,
    Conversation,
    ConversationId,
    DeviceId,
    Edge,
    Located,
    NewSession,
    Replaced,
    Route,
    Session,
    SessionId,
    Typing,
    TypingKind,
    Typist,
    UserId,
    Written,
)
from svc_presence.ports import CONNECTION_S, LATE_S, PresenceStore

PARIS = Edge("paris.example:7443", 2**64 - 1)
LILLE = Edge("[::1]:7443", 7)
ALICE = UserId(bytes(range(16)))
# Braces would end a hash tag, if ids stood in keys as they are.
BOB = UserId(b"}" * 16)
HERE, ELSEWHERE = ConversationId(b"{" * 16), ConversationId(b"e" * 16)


SLOTS = 16_384
NODES = 3


class ClusterNode(EmbeddedValkey):
    """A node of a Cluster."""

    def _configuration(self) -> str:
        return super()._configuration() + "cluster-enabled yes\ncluster-require-full-coverage no\n"


class MovedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        raise NotImplementedError


class MemoryHarness:
    """The fake, and what a test may do to it."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.store = MemoryPresenceStore(self.clock)

    def ago_ms(self, seconds: int) -> int:
        return int(self.clock.now_ms) - seconds * 1000

    async def age(self, seconds: int) -> None:
        self.clock.now_ms += seconds * 1000

    async def forget_all(self) -> None:
        self.store.forget_all()


class ValkeyHarness:
    """A real store, and what a test may do to it."""

    def __init__(self, url: str, *, is_cluster: bool) -> None:
        self.store = RedisPresenceStore(url, is_cluster=is_cluster, timeout_s=10)
        make: Any = RedisCluster if is_cluster else Redis
        self.client: Any = make.from_url(url)

    def ago_ms(self, seconds: int) -> int:
        """Returns when it was so many seconds ago, by the clock of the store."""
        return now_ms() - seconds * 1000

    async def age(self, seconds: int) -> None:
        """Makes everything older: the times in the values, and the times to live."""
        async for key in self.client.scan_iter():
            if key.startswith((b"connection:", b"typists:")):
                fields: Any = await self.client.execute_command("HGETALL", key)
                aged = {device: older(value, seconds) for device, value in fields.items()}
                await self.client.execute_command("HSET", key, *itertools.chain(*aged.items()))
            await self.client.pexpire(key, await self.client.pttl(key) - seconds * 1000)

    async def forget_all(self) -> None:
        await self.client.flushall()

    async def ttl_s(self, key: str) -> int:
        return round(await self.client.pttl(key) / 1000)

    async def aclose(self) -> None:
        await self.client.flushall()
        await self.client.aclose()
        await self.store.aclose()


Harness = MemoryHarness | ValkeyHarness


async def is_online(harness: Harness, user_id: UserId) -> bool:
    return (await harness.store.read_presence([user_id]))[0].online_left_ms > 0


async def was_seen(harness: Harness, user_id: UserId) -> bool:
    return (await harness.store.read_presence([user_id]))[0].last_seen_ms > 0


def older(value: bytes, seconds: int) -> bytes:
    rest, _, times_ms = value.rpartition(b"|")
    return rest + b"|" + b".".join(b"%d" % (int(time_ms) - seconds * 1000) for time_ms in times_ms.split(b"."))


def free_ports(count: int) -> list[int]:
    """Finds ports that are free, and with them those of the Cluster bus, 10,000 above.

    They lie below those that the kernel gives to connections, of which one may take what was free a moment ago.
    """
    candidates = random.sample(range(11_000, 20_000), 200)
    return list(itertools.islice((one for one in candidates if is_free(one) and is_free(one + 10_000)), count))


def cluster_node(folder: Path, port: int) -> ClusterNode:
    """Makes a node that asks the same password as the others: clients know one."""
    folder.mkdir()
    (folder / "password").write_text("of-all-nodes", encoding="utf-8")
    return ClusterNode(folder, port=port, dies_with_launcher=False)


async def start_cluster(nodes: Sequence[ClusterNode]) -> None:
    """Starts nodes, gives each its share of the slots, and returns once each knows who has the others."""
    await asyncio.gather(*(node.start() for node in nodes))
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Redis.from_url(node.tcp_url)) for node in nodes]
        bounds = [SLOTS * number // len(nodes) for number in range(len(nodes) + 1)]
        for number, client in enumerate(clients):
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node in nodes[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", urlsplit(node.tcp_url).port)
        async with asyncio.timeout(30):
            while True:
                if all([is_whole(await client.execute_command("CLUSTER", "INFO")) for client in clients]):
                    break
                await asyncio.sleep(0.02)


def is_whole(told: bytes) -> bool:
    lines = set(told.split(b"\r\n"))
    return {b"cluster_state:ok", b"cluster_slots_ok:%d" % SLOTS, b"cluster_known_nodes:%d" % NODES} <= lines


async def stop_all(nodes: Sequence[ClusterNode]) -> None:
    await asyncio.gather(*(node.stop() for node in nodes))


# Code between fork and exec may crash the child of a process in which gRPC runs threads, as other tests start here;
# hence no engine of these tests asks to die with its launcher.
@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = EmbeddedValkey(tmp_path_factory.mktemp("valkey") / "vk", dies_with_launcher=False)
    asyncio.run(engine.start())
    yield engine.url
    asyncio.run(engine.stop())


@pytest.fixture(scope="module")
def cluster_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    folder = tmp_path_factory.mktemp("cluster")
    nodes = [cluster_node(folder / f"vk{number}", port) for number, port in enumerate(free_ports(NODES))]
    asyncio.run(start_cluster(nodes))
    yield nodes
    asyncio.run(stop_all(nodes))


@pytest.fixture(scope="module")
def cluster(cluster_nodes: list[ClusterNode]) -> str:
    return cluster_nodes[0].tcp_url


@pytest.fixture
async def real(valkey: str) -> AsyncIterator[ValkeyHarness]:
    harness = ValkeyHarness(valkey, is_cluster=False)
    yield harness
    await harness.aclose()


@pytest.fixture(params=["memory", "valkey", "cluster"])
def engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns which adapter, and the address of its engine."""
    return request.param, "" if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def harness(engine: tuple[str, str]) -> AsyncIterator[Harness]:
    name, url = engine
    if name == "memory":
        yield MemoryHarness()
        return
    made = ValkeyHarness(url, is_cluster=name == "cluster")
    yield made
    await made.aclose()


def session(number: int, user_id: UserId = ALICE, device_id: int = 1) -> Session:
    return Session(user_id, DeviceId(device_id), SessionId(number))


def typing(user_id: UserId, kind: TypingKind = TypingKind.TEXT, where: ConversationId | None = None) -> Typing:
    return Typing(user_id, Conversation(HERE if where is None else where, None), kind)


def now_ms() -> int:
    """Returns the time of this machine: no harness has a later one by more than a moment."""
    return SystemClock().wall_ms()


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def user(number: int) -> UserId:
    return UserId(number.to_bytes(16, "big"))


async def connect(store: PresenceStore, edge: Edge, *sessions: Session) -> list[Connected]:
    """Connects with a nonce that no other session uses."""
    connects = [NewSession(one, nonce(one.session_id)) for one in sessions]
    return (await store.write(edge, Changes(connects, [], []), now_ms())).connects


async def refresh(store: PresenceStore, edge: Edge, *sessions: Session) -> list[Session]:
    return (await store.write(edge, Changes([], list(sessions), []), now_ms())).replaced


async def bye(store: PresenceStore, edge: Edge, *sessions: Session) -> Written:
    return await store.write(edge, Changes([], [], list(sessions)), now_ms())


def route(edge: Edge, session: Session) -> Route:
    return Route(*session, edge)


async def test_a_connected_session_is_located_and_its_user_online(harness: Harness) -> None:
    connected = await connect(harness.store, PARIS, session(2**64 - 1))

    assert connected == [Connected(is_refused=False, replaced=None)]
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2**64 - 1), PARIS)]
    assert await is_online(harness, ALICE)
    assert await was_seen(harness, ALICE)


async def test_users_are_spread_over_all_nodes_of_a_cluster_and_read_in_one_call(
    cluster_nodes: list[ClusterNode],
) -> None:
    harness = ValkeyHarness(cluster_nodes[0].tcp_url, is_cluster=True)
    users = [user(number) for number in range(60)]

    await connect(harness.store, PARIS, *(session(number + 1, one) for number, one in enumerate(users)))

    assert all(one.online_left_ms > 0 for one in await harness.store.read_presence(users))
    for node in cluster_nodes:
        async with Redis.from_url(node.tcp_url) as client:
            assert await client.dbsize() > 0
    await harness.aclose()


async def test_a_connect_wins_and_tells_what_it_replaced(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    connected = await connect(harness.store, LILLE, session(2))

    assert connected == [Connected(is_refused=False, replaced=Replaced(PARIS, SessionId(1)))]
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2), LILLE)]


async def test_sessions_of_other_devices_and_users_are_left_alone(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    connected = await connect(harness.store, LILLE, session(2, device_id=2), session(3, BOB))

    assert connected == [Connected(is_refused=False, replaced=None)] * 2
    assert len(await harness.store.locate([ALICE, BOB], [])) == 3


async def test_a_used_nonce_refuses_another_session_and_nothing_is_written(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    written = await harness.store.write(LILLE, Changes([NewSession(session(2), nonce(1))], [], []), now_ms())

    assert written.connects == [Connected(is_refused=True, replaced=None)]
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(1), PARIS)]


@pytest.mark.parametrize("late_s", [LATE_S + 1, 3600])
async def test_a_connect_that_is_carried_out_late_ends_nobody_who_came_meanwhile(harness: Harness, late_s: int) -> None:
    await connect(harness.store, PARIS, session(2))
    late = Changes([NewSession(session(1), nonce(1))], [], [])

    written = await harness.store.write(LILLE, late, harness.ago_ms(late_s))
    again = await harness.store.write(LILLE, Changes([NewSession(session(3, BOB), nonce(1))], [], []), now_ms())

    assert written == Written([Connected(is_refused=False, replaced=None)], [])
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2), PARIS)]
    assert not again.connects[0].is_refused


async def test_a_connect_that_is_carried_out_a_little_late_wins_still(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(2))
    late = Changes([NewSession(session(1), nonce(1))], [], [])

    written = await harness.store.write(LILLE, late, harness.ago_ms(LATE_S - 2))

    assert written.connects == [Connected(is_refused=False, replaced=Replaced(PARIS, SessionId(2)))]


def test_whoever_is_ended_by_a_late_connect_hears_of_it_while_its_client_forgives_it() -> None:
    assert LATE_S + PING_INTERVAL_S < GHOST_S


async def register(store: PresenceStore, edge: Edge, number: int, age_ms: int) -> Connected:
    """Connects a session that began a while ago, as an edge does for which nobody answered meanwhile."""
    changes = Changes([NewSession(session(number), nonce(number), age_ms)], [], [])
    return (await store.write(edge, changes, now_ms())).connects[0]


async def test_of_two_sessions_that_are_registered_late_the_one_that_began_later_stays(harness: Harness) -> None:
    await register(harness.store, LILLE, 2, age_ms=10_000)
    await refresh(harness.store, LILLE, session(2))

    earlier = await register(harness.store, PARIS, 1, age_ms=30_000)

    assert earlier == Connected(is_refused=False, replaced=None)
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2), LILLE)]
    assert await refresh(harness.store, PARIS, session(1)) == [session(1)]


async def test_a_session_that_is_registered_late_takes_the_place_of_one_that_began_before(harness: Harness) -> None:
    await register(harness.store, PARIS, 1, age_ms=30_000)

    later = await register(harness.store, LILLE, 2, age_ms=10_000)

    assert later.replaced == Replaced(PARIS, SessionId(1))


async def test_a_session_that_is_known_by_its_refreshes_alone_gives_way_to_any(harness: Harness) -> None:
    await refresh(harness.store, PARIS, session(1))

    connected = await register(harness.store, LILLE, 2, age_ms=30_000)

    assert connected.replaced == Replaced(PARIS, SessionId(1))


async def test_an_expired_session_keeps_nobody_out_who_began_before_it(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1), session(2, device_id=2))
    await harness.age(CONNECTION_S - 10)
    await refresh(harness.store, PARIS, session(2, device_id=2))
    await harness.age(11)

    await register(harness.store, LILLE, 3, age_ms=3_600_000)

    located = await harness.store.locate([ALICE], [])
    assert Located(0, DeviceId(1), SessionId(3), LILLE) in located


async def test_of_two_sessions_that_began_in_the_same_second_the_one_that_is_written_later_wins(
    harness: Harness,
) -> None:
    await register(harness.store, PARIS, 1, age_ms=0)

    connected = await register(harness.store, LILLE, 2, age_ms=500)

    assert connected.replaced == Replaced(PARIS, SessionId(1))


async def test_a_nonce_is_free_for_other_users_and_again_after_its_time(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    of_bob = await harness.store.write(LILLE, Changes([NewSession(session(2, BOB), nonce(1))], [], []), now_ms())
    await harness.age(121)
    of_alice = await harness.store.write(LILLE, Changes([NewSession(session(3), nonce(1))], [], []), now_ms())

    assert not of_bob.connects[0].is_refused
    assert not of_alice.connects[0].is_refused


async def test_a_repeated_connect_is_accepted_again(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    connected = await connect(harness.store, PARIS, session(1))

    assert connected == [Connected(is_refused=False, replaced=None)]


async def test_a_repeated_connect_does_not_win_over_a_session_that_came_after_it(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))
    await connect(harness.store, LILLE, session(2))

    connected = await connect(harness.store, PARIS, session(1))

    assert connected == [Connected(is_refused=False, replaced=None)]
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2), LILLE)]


async def test_a_route_expires_after_a_minute_and_online_after_45_seconds(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    await harness.age(46)
    at_46_s = (await is_online(harness, ALICE), len(await harness.store.locate([ALICE], [])))
    await harness.age(15)

    assert at_46_s == (False, 1)
    assert await harness.store.locate([ALICE], []) == []
    assert await was_seen(harness, ALICE)


async def test_last_seen_is_forgotten_after_30_days(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))

    await harness.age(30 * 86_400 + 1)

    assert not await was_seen(harness, ALICE)


async def test_a_refresh_keeps_a_route_alive_while_another_device_expires(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1), session(2, device_id=2))
    await harness.age(40)

    replaced = await refresh(harness.store, PARIS, session(2, device_id=2))
    await harness.age(21)

    assert replaced == []
    assert await is_online(harness, ALICE)
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(2), SessionId(2), PARIS)]


async def test_a_refresh_registers_again_after_everything_was_lost(harness: Harness) -> None:
    replaced = await refresh(harness.store, PARIS, session(1))

    assert replaced == []
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(1), PARIS)]


@pytest.mark.parametrize(
    ("edge", "number"),
    [(PARIS, 2), (LILLE, 1), (Edge(PARIS.edge_id, 9), 1), (PARIS, 0x10)],
    ids=["another session", "another edge", "another boot", "a longer number"],
)
async def test_a_refresh_does_not_write_over_another_live_session(harness: Harness, edge: Edge, number: int) -> None:
    await connect(harness.store, PARIS, session(1))

    replaced = await refresh(harness.store, edge, session(number))

    assert replaced == [session(number)]
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(1), PARIS)]


async def test_a_refresh_writes_over_a_session_that_has_expired(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1), session(2, device_id=2))
    await harness.age(40)
    await refresh(harness.store, PARIS, session(2, device_id=2))
    await harness.age(21)

    replaced = await refresh(harness.store, LILLE, session(3))

    assert replaced == []
    assert len(await harness.store.locate([ALICE], [])) == 2


async def test_a_bye_forgets_the_route_and_the_last_one_the_online_mark(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1), session(2, device_id=2))

    await bye(harness.store, PARIS, session(1))
    after_first = await is_online(harness, ALICE)
    await bye(harness.store, PARIS, session(2, device_id=2))

    assert after_first
    assert not await is_online(harness, ALICE)
    assert await was_seen(harness, ALICE)
    assert await harness.store.locate([ALICE], []) == []


async def test_a_bye_of_an_older_session_changes_nothing(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))
    await connect(harness.store, LILLE, session(2))

    await bye(harness.store, PARIS, session(1))
    await bye(harness.store, Edge(LILLE.edge_id, 8), session(2))

    assert await is_online(harness, ALICE)
    assert await harness.store.locate([ALICE], []) == [Located(0, DeviceId(1), SessionId(2), LILLE)]


async def test_gone_routes_are_forgotten_unless_replaced(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1), session(2, BOB))
    await connect(harness.store, LILLE, session(3, BOB))

    located = await harness.store.locate([ALICE, BOB], [route(PARIS, session(1)), route(PARIS, session(2, BOB))])

    assert located == [Located(1, DeviceId(1), SessionId(3), LILLE)]
    assert not await is_online(harness, ALICE)
    assert await is_online(harness, BOB)


async def test_routes_are_ordered_by_user_as_asked_and_device(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1, device_id=10), session(2, device_id=9), session(3, BOB))

    located = await harness.store.locate([BOB, user(5), ALICE, BOB], [])

    assert [(one.user_index, one.device_id) for one in located] == [(0, 1), (2, 9), (2, 10), (3, 1)]


async def test_one_batch_connects_before_it_refreshes_and_refreshes_before_byes(harness: Harness) -> None:
    changes = Changes(
        [NewSession(session(1), nonce(1))],
        [session(1), session(2), session(3, BOB)],
        [session(3, BOB), session(4)],
    )

    written = await harness.store.write(PARIS, changes, now_ms())

    assert written == Written([Connected(is_refused=False, replaced=None)], [session(2)])
    assert await harness.store.locate([ALICE, BOB], []) == [Located(0, DeviceId(1), SessionId(1), PARIS)]


async def test_a_thousand_sessions_are_written_and_located_in_order(harness: Harness) -> None:
    sessions = [session(number, user(number)) for number in range(1, 1001)]
    await connect(harness.store, PARIS, *sessions[::2])

    connected = await connect(harness.store, LILLE, *[session(one.session_id + 5000, one.user_id) for one in sessions])
    replaced = await refresh(harness.store, PARIS, *sessions)
    located = await harness.store.locate([one.user_id for one in sessions], [])

    expected = [Replaced(PARIS, one.session_id) if one in sessions[::2] else None for one in sessions]
    assert [one.replaced for one in connected] == expected
    assert sorted(replaced) == sessions
    assert [one.session_id for one in located] == [one.session_id + 5000 for one in sessions]


async def test_what_is_known_of_people_comes_in_order_with_the_time_that_is_left(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))
    await harness.age(20)

    unknown, alice = await harness.store.read_presence([BOB, ALICE])

    assert (unknown.online_left_ms, unknown.last_seen_ms) == (0, 0)
    assert 24_000 <= alice.online_left_ms <= 25_000
    assert alice.last_seen_ms > 1_600_000_000_000


async def test_how_long_ago_somebody_was_seen_is_counted_from_the_last_sign_of_life(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))
    before = (await harness.store.read_presence([ALICE]))[0]

    await bye(harness.store, PARIS, session(1))
    after = (await harness.store.read_presence([ALICE]))[0]

    assert (before.online_left_ms > 0, after.online_left_ms) == (True, 0)
    assert after.last_seen_ms >= before.last_seen_ms
    assert after.idle_ms < 5_000


async def test_a_store_that_lost_its_memory_knows_nobody(harness: Harness) -> None:
    await connect(harness.store, PARIS, session(1))
    await bye(harness.store, PARIS, session(1))

    await harness.forget_all()

    seen = (await harness.store.read_presence([ALICE]))[0]
    assert (seen.online_left_ms, seen.last_seen_ms) == (0, 0)


async def test_typing_is_listed_for_five_seconds_by_user(harness: Harness) -> None:
    await harness.store.write_typing([typing(BOB), typing(ALICE, TypingKind.RECORDING), typing(ALICE, where=ELSEWHERE)])

    here, nowhere, elsewhere = await harness.store.read_typing([HERE, user(9), ELSEWHERE])  # type: ignore[list-item]  # any id will do
    await harness.age(5)

    assert [one.typist for one in here] == [Typist(ALICE, TypingKind.RECORDING), Typist(BOB, TypingKind.TEXT)]
    assert all(4_000 < one.left_ms <= 5_000 for one in here)
    assert (nowhere, [one.typist.user_id for one in elsewhere]) == ([], [ALICE])
    assert await harness.store.read_typing([HERE]) == [[]]


async def test_typing_that_is_repeated_goes_on_while_that_of_others_ends(harness: Harness) -> None:
    await harness.store.write_typing([typing(ALICE), typing(BOB)])
    await harness.age(3)

    await harness.store.write_typing([typing(ALICE)])
    await harness.age(3)

    assert [one.typist.user_id for one in (await harness.store.read_typing([HERE]))[0]] == [ALICE]


async def test_typing_that_is_over_ends_at_once(harness: Harness) -> None:
    await harness.store.write_typing([typing(ALICE), typing(BOB)])

    await harness.store.write_typing([typing(ALICE)._replace(is_over=True), typing(user(5))._replace(is_over=True)])

    assert [one.typist.user_id for one in (await harness.store.read_typing([HERE]))[0]] == [BOB]


async def test_many_people_and_conversations_are_answered_in_order(harness: Harness) -> None:
    people = [user(number) for number in range(300)]
    await connect(harness.store, PARIS, *[session(number + 1, one) for number, one in enumerate(people[::2])])
    places = [ConversationId(one) for one in people]
    await harness.store.write_typing([typing(ALICE, where=place) for place in places[::3]])

    seen = await harness.store.read_presence(people)
    lasting = await harness.store.read_typing(places)

    assert [one.online_left_ms > 0 for one in seen] == [number % 2 == 0 for number in range(300)]
    assert [len(one) for one in lasting] == [int(number % 3 == 0) for number in range(300)]


async def test_an_empty_batch_and_an_empty_question_are_answered(harness: Harness) -> None:
    await harness.store.check()

    assert await harness.store.write(PARIS, Changes([], [], []), now_ms()) == Written([], [])
    assert await harness.store.locate([], []) == []
    assert await harness.store.read_presence([]) == []
    assert await harness.store.read_typing([]) == []
    await harness.store.write_typing([])


@pytest.mark.parametrize("is_cluster", [False, True])
async def test_a_store_of_which_no_node_is_reachable_does_not_answer(*, is_cluster: bool) -> None:
    (port,) = free_ports(1)
    store = RedisPresenceStore(f"redis://127.0.0.1:{port}/0", is_cluster=is_cluster, timeout_s=0.3)

    with pytest.raises(UnavailableError) as refusal:
        await store.check()
    assert refusal.value.message == "redis: it does not answer; try again"
    assert str(port) in str(refusal.value)
    with pytest.raises(UnavailableError):
        await store.read_presence([ALICE])
    with pytest.raises(UnavailableError):
        await store.read_presence([ALICE, BOB])
    await store.aclose()


async def test_the_key_of_typing_is_that_of_the_document(real: ValkeyHarness) -> None:
    await real.store.write_typing([typing(ALICE)])

    key = f"typing:{{{HERE.hex()}}}:{ALICE.hex()}"
    assert await real.client.get(key) == b"1"
    assert [await real.ttl_s(key), await real.ttl_s(f"typists:{{{HERE.hex()}}}")] == [5, 5]


async def test_an_expired_typist_is_dropped_when_it_is_read(real: ValkeyHarness) -> None:
    await real.store.write_typing([typing(ALICE), typing(BOB)])
    await real.age(4)
    await real.store.write_typing([typing(BOB)])
    await real.age(2)

    await real.store.read_typing([HERE])

    assert await real.client.execute_command("HKEYS", f"typists:{{{HERE.hex()}}}") == [BOB.hex().encode()]


async def test_scripts_that_the_server_has_forgotten_are_loaded_again(real: ValkeyHarness) -> None:
    await connect(real.store, PARIS, session(1))
    await real.client.script_flush()

    connected = await connect(real.store, LILLE, session(2))

    assert connected == [Connected(is_refused=False, replaced=Replaced(PARIS, SessionId(1)))]


async def test_every_key_has_the_time_to_live_that_its_script_names(real: ValkeyHarness) -> None:
    await connect(real.store, PARIS, session(1))

    names = ["connection", "online", "lastseen", "nonce"]
    keys = [f"{name}:{{{ALICE.hex()}}}" for name in names]
    keys[3] += ":" + nonce(1).hex()
    assert [await real.ttl_s(key) for key in keys] == [60, 45, 30 * 86_400, 120]
    assert await real.client.dbsize() == 4


async def test_an_expired_field_is_dropped_when_it_is_read(real: ValkeyHarness) -> None:
    await connect(real.store, PARIS, session(1), session(2, device_id=2))
    await real.age(40)
    await refresh(real.store, PARIS, session(2, device_id=2))
    await real.age(21)

    await real.store.locate([ALICE], [])

    assert await real.client.execute_command("HKEYS", f"connection:{{{ALICE.hex()}}}") == [b"2"]


@pytest.mark.parametrize("script", ["connect", "refresh", "bye", "forget", "locate", "presence", "typing", "typists"])
def test_every_script_names_its_keys_their_values_times_and_source(root: Path, script: str) -> None:
    header = (root / "svc_presence" / "schema" / f"{script}.lua").read_text().partition("\nlocal")[0]

    assert header.startswith(f"-- {script}: ")
    assert all(word in header for word in ("-- KEYS", "-- ARGV", "-- Source", "-- Returns"))
    assert "{uid}" in header or "{conversation}" in header


@pytest.mark.parametrize("url", ["hunter2", "http://:hunter2@registry", "redis://:hunter2/x@registry:6379/0"])
def test_what_is_no_address_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(UnavailableError, match="its address is no redis://") as refused:
        RedisPresenceStore(url)

    assert "hunter2" not in "".join(traceback.format_exception(refused.value, chain=True))
