"""Every manifest keeps what the platform promises: schema, selectors, probes, least rights, secrets as files."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from chappe.runtime.health import LIVE, READY
from chappe.runtime.tls import HANDSHAKE_ENVIRONMENT
from tests.k8s.manifests import Container, Manifest, Manifests, pod_labels

KUBERNETES = "1.34.0"
SERVICES = {"svc-edge", "svc-fanout", "svc-identity", "svc-message", "svc-presence"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def test_every_manifest_keeps_the_schema_of_kubernetes(manifests: Manifests) -> None:
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == "1.34"


def test_a_misspelt_field_would_be_refused(manifests: Manifests) -> None:
    wrong = {**manifests.of("Deployment")[0], "speck": {}}

    with pytest.raises(kubernetes_validate.ValidationError, match="speck"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_no_file_lies_beside_the_kustomizations_unused(root: Path) -> None:
    folder = root / "k8s"
    named = "\n".join(path.read_text() for path in folder.rglob("kustomization.yaml"))

    files = {path.name for path in folder.rglob("*.yaml")} - {"kustomization.yaml"}

    assert {name for name in files if name not in named} == set()


def test_the_five_services_are_there_with_all_that_belongs_to_each(manifests: Manifests) -> None:
    for kind in ("Deployment", "ServiceAccount", "PodDisruptionBudget"):
        assert {manifest["metadata"]["name"] for manifest in manifests.of(kind)} == SERVICES
    headless = {name(service) for service in manifests.of("Service") if service["spec"].get("clusterIP") == "None"}
    assert headless >= SERVICES


def test_everything_lives_in_the_namespace_whose_pods_are_restricted(manifests: Manifests) -> None:
    labels = manifests.named("Namespace", "chappe")["metadata"]["labels"]

    assert (
        labels.items() >= {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}.items()
    )
    for manifest in manifests:
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "chappe"


def test_each_service_selects_the_pods_of_its_one_workload(manifests: Manifests) -> None:
    for service in manifests.of("Service"):
        selector = service["spec"]["selector"]
        selected = [workload for workload in manifests.workloads if selects(selector, workload)]

        assert len(selected) == 1
        assert name(selected[0]) == name(service).removesuffix("-clients")


def test_each_port_of_a_service_is_one_of_its_container(manifests: Manifests) -> None:
    for service in manifests.of("Service"):
        target = manifests.named(*owner(manifests, service))
        ports = {port["name"]: port["containerPort"] for port in only_container(target)["ports"]}

        for port in service["spec"]["ports"]:
            wanted = port.get("targetPort", port["port"])
            assert wanted in {*ports, *ports.values()}


def test_workloads_select_their_own_pods_and_nobody_else_s(manifests: Manifests) -> None:
    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for manifest in manifests.of(kind):
            selector = manifest["spec"]["selector"]["matchLabels"]

            assert [name(workload) for workload in manifests.workloads if selects(selector, workload)] == [
                name(manifest)
            ]


def test_a_budget_lets_a_node_be_drained(manifests: Manifests) -> None:
    for budget in manifests.of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1


def test_every_container_has_the_least_rights(manifests: Manifests) -> None:
    for container in manifests.containers():
        assert container.spec["securityContext"] == RESTRICTED, container.place
        assert container.pod["securityContext"]["runAsNonRoot"] is True
        assert container.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container.pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & container.pod.keys()


def test_our_processes_run_as_user_10001_and_may_write_to_tmp(manifests: Manifests) -> None:
    for container in ours(manifests):
        assert container.pod["securityContext"]["runAsUser"] == 10001
        assert {"name": "tmp", "mountPath": "/tmp"} in container.spec["volumeMounts"]  # noqa: S108 - where it is mounted
        assert "emptyDir" in volumes(container)["tmp"]


def test_every_container_says_what_it_needs_and_where_it_stops(manifests: Manifests) -> None:
    for container in manifests.containers():
        for amount in ("requests", "limits"):
            assert container.spec["resources"][amount].keys() == {"cpu", "memory"}, container.place


def test_every_container_that_stays_is_probed(manifests: Manifests) -> None:
    for container in manifests.containers():
        if container.workload["kind"] not in {"Job", "CronJob"}:
            assert container.spec.keys() >= set(PROBES), container.place


def test_services_are_asked_for_their_health_by_name_at_the_door_without_tls(manifests: Manifests) -> None:
    for container in servers(manifests):
        port = int(setting(container, "HEALTH_LISTEN").rpartition(":")[2])
        probes = {probe: container.spec[probe]["grpc"] for probe in PROBES}

        assert probes == {
            "startupProbe": {"port": port, "service": LIVE},
            "livenessProbe": {"port": port, "service": LIVE},
            "readinessProbe": {"port": port, "service": READY},
        }
        assert all(container.spec[probe]["timeoutSeconds"] >= 3 for probe in PROBES)


def test_named_ports_are_those_on_which_the_service_listens(manifests: Manifests) -> None:
    for container in servers(manifests):
        ports = {port["name"]: port["containerPort"] for port in container.spec["ports"]}

        for port, variable in (("grpc", "LISTEN"), ("health", "HEALTH_LISTEN"), ("metrics", "METRICS_LISTEN")):
            assert setting(container, variable) == f"0.0.0.0:{ports[port]}"


def test_updates_never_take_a_pod_before_its_successor_is_ready(manifests: Manifests) -> None:
    for deployment in manifests.of("Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_pods_of_a_service_spread_over_zones_and_nodes(manifests: Manifests) -> None:
    for deployment in manifests.of("Deployment"):
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]

        assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for one in spread:
            assert selects(one["labelSelector"]["matchLabels"], deployment)
            # Without the name, pods of the other services would count as well.
            assert one["matchLabelKeys"] == ["app.kubernetes.io/name", "pod-template-hash"]


def test_handshakes_refuse_what_is_older_than_tls_1_3(manifests: Manifests) -> None:
    for container in servers(manifests):
        assert container.settings.items() >= HANDSHAKE_ENVIRONMENT.items()


def test_secrets_come_as_files(manifests: Manifests) -> None:
    for container in manifests.containers():
        for variable in container.spec.get("env", []):
            assert "secretKeyRef" not in variable.get("valueFrom", {}), container.place
            if re.search("PASSWORD|SECRET|DSN|PEPPER|TOKEN|KEY(?!SPACE)|URL", variable["name"]):
                assert variable["name"].endswith("_FILE"), container.place
            assert not re.search(r"://[^/]*:[^/]*@", variable.get("value", "")), container.place
        assert "envFrom" not in container.spec
    assert manifests.of("Secret") == []


def test_images_have_a_version_in_the_development_overlay(dev: Manifests) -> None:
    images = {container.spec["image"] for container in dev.containers()}

    assert images == {"chappe:dev", "postgres:18", "valkey/valkey:9"}


def name(manifest: Manifest) -> str:
    text: str = manifest["metadata"]["name"]
    return text


def selects(selector: dict[str, str], workload: Manifest) -> bool:
    return bool(selector) and selector.items() <= pod_labels(workload).items()


def owner(manifests: Manifests, service: Manifest) -> tuple[str, str]:
    selected = next(one for one in manifests.workloads if selects(service["spec"]["selector"], one))
    return selected["kind"], name(selected)


def only_container(workload: Manifest) -> Manifest:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    found: Manifest = container
    return found


def ours(manifests: Manifests) -> list[Container]:
    return [container for container in manifests.containers() if container.workload["kind"] != "StatefulSet"]


def servers(manifests: Manifests) -> list[Container]:
    return [container for container in manifests.containers() if container.workload["kind"] == "Deployment"]


def volumes(container: Container) -> dict[str, Any]:
    return {volume["name"]: volume for volume in container.pod["volumes"]}


def setting(container: Container, variable: str) -> str:
    service = name(container.workload).removeprefix("svc-").upper()
    return container.settings[f"CHAPPE_{service}_{variable}"]
