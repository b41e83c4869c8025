# noqa: INP001 - a script beside the manifests, not a package
"""Writes the NetworkPolicies from the access options of the contracts.

Run `python k8s/generate.py` after a change of who may call what. `--check` writes nothing, names every file that is
not what the contracts say, and exits with 1.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

if __package__ is None:  # run as a script, where the checkout is not yet on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from protos import contract

FOLDER = Path(__file__).resolve().parent
GRPC_PORT = 50051
METRICS_PORT = 9090
CLIENT_PORT = 8080
DNS_PORT = 53
INTERNAL = "internal"
"""The caller that the contract calls internal: any pod that carries the label of one."""

_HEADER = "# Generated from protos/ by k8s/generate.py; change the access options or the generator, not this file.\n"
# A client reaches a service through the bridge of the edge, never by itself.
_BRIDGED = {"client": "edge", "open": "edge"}
_NAME, _COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"

Manifest = dict[str, Any]
Peer = dict[str, Any]


class Store(NamedTuple):
    """A store that lives in the cluster, and who may reach it."""

    name: str
    port: int
    owners: tuple[str, ...]
    """Names of pods: services, and what runs beside them."""


LEDGER_PODS = ("svc-message", "svc-message-migrate", "svc-message-retain", "svc-message-replay-parked")
STORES = (
    Store("postgres", 5432, ("svc-identity", "svc-identity-migrate", *LEDGER_PODS)),
    Store("valkey", 6379, ("svc-presence",)),
)
CASSANDRA = Store("cassandra", 9042, LEDGER_PODS)
"""Lives in a namespace of its own name, whose rules are not ours."""


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Writes the NetworkPolicies from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    is_check = parser.parse_args().check
    stale = [path for path, text in render().items() if not path.exists() or path.read_text() != text]
    if is_check:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(FOLDER.parent)}: not what the contracts say; run k8s/generate.py\n")
        return 1 if stale else 0
    for path, text in render().items():
        path.write_text(text)
    return 0


def render() -> dict[Path, str]:
    """Returns the text of every generated file."""
    services = callers_by_service(contract.load())
    return {
        FOLDER / "base" / "network-policies.yaml": _text(service_policies(services)),
        FOLDER / "components" / "stores" / "network-policies.yaml": _text(store_policies()),
        FOLDER / "components" / "ledger-cassandra" / "network-policies.yaml": _text(cassandra_policies()),
    }


def callers_by_service(api: contract.Contract) -> dict[str, frozenset[str]]:
    """Returns for each domain, like "message", the domains that may call it, and "internal" where the contract says so.

    Raises:
        ContractError: An RPC does not say who may call it.
    """
    found: dict[str, set[str]] = {}
    for service in api.services:
        callers = found.setdefault(service.name.removeprefix(contract.PACKAGE).split(".")[0], set())
        for rpc in service.rpcs:
            if rpc.access is None:
                raise contract.ContractError(f"{service.name}.{rpc.name} does not say who may call it")
            callers.update(_BRIDGED.get(caller, caller) for caller in rpc.access.callers)
    return {name: frozenset(callers) for name, callers in sorted(found.items())}


def service_policies(services: Mapping[str, frozenset[str]]) -> Iterator[Manifest]:
    """Yields the policies of the namespace and of each service."""
    yield _policy("default-deny", {}, ingress=[], egress=[])
    dns = [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]
    kube_dns = {"namespaceSelector": _namespace("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    yield _policy("dns", {}, egress=[{"to": [kube_dns], "ports": dns}])
    yield _policy(
        "metrics",
        {_COMPONENT: "service"},
        ingress=[{"from": [{"namespaceSelector": _namespace("monitoring")}], "ports": _tcp(METRICS_PORT)}],
    )
    yield _policy("svc-edge-clients", {_NAME: "svc-edge"}, ingress=[{"ports": _tcp(CLIENT_PORT)}])
    for name, callers in services.items():
        called = [other for other, others in services.items() if name in others]
        yield _policy(
            f"svc-{name}",
            {_NAME: f"svc-{name}"},
            ingress=[{"from": _pods(callers), "ports": _tcp(GRPC_PORT)}],
            egress=[{"to": _pods(called), "ports": _tcp(GRPC_PORT)}] if called else None,
        )
    open_to_internal = [name for name, callers in services.items() if INTERNAL in callers]
    yield _policy(
        "internal-callers",
        {_COMPONENT: "internal-caller"},
        egress=[{"to": _pods(open_to_internal), "ports": _tcp(GRPC_PORT)}],
    )


def store_policies() -> Iterator[Manifest]:
    """Yields the policies of the stores: each is reached by its owners alone."""
    for store in STORES:
        owners = [_pod(owner) for owner in store.owners]
        yield _policy(store.name, {_NAME: store.name}, ingress=[{"from": owners, "ports": _tcp(store.port)}])
        for owner in store.owners:
            yield _policy(
                f"{owner}-to-{store.name}",
                {_NAME: owner},
                egress=[{"to": [_pod(store.name)], "ports": _tcp(store.port)}],
            )


def cassandra_policies() -> Iterator[Manifest]:
    """Yields the policies that let the ledger out to a cluster in another namespace."""
    nodes = {"namespaceSelector": _namespace(CASSANDRA.name), **_pod(CASSANDRA.name)}
    for owner in CASSANDRA.owners:
        yield _policy(
            f"{owner}-to-{CASSANDRA.name}", {_NAME: owner}, egress=[{"to": [nodes], "ports": _tcp(CASSANDRA.port)}]
        )


def _policy(name: str, pods: Mapping[str, str], **directions: list[Manifest] | None) -> Manifest:
    """Makes a policy; a direction that is None is left to the other policies, an empty one denies everything."""
    given = {direction: rules for direction, rules in directions.items() if rules is not None}
    selector = {"matchLabels": dict(pods)} if pods else {}
    rules = {direction: listed for direction, listed in given.items() if listed}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": selector, "policyTypes": [direction.title() for direction in given], **rules},
    }


def _pods(domains: Iterable[str]) -> list[Peer]:
    internal = {"podSelector": {"matchLabels": {_COMPONENT: "internal-caller"}}}
    return [internal if domain == INTERNAL else _pod(f"svc-{domain}") for domain in sorted(domains)]


def _pod(name: str) -> Peer:
    return {"podSelector": {"matchLabels": {_NAME: name}}}


def _namespace(name: str) -> Manifest:
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def _tcp(port: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port}]


def _text(manifests: Iterable[Manifest]) -> str:
    return _HEADER + yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=True)


if __name__ == "__main__":
    sys.exit(main())
