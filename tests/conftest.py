"""Fixtures of every test."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the folder of the project."""
    return Path(__file__).resolve().parent.parent
