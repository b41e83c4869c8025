"""What a process of a running system says of itself."""

import urllib.request

from chappe.cli.launcher import Mesh
from chappe.cli.launcher.plan import metrics_url


def sample(mesh: Mesh, service: str, number: int, name: str) -> float:
    """Returns a metric of one process; the name is that of the page, without labels."""
    with urllib.request.urlopen(metrics_url(mesh.grpc[service][number]), timeout=5) as response:  # noqa: S310 - our own
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])
