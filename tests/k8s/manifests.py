"""Manifests rendered by the real tool, and what the tests ask of them."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

Manifest = dict[str, Any]

MISSING = (
    "needs kubectl (any from 1.30) or kustomize on the path to render k8s/; from source: "
    "go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
)


# What Kubernetes fills in when a pod starts.
EXAMPLES = {"status.podIP": "10.244.0.7", "metadata.name": "svc-edge-5d4f9-abcde"}


class Container(NamedTuple):
    """One container and where it stands."""

    place: str
    workload: Manifest
    pod: Manifest
    spec: Manifest

    @property
    def settings(self) -> dict[str, str]:
        """Its environment; what Kubernetes fills in later is filled in with an example."""
        found: dict[str, str] = {}
        for variable in self.spec.get("env", []):
            value = variable.get("value") or EXAMPLES[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            for name, earlier in found.items():
                value = value.replace(f"$({name})", earlier)
            found[variable["name"]] = value
        return found


class Manifests(list[Manifest]):
    """Everything that one variant applies."""

    def of(self, *kinds: str) -> list[Manifest]:
        """Returns those of the given kinds."""
        return [manifest for manifest in self if manifest["kind"] in kinds]

    def named(self, kind: str, name: str) -> Manifest:
        """Returns the one of a kind and a name."""
        return next(manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name)

    @property
    def workloads(self) -> list[Manifest]:
        """Returns everything that makes pods."""
        return self.of("Deployment", "Job", "CronJob", "StatefulSet")

    def containers(self) -> Iterator[Container]:
        """Yields every container of every workload."""
        for workload in self.workloads:
            pod = template_of(workload)["spec"]
            for spec in [*pod.get("initContainers", []), *pod["containers"]]:
                yield Container(f"{workload['metadata']['name']}/{spec['name']}", workload, pod, spec)


def pod_labels(workload: Manifest) -> dict[str, str]:
    """Returns the labels that the pods of a workload carry."""
    labels: dict[str, str] = template_of(workload)["metadata"]["labels"]
    return labels


def template_of(workload: Manifest) -> Manifest:
    """Returns what the pods of a workload are made from."""
    spec = workload["spec"]
    template: Manifest = spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]
    return template


def render(folder: Path) -> Manifests:
    """Renders a kustomization; skips the test where nothing can."""
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize", str(folder)]
    elif kustomize := shutil.which("kustomize"):
        command = [kustomize, "build", str(folder)]
    else:
        pytest.skip(MISSING)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Manifests(yaml.safe_load_all(done.stdout))
