"""The manifests of every variant."""

from pathlib import Path

import pytest

from tests.k8s.manifests import Manifests, render

VARIANTS = ("base", "overlays/cassandra", "overlays/dev")


@pytest.fixture(scope="session", params=VARIANTS)
def manifests(request: pytest.FixtureRequest, root: Path) -> Manifests:
    """Returns the manifests of each variant in turn."""
    return render(root / "k8s" / request.param)


@pytest.fixture(scope="session")
def dev(root: Path) -> Manifests:
    """Returns the manifests of the development overlay."""
    return render(root / "k8s" / "overlays" / "dev")


@pytest.fixture(scope="session")
def in_cassandra(root: Path) -> Manifests:
    """Returns the manifests of the overlay with the ledger in Cassandra."""
    return render(root / "k8s" / "overlays" / "cassandra")
