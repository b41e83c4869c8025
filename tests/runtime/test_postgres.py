"""Attempts to connect that come to nothing leave nothing open."""

import asyncio
import gc
from collections.abc import Iterator

import psycopg
import pytest

from chappe.runtime.postgres import TidyConnection


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Cycles stay where they are, as they do in a service for a long time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_server_that_says_nothing_sees_the_end_of_an_attempt_at_once(no_collector: None) -> None:
    gone = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()
        gone.set()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
            await TidyConnection.connect(f"host=127.0.0.1 port={port} user=nobody connect_timeout=2")
        async with asyncio.timeout(1):
            await gone.wait()

    assert "timeout" in str(caught.value)


async def test_a_server_that_refuses_is_told_of_as_ever() -> None:
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await TidyConnection.connect("host=127.0.0.1 port=1 user=nobody")
