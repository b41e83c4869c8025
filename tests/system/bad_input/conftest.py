"""One real system for the whole folder: two engines and five services as processes, over mutual TLS."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import grpc.aio
import pytest

from chappe.cli.launcher import Mesh, Plan
from chappe.runtime.channels import channel
from chappe.runtime.pki import TRUST_DOMAIN, DevelopmentCa, TlsFiles, spiffe_id
from tests.system.bad_input.people import Person
from tests.system.conftest import started

Newcomer = Callable[[], Awaitable[Person]]
Dial = Callable[[str, TlsFiles], grpc.aio.Channel]
Issue = Callable[..., TlsFiles]

_phones = (f"+1202{number:07}" for number in itertools.count(5550000))


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Starts the system once, with two edges; people connect to the first unless a test says otherwise."""
    data = tmp_path_factory.mktemp("bad-input") / "data"
    with started(Plan(data=data, edges=2, environ=dict(os.environ))) as mesh:
        yield mesh


@pytest.fixture(scope="session")
def issue(mesh: Mesh) -> Issue:
    """Issues certificates by the authority of the system."""

    def make(name: str, uri: str = "", lifetime_s: float = 3600) -> TlsFiles:
        authority = DevelopmentCa.open(mesh.foundation.pki)
        return authority.issue(f"of-{name}", uri or spiffe_id(TRUST_DOMAIN, name), lifetime_s=lifetime_s)

    return make


@pytest.fixture(scope="session")
def resident(mesh: Mesh) -> Person:
    """Somebody with an account who is never there: for what only needs a recipient."""
    return asyncio.run(Person.register(mesh.ws[0], next(_phones)))


@pytest.fixture
async def newcomer(mesh: Mesh) -> AsyncIterator[Newcomer]:
    """Registers people and signs them in."""
    made: list[Person] = []

    async def register() -> Person:
        person = await Person.register(mesh.ws[0], next(_phones))
        made.append(person)
        return await person.sign_in()

    yield register
    for person in made:
        person.client.abort()


@pytest.fixture
async def alice(newcomer: Newcomer) -> Person:
    """Somebody."""
    return await newcomer()


@pytest.fixture
async def bob(newcomer: Newcomer) -> Person:
    """Somebody else."""
    return await newcomer()


@pytest.fixture
async def mallory(newcomer: Newcomer) -> Person:
    """Somebody who means harm."""
    return await newcomer()


@pytest.fixture
async def dial(mesh: Mesh) -> AsyncIterator[Dial]:
    """Opens channels to services, with any certificate."""
    opened: list[grpc.aio.Channel] = []

    def open_channel(service: str, files: TlsFiles) -> grpc.aio.Channel:
        opened.append(channel(mesh.grpc[service][0], files, server_name=f"svc-{service}"))
        return opened[-1]

    yield open_channel
    for one in opened:
        await one.close()
