"""One replica of the registry for a test."""

from collections.abc import AsyncIterator

import pytest

from chappe.runtime.tasks import Tasks
from tests.svc_presence.scene import Scene, Screen


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as tasks:
        yield tasks


@pytest.fixture
async def scene(tasks: Tasks) -> Scene:
    return Scene(tasks)


@pytest.fixture
def screen() -> Screen:
    return Screen()
