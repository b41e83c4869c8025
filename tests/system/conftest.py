"""Plans for real systems; each module starts the ones that it needs, once."""

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from chappe.cli.launcher import Mesh, Plan
from tests.system.scenarios import PATIENT

Planner = Callable[..., Plan]


@pytest.fixture(scope="package")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    """Returns a maker of plans, each with a folder of its own and without the settings of whoever runs the tests."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CHAPPE_")}

    def make(name: str, **terms: object) -> Plan:
        return Plan(data=tmp_path_factory.mktemp(name) / "data", environ=environ, **terms)  # type: ignore[arg-type]  # the fields of a Plan, whatever they are

    return make


@contextmanager
def started(plan: Plan) -> Generator[Mesh]:
    """Holds a system up; no test's event loop lasts as long, so it is started and stopped in loops of its own."""
    mesh = Mesh(plan)
    asyncio.run(mesh.start())
    try:
        yield mesh
    finally:
        asyncio.run(mesh.stop())


@pytest.fixture(scope="package")
def quiet_mesh(planned: Planner) -> Generator[Mesh]:
    """Holds a system of two edges up for all tests that hurt nothing."""
    with started(planned("quiet", edges=2, settings=PATIENT)) as mesh:
        yield mesh
