"""Fixtures of every test."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the folder of the project."""
    return Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups tests for workers side by side: one has all that start real processes, so that these never compete."""
    for item in items:
        is_system = item.get_closest_marker("system") is not None or "system" in item.path.parts
        item.add_marker(pytest.mark.xdist_group("system" if is_system else str(item.path)))
