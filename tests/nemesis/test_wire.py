"""Each harm of a wire, seen from both ends of a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.nemesis.wire import Wire

SOON_S = 0.2


class Echo:
    """A server that says back what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = asyncio.Queue[bytes]()
        self.server: asyncio.Server
        self.lost = asyncio.Event()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.sockets[0].getsockname()[:2]
        return host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1024):
                self.heard.put_nowait(data)
                writer.write(data)
                await writer.drain()
        self.lost.set()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    echo.server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    yield echo
    echo.server.close()


@pytest.fixture
async def wire(echo: Echo) -> AsyncIterator[Wire]:
    async with Wire("client-echo", lambda: echo.address) as wire:
        yield wire


class Caller:
    """The near end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hears(self, length: int) -> bytes:
        return await self.reader.readexactly(length)

    async def hears_nothing(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_S):
                await self.reader.read(1)
                return False
        return True


@pytest.fixture
async def caller(wire: Wire) -> AsyncIterator[Caller]:
    host, _, port = wire.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    caller = Caller(reader, writer)
    caller.say(b"hello")
    await caller.hears(5)
    yield caller
    writer.close()


async def test_a_whole_wire_passes_both_ways(caller: Caller) -> None:
    caller.say(b"and again")

    assert await caller.hears(9) == b"and again"


async def test_a_wire_to_a_unix_socket_passes_too(echo: Echo, tmp_path: object) -> None:
    async with Wire("client-echo", lambda: echo.address, f"{tmp_path}/wire") as wire:
        reader, writer = await asyncio.open_unix_connection(wire.address)
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_the_end_of_a_server_reaches_its_caller(echo: Echo, caller: Caller) -> None:
    caller.writer.write_eof()

    assert await caller.reader.read() == b""
    assert echo.lost.is_set()


async def test_a_delay_holds_back_and_loses_nothing(wire: Wire, caller: Caller) -> None:
    loop = asyncio.get_running_loop()
    wire.delay(0.05)
    asked_s = loop.time()
    caller.say(b"slow")

    assert await caller.hears(4) == b"slow"
    assert loop.time() - asked_s >= 0.1


async def test_a_partition_is_silent_and_what_was_said_flows_after_it(wire: Wire, echo: Echo, caller: Caller) -> None:
    wire.darken()
    caller.say(b"dark")

    assert await caller.hears_nothing()
    assert echo.heard.qsize() == 1
    await wire.mend()
    assert await caller.hears(4) == b"dark"


async def test_an_answer_is_lost_and_its_question_is_not(wire: Wire, echo: Echo, caller: Caller) -> None:
    wire.mute()
    caller.say(b"done?")

    assert await caller.hears_nothing()
    assert [await echo.heard.get(), await echo.heard.get()] == [b"hello", b"done?"]
    await wire.mend()
    with pytest.raises(ConnectionResetError):
        await caller.hears(1)


async def test_of_a_half_open_connection_the_near_end_is_not_told(wire: Wire, echo: Echo, caller: Caller) -> None:
    wire.forget()
    await echo.lost.wait()
    caller.say(b"anybody?")

    assert await caller.hears_nothing()
    await wire.mend()
    with pytest.raises(ConnectionResetError):
        await caller.hears(1)


async def test_a_cut_resets_the_connection_and_the_next_one_passes(wire: Wire, caller: Caller) -> None:
    wire.cut()

    with pytest.raises(ConnectionResetError):
        await caller.hears(1)
    host, _, port = wire.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"back")
    assert await reader.readexactly(4) == b"back"
    writer.close()


async def test_a_wire_that_drops_is_whole_once_it_is_mended(wire: Wire) -> None:
    wire.drop(seed=3)
    await wire.mend()
    host, _, port = wire.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"back")

    assert await reader.readexactly(4) == b"back"
    writer.close()
