"""The NetworkPolicies let through what the access options of the contract allow, and nothing else."""

import importlib
import itertools
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import chappe.api
from chappe.api.type.v1 import access_pb2
from chappe.runtime import contract
from k8s import dev_secrets
from tests.k8s.manifests import Manifests, pod_labels
from tests.k8s.policies import Network, Pod

GRPC, HEALTH, METRICS, CLIENTS = 50051, 50052, 9090, 8080
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
DOMAINS = ("edge", "fanout", "identity", "message", "presence")
CALLERS = {
    access_pb2.CALLER_EDGE: "edge",
    access_pb2.CALLER_MESSAGE: "message",
    access_pb2.CALLER_PRESENCE: "presence",
    access_pb2.CALLER_IDENTITY: "identity",
    access_pb2.CALLER_FANOUT: "fanout",
    # Clients call through the bridge of the edge.
    access_pb2.CALLER_CLIENT: "edge",
    access_pb2.CALLER_OPEN: "edge",
    access_pb2.CALLER_INTERNAL: "internal",
}

TOOL = Pod({NAME: "report", COMPONENT: "internal-caller"})
STRANGER = Pod({NAME: "stranger"})
ABROAD = Pod({NAME: "svc-edge", COMPONENT: "service"}, "elsewhere")
PROMETHEUS = Pod({NAME: "prometheus"}, "monitoring")
GATEWAY = Pod({NAME: "gateway"}, "gateways")
CASSANDRA = Pod({NAME: "cassandra"}, "cassandra")
LEDGER = {"svc-message", "svc-message-migrate", "svc-message-retain", "svc-message-replay-parked"}
DNS = Pod({"k8s-app": "kube-dns"}, "kube-system")


@pytest.fixture
def network(manifests: Manifests) -> Network:
    return Network(manifests.of("NetworkPolicy"))


@pytest.fixture
def pods(manifests: Manifests) -> dict[str, Pod]:
    """Returns a pod of every workload, by the workload's name."""
    return {workload["metadata"]["name"]: Pod(pod_labels(workload)) for workload in manifests.workloads}


def test_the_committed_policies_are_those_of_the_contract(root: Path) -> None:
    done = subprocess.run([sys.executable, "k8s/generate.py", "--check"], cwd=root, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


def test_a_service_reaches_another_where_the_contract_lets_it_call(network: Network, pods: dict[str, Pod]) -> None:
    allowed = {
        (source, target)
        for source, target in itertools.product(DOMAINS, DOMAINS)
        if network.allows(pods[f"svc-{source}"], pods[f"svc-{target}"], GRPC)
    }

    expected = {(caller, target) for target, caller in access_table() if caller != "internal"}
    assert allowed == expected


def test_tools_reach_what_is_open_to_internal_callers(network: Network, pods: dict[str, Pod]) -> None:
    allowed = {domain for domain in DOMAINS if network.allows(TOOL, pods[f"svc-{domain}"], GRPC)}

    assert allowed == {target for target, caller in access_table() if caller == "internal"}


def test_no_other_pod_reaches_anything(network: Network, pods: dict[str, Pod]) -> None:
    strangers = [STRANGER, ABROAD, GATEWAY, *(pod for name, pod in pods.items() if name.endswith("-migrate"))]

    for stranger, target in itertools.product(strangers, pods.values()):
        for port in (GRPC, HEALTH, METRICS):
            assert not network.allows(stranger, target, port)


def test_clients_come_in_by_one_door_only(network: Network, pods: dict[str, Pod]) -> None:
    doors = {(name, port) for name, pod in pods.items() for port in all_ports() if network.allows(GATEWAY, pod, port)}

    assert doors == {("svc-edge", CLIENTS)}


def test_metrics_are_read_by_monitoring_alone(network: Network, pods: dict[str, Pod]) -> None:
    read = {(name, port) for name, pod in pods.items() for port in all_ports() if network.allows(PROMETHEUS, pod, port)}

    assert read == {(f"svc-{domain}", METRICS) for domain in DOMAINS} | {("svc-edge", CLIENTS)}


def test_every_pod_may_ask_for_names(network: Network, pods: dict[str, Pod]) -> None:
    for pod in pods.values():
        assert network.allows(pod, DNS, 53, "UDP")
        assert network.allows(pod, DNS, 53)
        assert not network.allows(pod, DNS, 443)
        assert not network.allows(pod, GATEWAY, 443)


def test_stores_are_reached_by_their_owners_alone(dev: Manifests) -> None:
    network = Network(dev.of("NetworkPolicy"))
    pods = {workload["metadata"]["name"]: Pod(pod_labels(workload)) for workload in dev.workloads}

    reached = {
        store: {name for name, pod in pods.items() if network.allows(pod, pods[store], port)}
        for store, port in (("postgres", 5432), ("valkey", 6379))
    }

    directory = {"svc-identity", "svc-identity-migrate"}
    assert reached == {"postgres": directory | LEDGER, "valkey": {"svc-presence"}}


def test_a_cassandra_is_reached_in_its_namespace_by_what_is_of_the_ledger_alone(in_cassandra: Manifests) -> None:
    network = Network(in_cassandra.of("NetworkPolicy"))
    pods = {workload["metadata"]["name"]: Pod(pod_labels(workload)) for workload in in_cassandra.workloads}

    reached = {name for name, pod in pods.items() if network.allows(pod, CASSANDRA, 9042)}

    assert reached == LEDGER
    for name, port in itertools.product(LEDGER, (7000, 7199)):
        assert not network.allows(pods[name], CASSANDRA, port)
        assert not network.allows(pods[name], CASSANDRA._replace(namespace="elsewhere"), 9042)


def test_every_address_in_the_settings_may_be_dialled(dev: Manifests, tmp_path: Path) -> None:
    network = Network(dev.of("NetworkPolicy"))
    secrets = dev_secrets.make(tmp_path)
    pods = {workload["metadata"]["name"]: Pod(pod_labels(workload)) for workload in dev.workloads}

    dialled = set()
    for container in dev.containers():
        source = container.workload["metadata"]["name"]
        service = re.sub("-(migrate|retain|replay-parked)$", "", source)
        for value in (*container.settings.values(), *secrets.get(service, {}).values()):
            for host, port in addresses(value):
                # A job is given the settings of its service and calls nobody.
                if source != service and port == GRPC:
                    continue
                assert network.allows(pods[source], pods[host], port), f"{source} to {value}"
                dialled.add(host)
    assert dialled == {*(f"svc-{domain}" for domain in DOMAINS), "postgres", "valkey"}


def access_table() -> Iterator[tuple[str, str]]:
    """Yields (service, caller) by the way that the processes themselves read the contract."""
    for module in pkgutil.walk_packages(chappe.api.__path__, "chappe.api."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    for caller in contract.read_access(method).callers:
                        yield module.name.split(".")[2], CALLERS[caller]


def addresses(value: str) -> Iterator[tuple[str, int]]:
    """Yields the host and port of a value that is a target or an address with a login."""
    if found := re.fullmatch(r"dns:///([a-z-]+):(\d+)", value):
        yield found[1], int(found[2])
    elif "@" in value and (parts := urlsplit(value)).hostname and parts.port:
        yield parts.hostname, parts.port


def all_ports() -> tuple[int, ...]:
    return GRPC, HEALTH, METRICS, CLIENTS, 5432, 6379
