"""An edge with everything of its own, over fakes of the other services."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest

from chappe.runtime.app import App
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.config import ServerSettings
from chappe.runtime.interceptors import ConformanceInterceptor
from chappe.runtime.pki import SpiffeId
from svc_edge.app import build
from svc_edge.config import Config
from tests.svc_edge.client import Client
from tests.svc_edge.fakes import FakeFanout, FakeMesh, LeapClock


class Edge(NamedTuple):
    """A running edge."""

    app: App
    url: str
    clock: LeapClock


def settings(mesh: FakeMesh, **changes: Any) -> Config:
    defaults: dict[str, Any] = {
        "message_target": mesh.address,
        "presence_target": mesh.address,
        "identity_target": mesh.address,
        "allowed_origins": ("https://app.example.com",),
        "allow_json": True,
    }
    return Config(server=ServerSettings(drain_s=5.0), **(defaults | changes))


@pytest.fixture
async def mesh() -> AsyncIterator[FakeMesh]:
    async with FakeMesh() as mesh:
        yield mesh


@pytest.fixture
def limits() -> dict[str, Any]:
    """Returns what a test module changes in the configuration."""
    return {}


@pytest.fixture
def prepare() -> Callable[[App], None]:
    """Returns what a test module does with the app before it is built."""
    return lambda _: None


@pytest.fixture
async def edge(mesh: FakeMesh, limits: dict[str, Any], prepare: Callable[[App], None]) -> AsyncIterator[Edge]:
    """Returns an edge, and checks at its end that nothing has left its gRPC door but what the contract allows."""
    clock, conformance = LeapClock(), ConformanceInterceptor()
    fanout = SpiffeId(trust_domain="chappe.test", namespace="chappe", service="svc-fanout")
    seams = Seams(clock, SystemRandomness())
    app = App("edge", ServerSettings(drain_s=5.0), seams=seams, identify=lambda _: fanout, watchers=[conformance])
    async with app:
        prepare(app)
        await build(settings(mesh, **limits), app)
        await app.start()
        yield Edge(app, app.addresses["ws"], clock)
    conformance.check()


@pytest.fixture
async def connect(edge: Edge) -> AsyncIterator[Callable[..., Client]]:
    """Returns a maker of clients."""
    clients: list[Client] = []

    def make(protocol: str = "chappe.v1") -> Client:
        clients.append(Client(edge.url, protocol))
        return clients[-1]

    yield make
    for client in clients:
        client.abort()


@pytest.fixture
async def fanout(edge: Edge) -> AsyncIterator[FakeFanout]:
    async with FakeFanout(edge.app.address) as fanout:
        yield fanout
