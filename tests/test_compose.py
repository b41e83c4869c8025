"""compose.yaml says what programs take, and nothing that is not there; no Docker is needed to see that."""

import importlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chappe.runtime import config
from chappe.runtime.cassandra import Address, open_session
from chappe.runtime.channels import grpc_target
from chappe.runtime.engines.cassandra import CassandraInstall, CassandraOptions, CommitLog, EmbeddedCassandra
from chappe.runtime.engines.cassandra.node import Installed
from svc_message.adapters.cassandra_checks import check_batches, check_commit_log, nodes_of

MOUNT = "/run/chappe"


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def files(root: Path, tmp_path_factory: pytest.TempPathFactory, compose: dict[str, Any]) -> Path:
    """Returns what the container `secrets` writes, by its own command."""
    out = tmp_path_factory.mktemp("files")
    _, *arguments = compose["services"]["secrets"]["command"]
    command = [sys.executable, *(argument.replace(MOUNT, str(out)) for argument in arguments)]
    subprocess.run(command, cwd=root, check=True)
    return out


def programs(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what runs a service or one of its commands."""
    services: dict[str, dict[str, Any]] = compose["services"]
    return {name: one for name, one in services.items() if "svc_" in " ".join(one.get("command", []))}


def test_every_program_takes_its_settings_and_finds_its_files(compose: dict[str, Any], files: Path) -> None:
    assert len(programs(compose)) == 7
    for one in programs(compose).values():
        service = one["command"][2].removeprefix("svc_")
        environ = {name: value.replace(MOUNT, str(files)) for name, value in one["environment"].items()}

        loaded = config.load(importlib.import_module(f"svc_{service}.config").Config, service, environ)

        assert loaded.server.tls_key_file.is_file()
        assert set(environ) <= {name for name in environ if name.startswith(f"CHAPPE_{service.upper()}_")}


def test_every_target_is_a_service_and_the_port_at_which_it_listens(compose: dict[str, Any]) -> None:
    for one in programs(compose).values():
        for name, value in one["environment"].items():
            if name.endswith("_TARGET"):
                host, _, port = grpc_target(value).removeprefix("dns:///").partition(":")
                listen = next(
                    address
                    for setting, address in compose["services"][host]["environment"].items()
                    if setting.endswith(f"{host.removeprefix('svc-').upper()}_LISTEN")
                )
                assert listen == f"0.0.0.0:{port}"


def test_every_store_is_the_host_that_the_secrets_name(compose: dict[str, Any], files: Path) -> None:
    for name in ("svc-identity/store-dsn", "svc-message/store-dsn", "svc-presence/redis-url"):
        assert (files / name).read_text().rpartition("@")[2].partition(":")[0] in compose["services"]


def test_everything_that_is_named_is_there(compose: dict[str, Any]) -> None:
    for one in compose["services"].values():
        assert set(one.get("depends_on", {})) <= set(compose["services"])
        assert {config["source"] for config in one.get("configs", [])} <= set(compose["configs"])
        for volume in one.get("volumes", []):
            name = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            assert name in compose["volumes"]


def test_what_is_waited_for_says_when_it_is_well(compose: dict[str, Any]) -> None:
    for one in compose["services"].values():
        for name, wait in one.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][name]


def test_the_image_holds_what_the_programs_run(root: Path, compose: dict[str, Any]) -> None:
    lines = compose["services"]["secrets"]["build"]["dockerfile_inline"].splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY")}

    assert all((root / name).exists() for name in copied)
    assert {one["command"][2] for one in programs(compose).values()} | {"chappe"} <= copied
    assert compose["services"]["secrets"]["command"][1] in copied


def test_the_roles_of_postgres_are_made_as_on_kubernetes(root: Path, compose: dict[str, Any]) -> None:
    manifests = yaml.safe_load_all((root / "k8s" / "components" / "stores" / "postgres.yaml").read_text())
    script = next(one["data"]["roles.sh"] for one in manifests if one["kind"] == "ConfigMap")

    assert compose["configs"]["postgres-roles"]["content"].replace("$$", "$") == script


def test_nothing_listens_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = itertools.chain.from_iterable(one.get("ports", []) for one in compose["services"].values())

    assert all(port.startswith("127.0.0.1:") for port in ports)


async def test_its_cassandra_is_fit_for_the_ledger(
    compose: dict[str, Any], cassandra_install: CassandraInstall, tmp_path: Path
) -> None:
    # Begins as the image does, whose commit log is periodic, and is told the rest as the container is.
    told = compose["services"]["cassandra"]["environment"]["JVM_EXTRA_OPTS"].split()

    async def installed() -> Installed:
        found = await cassandra_install()
        return found._replace(archive=(*found.archive, *told))

    options = CassandraOptions(commit_log=CommitLog.PERIODIC, asks_password=False)
    async with EmbeddedCassandra(tmp_path, installed, options=options) as node:
        with open_session(Address((node.address,))) as session:
            nodes = nodes_of(session)

    assert nodes[0].settings["commitlog_sync"] == "group"
    assert nodes[0].settings["batch_size_fail_threshold"] == "128KiB"
    check_batches(nodes)
    check_commit_log(nodes, 1, may_lose=False)
