"""Every container's environment is what its service's loader takes, with the secrets that the manifests mount."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from chappe.runtime import config
from chappe.runtime.channels import grpc_target
from chappe.runtime.pki import TRUST_DOMAIN, spiffe_id
from k8s import dev_secrets
from svc_message.adapters.cassandra_keyspace import address_of
from svc_message.config import Ledger
from tests.k8s.manifests import Container, Manifests, render
from tests.k8s.settings import load, mounted, service_of

PRE_STOP_S = 2
MARGIN_S = 10


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Returns the development Secrets, by name, and what a ledger in Cassandra needs beside them."""
    made = dev_secrets.make(tmp_path_factory.mktemp("secrets"))
    made["svc-message"] |= {"cassandra-password": "secret", "cassandra-ca.crt": made["svc-message-tls"]["ca.crt"]}
    return made


def test_every_service_and_job_takes_its_settings(
    manifests: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    for container in ours(manifests):
        loaded = load(container, secrets, tmp_path)

        if container.workload["kind"] == "Deployment":
            assert loaded.server.tls_key_file is not None, container.place


def test_all_that_is_of_the_ledger_is_told_of_cassandra(
    in_cassandra: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    told = {one.place: load(one, secrets, tmp_path) for one in ours(in_cassandra) if service_of(one) == "message"}

    assert told.keys() == {
        "svc-message/server",
        "svc-message-migrate/migrate",
        "svc-message-retain/retain",
        "svc-message-replay-parked/replay-parked",
    }
    for loaded in told.values():
        assert (loaded.ledger, bool(loaded.store_dsn)) == (Ledger.CASSANDRA, False)
        address = address_of(loaded.cassandra)
        assert (address.hosts, address.port, address.datacenter) == (("cassandra.cassandra",), 9042, "datacenter1")
        assert (address.user, address.password.reveal()) == ("svc_message", "secret")
        assert address.ca_file is not None
        x509.load_pem_x509_certificate(address.ca_file.read_bytes())
        assert (loaded.cassandra.cassandra_replicas, loaded.cassandra.cassandra_may_lose) == (3, False)


def test_a_wrong_or_a_missing_variable_is_found(
    dev: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    container = next(one for one in ours(dev) if one.place == "svc-message/server")
    renamed = [
        {**variable, "name": variable["name"].replace("FANOUT_TARGET", "FANOUT_TARGTE")}
        for variable in container.spec["env"]
    ]

    with pytest.raises(config.ConfigError, match="did you mean CHAPPE_MESSAGE_FANOUT_TARGET"):
        load(container._replace(spec={**container.spec, "env": renamed}), secrets, tmp_path)


def test_no_container_is_given_settings_of_another_service(manifests: Manifests) -> None:
    for container in ours(manifests):
        prefix = f"CHAPPE_{service_of(container).upper()}_"
        strange = {name for name in container.settings if name.startswith("CHAPPE_") and not name.startswith(prefix)}

        assert strange == set(), container.place


def test_what_a_container_reads_is_mounted(manifests: Manifests, secrets: dict[str, dict[str, str]]) -> None:
    for container in manifests.containers():
        for name, value in container.settings.items():
            if name.endswith("_FILE"):
                assert mounted(container, Path(value), secrets) is not None, f"{container.place} {name}"


def test_secrets_hold_all_that_the_overlay_mounts_and_nothing_else(
    dev: Manifests, secrets: dict[str, dict[str, str]]
) -> None:
    mounts = {
        volume["secret"]["secretName"]
        for container in dev.containers()
        for volume in container.pod["volumes"]
        if "secret" in volume
    }

    assert mounts == secrets.keys()


def test_the_command_keeps_passwords_and_renews_certificates(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "k8s/dev_secrets.py", str(tmp_path / "kept")]

    first, second = (
        {secret["metadata"]["name"]: secret["stringData"] for secret in yaml.safe_load_all(run(command, root))}
        for _ in range(2)
    )

    assert first["svc-message"] == second["svc-message"]
    assert first["svc-edge-tls"]["ca.crt"] == second["svc-edge-tls"]["ca.crt"]
    assert first["svc-edge-tls"]["tls.crt"] != second["svc-edge-tls"]["tls.crt"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "kept").iterdir())


def test_certificates_of_development_carry_the_identity_and_the_name_that_peers_ask_for(
    secrets: dict[str, dict[str, str]],
) -> None:
    for service in ("svc-edge", "svc-fanout", "svc-identity", "svc-message", "svc-presence"):
        certificate = x509.load_pem_x509_certificate(secrets[f"{service}-tls"]["tls.crt"].encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id(TRUST_DOMAIN, service)]
        assert names.get_values_for_type(x509.DNSName) == [service]


def test_the_certificate_driver_is_asked_for_the_same_names(root: Path) -> None:
    for container in ours(render(root / "k8s" / "base")):
        for volume in container.pod["volumes"]:
            if volume["name"] == "tls":
                account = container.pod["serviceAccountName"]
                asked = {
                    name.removeprefix("csi.cert-manager.io/"): value.replace("${POD_NAMESPACE}", "chappe").replace(
                        "${SERVICE_ACCOUNT_NAME}", account
                    )
                    for name, value in volume["csi"]["volumeAttributes"].items()
                }
                assert asked["uri-sans"] == spiffe_id(TRUST_DOMAIN, account)
                assert asked["dns-names"] == account == container.workload["metadata"]["name"]


def test_a_pod_has_the_time_to_drain(manifests: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    for container in ours(manifests):
        if container.workload["kind"] == "Deployment":
            assert container.spec["lifecycle"]["preStop"] == {"sleep": {"seconds": PRE_STOP_S}}
            drain_s = load(container, secrets, tmp_path).server.drain_s
            assert container.pod["terminationGracePeriodSeconds"] >= PRE_STOP_S + drain_s + MARGIN_S


def test_an_edge_is_dialled_by_the_address_of_its_pod(manifests: Manifests) -> None:
    for container in manifests.containers():
        if container.place == "svc-edge/server":
            assert container.settings["CHAPPE_EDGE_ADVERTISE"] == "10.244.0.7:50051"
            assert container.pod["terminationGracePeriodSeconds"] == 90


def test_every_target_is_a_headless_service_and_its_port(manifests: Manifests) -> None:
    headless = {
        f"dns:///{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        for service in manifests.of("Service")
        if service["spec"].get("clusterIP") == "None"
    }

    for container in ours(manifests):
        for name, value in container.settings.items():
            if name.endswith("_TARGET"):
                assert grpc_target(value) in headless, f"{container.place} {name}"


def test_only_development_speaks_json_and_shows_codes(
    manifests: Manifests, dev: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    is_dev = manifests == dev
    loaded = {one.place: load(one, secrets, tmp_path) for one in ours(manifests)}

    assert loaded["svc-edge/server"].allow_json is is_dev
    assert loaded["svc-identity/server"].development_codes is is_dev
    assert all(one.server.may_reflect is is_dev for place, one in loaded.items() if place.endswith("/server"))


def ours(manifests: Manifests) -> list[Container]:
    return [one for one in manifests.containers() if one.spec["image"].partition(":")[0] == "chappe"]


def run(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
