"""What the ledger refuses of a Cassandra, each with what to do about it, on a real one wherever that can be had."""

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from chappe.runtime.app import App, StartError
from chappe.runtime.cassandra import Address, CassandraSession, open_session
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ConfigError, Secret, load
from chappe.runtime.engines.cassandra import (
    EmbeddedCassandra,
    EmbeddedCassandraCluster,
)
from chappe.runtime.errors import UnavailableError
from chappe.runtime.migrations import SchemaOutdatedError
from chappe.runtime.migrations_cassandra import migrate
from svc_message.__main__ import main
from svc_message.adapters.cassandra_checks import (
    Node,
    check_batches,
    check_clock,
    check_cluster,
    check_commit_log,
    nodes_of,
    replicas_in,
    replicas_of,
    size_of,
)
from svc_message.adapters.cassandra_keyspace import migrate_ledger, open_ledger
from svc_message.adapters.ledger_cassandra import SCHEMA
from svc_message.app import build
from svc_message.config import CassandraSettings, Config, Ledger

SIMPLE = "CREATE KEYSPACE {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {}}}"

THRICE = "CREATE KEYSPACE {} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}}"
CHECKS = "svc_message.adapters.cassandra_checks"
NO_QUORUM = r"only 1 of the 2 replicas that must answer are alive in data centre datacenter1; start .*nodetool status"


@pytest.fixture
def session(cassandra: EmbeddedCassandra, ledger_keyspace: str) -> Iterator[CassandraSession]:
    """Returns a session in the keyspace of the ledger, on one node that may lose what it acknowledged."""
    with open_session(Address((cassandra.address,)), keyspace=ledger_keyspace) as session:
        yield session


@pytest.fixture
def settings(cassandra: EmbeddedCassandra, ledger_keyspace: str) -> Callable[..., CassandraSettings]:
    """Returns a function that makes settings for that keyspace, but for what is given."""

    def make(**others: object) -> CassandraSettings:
        ours: dict[str, object] = {
            "cassandra_hosts": (cassandra.address,),
            "cassandra_keyspace": ledger_keyspace,
            "cassandra_may_lose": True,
        }
        return CassandraSettings(**(ours | others))  # type: ignore[arg-type] # as the test names them

    return make


async def check_ledger(settings: CassandraSettings) -> None:
    session = await open_ledger(settings)
    await asyncio.to_thread(session.close)


async def until_fit(settings: CassandraSettings) -> None:
    """Returns once the ledger is taken: nodes remember for a moment what a role may."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await check_ledger(settings)
            except StartError:
                await asyncio.sleep(0.1)


async def test_a_development_node_is_taken_when_that_is_allowed_and_refused_otherwise(
    settings: Callable[..., CassandraSettings],
) -> None:
    await check_ledger(settings())

    with pytest.raises(StartError, match=r"a killed node would lose acknowledged messages.*commitlog_sync: group"):
        await check_ledger(settings(cassandra_may_lose=False))


async def test_three_nodes_that_write_before_they_answer_are_fit(cassandra_cluster: EmbeddedCassandraCluster) -> None:
    address = Address(tuple(cassandra_cluster.addresses[:1]))
    await migrate(address, "ledger", SCHEMA, replicas=3)

    with open_session(address, keyspace="ledger") as session:
        await check_cluster(session)
        assert {node.address for node in nodes_of(session)} == set(cassandra_cluster.addresses)
        assert replicas_of(session) == 3


async def test_a_cluster_that_does_not_answer_is_named(settings: Callable[..., CassandraSettings]) -> None:
    with pytest.raises(UnavailableError, match=r"no node of data centre datacenter1 answers at 127\.0\.0\.1:1 "):
        await check_ledger(settings(cassandra_hosts=("127.0.0.1",), cassandra_port=1))


async def test_a_data_centre_that_is_not_there_is_named(settings: Callable[..., CassandraSettings]) -> None:
    with pytest.raises(UnavailableError, match="no node of data centre elsewhere answers"):
        await check_ledger(settings(cassandra_datacenter="elsewhere"))


async def test_a_keyspace_that_is_not_there_is_named_with_those_that_are(
    settings: Callable[..., CassandraSettings],
) -> None:
    with pytest.raises(StartError, match=r"has no keyspace wrong, it has .*ledger.* make it by migrating"):
        await check_ledger(settings(cassandra_keyspace="wrong"))


async def test_a_keyspace_of_somebody_else_or_of_an_older_program_names_the_command(
    settings: Callable[..., CassandraSettings], session: CassandraSession
) -> None:
    name = f"other_{secrets.token_hex(4)}"
    session.driver.execute(SIMPLE.format(name, 1))

    with pytest.raises(SchemaOutdatedError, match=r"lacks 0001_ledger\.cql.*run: python -m svc_message migrate"):
        await check_ledger(settings(cassandra_keyspace=name))


@pytest.mark.parametrize("has_schema", [True, False], ids=["migrated", "new"])
async def test_replicas_without_nodes_are_told_before_a_schema_that_cannot_be_read(
    settings: Callable[..., CassandraSettings], session: CassandraSession, *, has_schema: bool
) -> None:
    name = f"thrice_{secrets.token_hex(4)}"
    session.driver.execute(THRICE.format(name))
    if has_schema:
        session.driver.execute(f"CREATE TABLE {name}.schema_migrations (name text PRIMARY KEY, checksum blob)")
        with pytest.raises(StartError, match=NO_QUORUM):
            await check_ledger(settings(cassandra_keyspace=name))

    # Without a table there is nothing to ask; the command that makes it says the same.
    with pytest.raises(UnavailableError, match=f"stopped: {NO_QUORUM}.*; then run it again"):
        await migrate_ledger(settings(cassandra_keyspace=name))


@pytest.mark.parametrize("off_s", [-1.5, 1.5])
def test_a_clock_that_is_off_is_told_by_how_much(session: CassandraSession, off_s: float) -> None:
    check_clock(session, time.time)

    with pytest.raises(StartError, match=r"1\.[45] s off the one of Cassandra.*chronyc tracking"):
        check_clock(session, lambda: time.time() + off_s)


def test_nodes_that_would_refuse_a_flush_are_named_with_the_setting(session: CassandraSession) -> None:
    check_batches(nodes_of(session))
    check_batches([Node("10.0.0.1", {"batch_size_fail_threshold": "50KiB"})])

    with pytest.raises(StartError, match=r"10\.0\.0\.2 refuses batches above 39KiB.*batch_size_fail_threshold: 128KiB"):
        check_batches(
            [
                Node("10.0.0.1", {"batch_size_fail_threshold": "50KiB"}),
                Node("10.0.0.2", {"batch_size_fail_threshold": "39KiB"}),
            ]
        )


async def test_thresholds_of_a_flush_are_enough(
    settings: Callable[..., CassandraSettings], caplog: pytest.LogCaptureFixture
) -> None:
    await check_ledger(settings())

    assert "threshold" not in caplog.text


def test_replicas_are_counted_in_the_data_centre_that_answers_alone(
    cassandra: EmbeddedCassandra, session: CassandraSession
) -> None:
    assert replicas_of(session) == 1
    for replication in ("'NetworkTopologyStrategy', 'datacenter1': 3", "'SimpleStrategy', 'replication_factor': 3"):
        name = f"counted_{secrets.token_hex(4)}"
        session.driver.execute(f"CREATE KEYSPACE {name} WITH replication = {{'class': {replication}}}")
        with open_session(Address((cassandra.address,)), keyspace=name) as counted:
            assert replicas_of(counted) == 3

    # No node takes a keyspace with replicas in a data centre that is not there.
    two = {"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "datacenter1": "1", "elsewhere": "3/1"}
    assert [replicas_in(name, two) for name in ("datacenter1", "elsewhere", "nowhere")] == [1, 3, 0]


def test_sizes_are_read_as_nodes_tell_them() -> None:
    assert [size_of(told) for told in ("50KiB", "1 MiB", "4096", "7B", "null", "")] == [
        51_200,
        1_048_576,
        4096,
        7,
        None,
        None,
    ]


def test_several_replicas_make_a_late_commit_log_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_commit_log([Node("10.0.0.1", {"commitlog_sync": "batch"})], 1, may_lose=False)
    assert not caplog.records

    check_commit_log([Node("10.0.0.1", {"commitlog_sync": "periodic"})], 3, may_lose=False)

    assert "killed at the same moment" in caplog.text


@pytest.fixture
def administrator(guarded_cassandra: EmbeddedCassandra) -> Address:
    """Returns how the one who may do everything gets in."""
    login = guarded_cassandra.login
    assert login is not None
    return Address((guarded_cassandra.address,), user=login.role, password=login.password)


async def test_a_role_of_its_own_is_enough_once_it_may_see_the_settings(
    guarded_cassandra: EmbeddedCassandra, administrator: Address
) -> None:
    await migrate(administrator, "ledger", SCHEMA, replicas=1)
    settings = CassandraSettings(
        cassandra_hosts=(guarded_cassandra.address,),
        cassandra_keyspace="ledger",
        cassandra_user="reader",
        cassandra_password=Secret("secret"),
        cassandra_may_lose=False,
    )
    with open_session(administrator) as session:
        session.driver.execute("CREATE ROLE reader WITH LOGIN = true AND PASSWORD = 'secret'")
        session.driver.execute("GRANT SELECT ON KEYSPACE ledger TO reader")
        with pytest.raises(StartError, match=r"GRANT SELECT ON TABLE system_views\.settings"):
            await check_ledger(settings)
        session.driver.execute("GRANT SELECT ON TABLE system_views.settings TO reader")

        await until_fit(settings)

    with pytest.raises(UnavailableError, match="whether hosts, port, data centre, user"):
        await check_ledger(CassandraSettings(cassandra_hosts=(guarded_cassandra.address,), cassandra_user="nobody"))


async def test_a_role_that_may_make_keyspaces_and_see_the_settings_migrates_and_starts(
    guarded_cassandra: EmbeddedCassandra, administrator: Address, caplog: pytest.LogCaptureFixture
) -> None:
    settings = CassandraSettings(
        cassandra_hosts=(guarded_cassandra.address,),
        cassandra_replicas=1,
        cassandra_user="svc_message",
        cassandra_password=Secret("secret"),
    )
    with open_session(administrator) as session:
        # As k8s/README.md has them.
        session.driver.execute("CREATE ROLE svc_message WITH LOGIN = true AND PASSWORD = 'secret'")
        session.driver.execute("GRANT CREATE ON ALL KEYSPACES TO svc_message")
        session.driver.execute("GRANT SELECT ON TABLE system_views.settings TO svc_message")
        await migrate_ledger(settings)
        session.driver.execute("REVOKE CREATE ON ALL KEYSPACES FROM svc_message")

    await check_ledger(settings)

    with pytest.raises(UnavailableError, match="has no CREATE permission"):
        await migrate_ledger(dataclasses.replace(settings, cassandra_keyspace="another"))
    warned = "\n".join(record.getMessage() for record in caplog.records if record.name == CHECKS)
    assert f"40 KiB, at {guarded_cassandra.address} (5KiB): " in warned
    assert "set batch_size_warn_threshold: 64KiB in cassandra.yaml" in warned
    assert f"56 partitions, at {guarded_cassandra.address} (10): " in warned
    assert "set unlogged_batch_across_partitions_warn_threshold: 200 in cassandra.yaml" in warned


def test_a_command_makes_the_keyspace_and_brings_it_up_to_date(
    cassandra: EmbeddedCassandra, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "LEDGER": "cassandra",
        "CASSANDRA_HOSTS": cassandra.address,
        "CASSANDRA_KEYSPACE": f"made_{secrets.token_hex(4)}",
        "CASSANDRA_REPLICAS": "1",
        "IDENTITY_TARGET": "localhost:1",
        "FANOUT_TARGET": "localhost:1",
    }.items():
        monkeypatch.setenv(f"CHAPPE_MESSAGE_{name}", value)

    assert [main(["migrate"]), main(["migrate"])] == [0, 0]

    assert capsys.readouterr().out.count("applied") == len(list(SCHEMA.glob("*.cql")))
    monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_PORT", "1")
    assert main(["migrate"]) == 1
    assert "svc_message migrate: Cassandra: no node" in capsys.readouterr().err


async def test_a_ledger_on_cassandra_is_checked_before_it_starts(settings: Callable[..., CassandraSettings]) -> None:
    config = Config(
        ledger=Ledger.CASSANDRA,
        cassandra=settings(cassandra_may_lose=False),
        identity_target="localhost:1",
        fanout_target="localhost:1",
    )

    with pytest.raises(StartError, match="a killed node would lose acknowledged messages"):
        await build(config, App("message", config.server, seams=system_seams()))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({}, "STORE_DSN is not set: the ledger is in PostgreSQL unless LEDGER is cassandra", id="postgres"),
        pytest.param({"CHAPPE_MESSAGE_LEDGER": "cassandra"}, "CASSANDRA_HOSTS is not set", id="cassandra"),
        pytest.param({"CHAPPE_MESSAGE_LEDGER": "mongo"}, "choose one of postgres, cassandra", id="another"),
    ],
)
def test_what_a_ledger_needs_is_told_when_it_is_missing(given: dict[str, str], told: str) -> None:
    targets = {"CHAPPE_MESSAGE_IDENTITY_TARGET": "localhost:1", "CHAPPE_MESSAGE_FANOUT_TARGET": "localhost:1"}

    with pytest.raises(ConfigError, match=told):
        load(Config, "message", targets | given)
