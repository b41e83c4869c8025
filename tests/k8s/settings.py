"""The environment of a container, with the files that it reads put where a test can have them."""

import importlib
from pathlib import Path
from typing import Any

from chappe.runtime import config
from tests.k8s.manifests import Container


def service_of(container: Container) -> str:
    """Returns the service that the container's command runs."""
    module: str = container.spec["command"][2]
    return module.removeprefix("svc_")


def load(container: Container, secrets: dict[str, dict[str, str]], folder: Path) -> Any:
    """Loads a container's settings by the loader of its service."""
    service = service_of(container)
    config_type = importlib.import_module(f"svc_{service}.config").Config
    return config.load(config_type, service, with_files(container, secrets, folder))


def with_files(container: Container, secrets: dict[str, dict[str, str]], folder: Path) -> dict[str, str]:
    """Returns a container's environment, naming copies in a folder for the files that it mounts."""
    environ = container.settings
    for name, value in environ.items():
        if name.endswith("_FILE"):
            content = mounted(container, Path(value), secrets)
            assert content is not None, f"{container.place}: nothing is mounted at {value}"
            copy = folder / container.place.replace("/", "-") / value.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(content)
            environ[name] = str(copy)
    return environ


def mounted(container: Container, path: Path, secrets: dict[str, dict[str, str]]) -> str | None:
    """Returns what the volumes of a container show at a path, None for nothing."""
    volumes = {volume["name"]: volume for volume in container.pod["volumes"]}
    for mount in container.spec["volumeMounts"]:
        if path.parent == Path(mount["mountPath"]):
            volume = volumes[mount["name"]]
            # The certificate driver writes the same three files as the Secrets of development.
            driven = f"{container.pod['serviceAccountName']}-tls" if "csi" in volume else ""
            return secrets[driven or volume["secret"]["secretName"]].get(path.name)
    return None
