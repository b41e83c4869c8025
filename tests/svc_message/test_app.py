"""The whole ledger on real stores, between a svc_identity, a svc_fanout and edges behind real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.identity.v1 import directory_service_pb2, directory_service_pb2_grpc
from chappe.api.message.v1 import history_service_pb2, history_service_pb2_grpc, message_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.app import App
from chappe.runtime.clock import Seams, SystemClock, SystemRandomness, system_seams
from chappe.runtime.config import ConfigError, Secret, ServerSettings, load
from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.engines.cassandra import EmbeddedCassandra
from chappe.runtime.errors import UnavailableError
from chappe.runtime.migrations import SchemaOutdatedError
from chappe.runtime.pki import SpiffeId
from svc_message import config
from svc_message.__main__ import main
from svc_message.adapters.ledger_cassandra import SCHEMA as CASSANDRA_SCHEMA
from svc_message.adapters.message_store_postgres import SCHEMA
from svc_message.app import build
from svc_message.config import CassandraSettings, Config
from svc_message.model import UserId
from tests.runtime.probe import ALONE
from tests.svc_message.desk import stranger
from tests.svc_message.doors import ALICE, Edge, Request
from tests.svc_message.fakes import ManualClock
from tests.svc_message.test_directory_grpc import FakeIdentity
from tests.svc_message.test_dispatcher_grpc import FakeFanout
from tests.svc_message.test_message_store_postgres import query, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class WrongClock(SystemClock):
    """A clock that is an hour late."""

    def wall_ms(self) -> int:
        return super().wall_ms() - 3_600_000


class SetClock(SystemClock):
    """A clock that somebody sets while it is used."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


class Ledger:
    """A ledger and its surroundings."""

    def __init__(self, stack: contextlib.AsyncExitStack, **settings: Any) -> None:
        self.stack, self.settings = stack, settings
        self.identity, self.fanout = FakeIdentity(), FakeFanout()
        self.bob = stranger()
        self.identity.versions[self.bob] = 1
        self.running = contextlib.AsyncExitStack()
        self.app: App
        self.channel: grpc.aio.Channel

    async def start(self, seams: Seams | None = None) -> None:
        server = grpc.aio.server(options=ALONE)
        directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(self.identity, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self.stack.push_async_callback(server.stop, None)
        await self.fanout.server.start()
        self.stack.push_async_callback(self.fanout.server.stop, None)
        settings = Config(
            server=ServerSettings(),
            **self.settings,
            identity_target=address,
            fanout_target=self.fanout.address,
            retention_interval_s=1,
        )
        self.app = App("message", settings.server, seams=seams or system_seams(), identify=lambda _: edge())
        await self.stack.enter_async_context(self.running)
        await self.running.enter_async_context(self.app)
        await build(settings, self.app)
        await self.app.start()
        self.channel = await self.stack.enter_async_context(grpc.aio.insecure_channel(self.app.address))
        await self.fanout.until(lambda: bool(self.fanout.contexts))

    async def submit(self) -> Edge:
        stub: Any = message_service_pb2_grpc.MessageServiceStub(self.channel)
        opened = Edge(stub.Submit(), ManualClock(self.app.seams.clock.wall_ms()))
        await opened.call.write(Request(hello=stream_pb2.StreamHello(protocol=1, peer_id="edge-1", boot_id=3)))
        await opened.call.read()
        return opened

    async def inbox(self, user_id: UserId) -> Any:
        query = history_service_pb2.InboxQuery(user_id=user_id, device_id=1)
        request = history_service_pb2.SyncInboxRequest(queries=[query])
        stub: Any = history_service_pb2_grpc.HistoryServiceStub(self.channel)
        return (await stub.SyncInbox(request)).answers[0]


def edge() -> SpiffeId:
    return SpiffeId(trust_domain="chappe.test", service="svc-edge")


@pytest.fixture
def in_postgres(ledger_dsn: str) -> dict[str, Any]:
    """Returns the settings of a ledger in PostgreSQL."""
    return {"store_dsn": Secret(ledger_dsn)}


@pytest.fixture
def in_cassandra(cassandra: EmbeddedCassandra, ledger_keyspace: str) -> dict[str, Any]:
    """Returns the settings of a ledger in Cassandra."""
    settings = CassandraSettings(
        cassandra_hosts=(cassandra.address,), cassandra_keyspace=ledger_keyspace, cassandra_may_lose=True
    )
    return {"ledger": config.Ledger.CASSANDRA, "cassandra": settings}


@pytest.fixture(params=["postgres", "cassandra"])
def in_store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Returns the settings of a ledger in every store, one after the other."""
    found: dict[str, Any] = request.getfixturevalue(f"in_{request.param}")
    return found


@pytest.fixture
async def ledger(in_store: dict[str, Any]) -> AsyncIterator[Ledger]:
    async with contextlib.AsyncExitStack() as stack:
        yield Ledger(stack, **in_store)


async def test_a_message_is_stored_hinted_and_read_with_the_same_bytes(ledger: Ledger) -> None:
    await ledger.start()
    stream = await ledger.submit()

    await stream.send(stream.say(1, to=ledger.bob))
    await stream.until(1)
    await ledger.fanout.until(lambda: bool(ledger.fanout.items))

    answer = await ledger.inbox(ledger.bob)
    assert list(answer.items) == ledger.fanout.items
    await stream.acknowledge(answer.keys[0], reader=ledger.bob)
    await stream.until(2)
    await ledger.fanout.until(lambda: len(ledger.fanout.items) == 2)
    assert list(ledger.fanout.batches[-1].user_ids) == [ALICE]


async def test_what_disappears_is_emptied_while_the_ledger_runs(ledger_dsn: str, in_postgres: dict[str, Any]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await see_something_disappear(Ledger(stack, **in_postgres), ledger_dsn)


async def see_something_disappear(ledger: Ledger, dsn: str) -> None:
    """Writes what disappears, and looks until it is emptied."""
    await ledger.start()
    stream = await ledger.submit()
    send = send_pb2.Send.FromString(stream.say(1, b"hush", to=ledger.bob))
    send.message.expiry_s = 1

    await stream.send(send.SerializeToString())
    await stream.until(1)

    found = f"SELECT kind, envelope FROM messages WHERE message_id = '{send.message_id.hex()}'"  # noqa: S608 - of hex digits

    async def is_emptied() -> None:
        if (await query(dsn, found)) != [(14, b"")]:
            raise UnavailableError("ledger", "it is still there")

    await within(10, is_emptied)


def add_group(ledger: Ledger) -> bytes:
    """Makes a group of Alice and Bob in the directory, and returns its id."""
    group_id = stranger()
    ledger.identity.groups[group_id] = directory_service_pb2.DirectoryGroup(
        group_id=group_id,
        exists=True,
        version=1,
        member_user_ids=[ALICE, ledger.bob],
        roles=[item_pb2.GROUP_ROLE_OWNER, item_pb2.GROUP_ROLE_MEMBER],
        joined_versions=[1, 1],
    )
    return group_id


async def test_a_message_to_a_group_reaches_its_members(ledger: Ledger) -> None:
    group_id = add_group(ledger)
    await ledger.start()
    stream = await ledger.submit()

    await stream.send(stream.say_to_group(1, to=group_id))
    await stream.until(1)
    await ledger.fanout.until(lambda: bool(ledger.fanout.items))

    answer = await ledger.inbox(ledger.bob)
    assert list(answer.items) == ledger.fanout.items
    item = item_pb2.Item.FromString(answer.items[0])
    assert (item.message.group_id, item.message.members_version) == (group_id, 1)
    assert list(ledger.fanout.batches[-1].user_ids) == sorted([ALICE, ledger.bob])


async def test_the_metrics_count_what_belongs_to_groups_as_they_count_the_rest(in_postgres: dict[str, Any]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        ledger = Ledger(stack, **in_postgres)
        group_id = add_group(ledger)
        await ledger.start()
        stream = await ledger.submit()
        await stream.send(stream.say_to_group(1, to=group_id), stream.say(2, to=ledger.bob))
        await stream.until(2)
        await ledger.fanout.until(lambda: len(ledger.fanout.items) == 2)
        for number, key in enumerate((await ledger.inbox(ledger.bob)).keys):
            await stream.acknowledge(key, reader=ledger.bob, first=100 + number)
        await stream.until(4)

        lines = ledger.app.metrics.render().splitlines()

    counted = dict(line.removeprefix("chappe_message_").split(" ") for line in lines if not line.startswith("#"))
    assert (counted["messages_total"], counted["group_messages_total"], counted["acks_total"]) == ("1", "1", "2")
    assert (counted["accept_batch_items_sum"], counted["acknowledge_batch_items_sum"]) == ("2", "2")


async def test_it_is_ready_and_its_metrics_can_be_read(ledger: Ledger) -> None:
    await ledger.start()

    async def is_ready() -> None:
        await ledger.app.health.refresh()
        if ledger.app.health.failures:
            raise UnavailableError("svc_message", str(ledger.app.health.failures))

    await within(10, is_ready)
    assert "messages" in ledger.app.metrics.render()


async def test_a_stop_answers_what_it_has_and_says_goodbye_to_its_peers(ledger: Ledger) -> None:
    await ledger.start()
    stream = await ledger.submit()
    await stream.send(stream.say(1, to=ledger.bob))

    stopping = asyncio.create_task(ledger.running.aclose())
    while not stream.is_drained:
        await stream.read()
    code = await stream.finish()
    await stopping

    assert (code.name, stream.verdicts) == ("OK", {1: 1})
    assert ledger.fanout.markers == 1


async def test_a_clock_that_is_wrong_from_the_start_mints_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(*_: object) -> None:
        """Lets the first turn of the comparing take its time."""

    monkeypatch.setattr("svc_message.app.compare_clocks", not_yet)
    await ledger.start(Seams(WrongClock(), SystemRandomness()))
    stream = await ledger.submit()

    await stream.send(stream.say(1, to=ledger.bob))
    await stream.until(1)

    assert stream.frames[1].send_nack.is_retryable
    assert "s off the store's" in stream.frames[1].send_nack.detail


async def test_a_clock_that_is_a_second_off_is_named_in_health_with_its_fix_until_it_is_right(ledger: Ledger) -> None:
    clock = SetClock()
    await ledger.start(Seams(clock, SystemRandomness()))
    health = ledger.app.health

    clock.ahead_ms = 1_000
    await health.refresh()
    wrong = health.failures.get("clock", "")
    clock.ahead_ms = 0
    await health.refresh()

    assert re.match(r"the clock is \+[01]\.\d{3} s off the store's; .*time servers \(chronyc tracking\)", wrong)
    assert "clock" not in health.failures


async def test_a_step_that_made_the_clock_right_is_no_failure(ledger: Ledger) -> None:
    clock = SetClock()
    clock.ahead_ms = -400
    await ledger.start(Seams(clock, SystemRandomness()))

    clock.ahead_ms = 0
    await ledger.app.health.refresh()

    assert "clock" not in ledger.app.health.failures


async def test_a_schema_that_is_missing_names_the_command(ledger_engine: EmbeddedPostgres) -> None:
    found = await databases(ledger_engine.dsn, ["svc_message_fresh"])
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(SchemaOutdatedError, match="python -m svc_message"):
            await Ledger(stack, store_dsn=Secret(found["svc_message_fresh"])).start()


def new_database(engine: EmbeddedPostgres, name: str) -> str:
    """Returns where an empty database is."""
    return asyncio.run(databases(engine.dsn, [name]))[name]


def configure(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    """Sets what commands read."""
    monkeypatch.setenv("CHAPPE_MESSAGE_STORE_DSN", dsn)
    monkeypatch.setenv("CHAPPE_MESSAGE_IDENTITY_TARGET", "localhost:1")
    monkeypatch.setenv("CHAPPE_MESSAGE_FANOUT_TARGET", "localhost:1")


def test_the_schema_is_brought_up_to_date_by_a_command(
    ledger_engine: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, new_database(ledger_engine, "svc_message_migrated"))

    assert [main(["migrate"]), main(["migrate"])] == [0, 0]

    assert capsys.readouterr().out.count("applied") == len(list(SCHEMA.glob("*.sql")))
    monkeypatch.setenv("CHAPPE_MESSAGE_STORE_DSN", "postgresql://127.0.0.1:1/none")
    assert main(["migrate"]) == 1
    assert "svc_message migrate: " in capsys.readouterr().err


def test_what_was_parked_is_replayed_by_a_command(
    ledger_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, ledger_dsn)

    assert main(["replay-parked"]) == 0

    assert capsys.readouterr().out.startswith("replayed ")


def test_a_command_says_whether_the_store_is_fit(
    ledger_engine: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, new_database(ledger_engine, "svc_message_checked"))

    assert [main(["check"]), main(["migrate"]), main(["check"])] == [1, 0, 0]

    told = capsys.readouterr()
    assert "svc_message check: " in told.err
    assert "run: python -m svc_message migrate" in told.err
    assert f"its schema is at {max(SCHEMA.glob('*.sql')).name}" in told.out


def test_a_command_says_that_the_clock_is_off(
    ledger_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, ledger_dsn)
    monkeypatch.setattr("svc_message.__main__.SystemClock", WrongClock)

    assert main(["check"]) == 1

    told = capsys.readouterr().err
    assert "svc_message check: the clock is -3" in told
    assert "chronyc tracking" in told


def test_an_epoch_is_begun_by_a_command(
    ledger_engine: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, new_database(ledger_engine, "svc_message_restored"))

    assert [main(["raise-epoch"]), main(["migrate"]), main(["raise-epoch"])] == [1, 0, 0]

    told = capsys.readouterr()
    assert "run: python -m svc_message migrate" in told.err
    assert "the epoch is " in told.out


@pytest.fixture
def configured_for_cassandra(in_cassandra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets what commands read."""
    settings = in_cassandra["cassandra"]
    monkeypatch.setenv("CHAPPE_MESSAGE_LEDGER", "cassandra")
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_HOSTS", ",".join(settings.cassandra_hosts))
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_KEYSPACE", settings.cassandra_keyspace)
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_REPLICAS", "1")
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_MAY_LOSE", "true")
    monkeypatch.setenv("CHAPPE_MESSAGE_IDENTITY_TARGET", "localhost:1")
    monkeypatch.setenv("CHAPPE_MESSAGE_FANOUT_TARGET", "localhost:1")


@pytest.mark.parametrize(("command", "told"), [("replay-parked", "replayed "), ("retain", "removed 0 rows")])
@pytest.mark.usefixtures("configured_for_cassandra")
def test_commands_work_on_cassandra_too(capsys: pytest.CaptureFixture[str], command: str, told: str) -> None:
    assert main([command]) == 0

    assert capsys.readouterr().out.startswith(told)


@pytest.mark.usefixtures("configured_for_cassandra")
def test_a_command_says_whether_a_cassandra_is_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Cassandra 5.0")
    assert told.endswith(f"keyspace ledger at {max(CASSANDRA_SCHEMA.glob('*.cql')).name}, commit log periodic\n")

    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_MAY_LOSE", "false")
    assert main(["check"]) == 1
    assert "svc_message check: 127." in capsys.readouterr().err


@pytest.mark.usefixtures("configured_for_cassandra")
def test_an_epoch_is_begun_by_a_command_on_cassandra_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of its own: an epoch is one for the whole keyspace.
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_KEYSPACE", "ledger_restored")
    before_s = int(time.time())

    assert [main(["raise-epoch"]), main(["migrate"]), main(["raise-epoch"]), main(["raise-epoch"])] == [1, 0, 0, 0]

    told = capsys.readouterr()
    assert "has no keyspace ledger_restored" in told.err
    epochs = [int(line.split()[3].rstrip(";")) for line in told.out.splitlines() if line.startswith("the epoch is ")]
    assert before_s - 1 <= epochs[0] < epochs[1]


def test_a_missing_setting_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CHAPPE_MESSAGE_STORE_DSN", raising=False)
    monkeypatch.setenv("CHAPPE_MESSAGE_IDENTITY_TARGET", "localhost:1")
    monkeypatch.setenv("CHAPPE_MESSAGE_FANOUT_TARGET", "localhost:1")

    assert main(["migrate"]) == 2

    assert "STORE_DSN" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        load(Config, "message", {})
