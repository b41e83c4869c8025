"""A line between two parties that can be hurt: a TCP proxy that delays, swallows, cuts and forgets."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

Address = tuple[str, int] | str
"""A host with a port, or the path of a Unix socket."""

CHUNK_BYTES: Final = 65_536
LONGEST_OUTAGE_S: Final = 0.6
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Wire:
    """Passes connections on to one address; an async context manager, and bound to its event loop.

    What is done to it lasts until `mend`; what was done before that stays done: bytes that were held back then flow,
    as TCP sends again, and connections of which an end has gone are cut.
    """

    def __init__(self, name: str, upstream: Callable[[], Address], at: Address = ("127.0.0.1", 0)) -> None:
        """Prepares.

        Args:
            name: Between whom it is, for people.
            upstream: Where a new connection is passed on to.
            at: Where to listen; port 0 for one that is free.
        """
        self.name = name
        self._upstream = upstream
        self._at = at
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._delay_s = 0.0
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self._is_mute = False
        self._dropping: asyncio.Task[None] | None = None
        self.mend_now()

    @property
    def address(self) -> str:
        """Where it listens, host:port or a path."""
        if isinstance(self._at, str):
            return self._at
        assert self._server is not None, "the wire is not open"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    @property
    def connections(self) -> int:
        """How many connections it holds."""
        return len(self._links)

    def delay(self, delay_s: float) -> None:
        """Holds back every piece of bytes, either way."""
        self._delay_s = delay_s

    def darken(self) -> None:
        """Passes nothing on, either way, and says nothing of it: a partition."""
        self._there.clear()
        self._back.clear()

    def mute(self) -> None:
        """Passes on what is asked and loses what is answered: whoever asks never learns what became of it."""
        self._back.clear()
        self._is_mute = True

    def forget(self) -> None:
        """Loses the far end of every connection; the near end is not told, and what it sends goes nowhere."""
        for link in list(self._links):
            link.lose_far_end()

    def drop(self, seed: int) -> None:
        """Loses again and again: cuts all connections, or passes nothing on for a moment."""
        self._dropping = asyncio.create_task(self._drop(random.Random(seed)), name=f"drop {self.name}")

    def cut(self) -> None:
        """Resets every connection."""
        for link in list(self._links):
            link.cut()

    async def mend(self) -> None:
        """Passes everything on again."""
        dropping, self._dropping = self._dropping, None
        if dropping is not None:
            dropping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await dropping
        self.mend_now()

    def mend_now(self) -> None:
        """Passes everything on again, unless a task is at work on it."""
        for link in list(self._links):
            if self._is_mute or link.has_lost_far_end:
                link.cut()
        self._is_mute = False
        self._delay_s = 0.0
        self._there.set()
        self._back.set()

    async def __aenter__(self) -> Self:
        if isinstance(self._at, str):
            self._server = await asyncio.start_unix_server(self._connected, self._at)
        else:
            self._server = await asyncio.start_server(self._connected, *self._at)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.mend()
        if self._server is not None:
            self._server.close()
        self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._there.wait()
            far_reader, link.far = await _dial(self._upstream())
            await asyncio.gather(self._pass_there(link, reader), self._pass_back(link, far_reader))
            link.close()
        except (OSError, asyncio.CancelledError):
            # Nobody is there, or one of the two has gone, or the link was cut: that is what lines are like.
            link.reset()
        finally:
            self._links.discard(link)

    async def _pass_there(self, link: "_Link", reader: asyncio.StreamReader) -> None:
        while data := await self._next(reader, self._there):
            if not link.has_lost_far_end:
                await _write(link.far, data)
        _end(link.far)

    async def _pass_back(self, link: "_Link", reader: asyncio.StreamReader) -> None:
        try:
            while data := await self._next(reader, self._back):
                await _write(link.near, data)
        except OSError:
            if not link.has_lost_far_end:
                raise
        if link.has_lost_far_end:
            # Whoever is at the near end hears nothing more until the link is cut.
            await asyncio.Event().wait()
        _end(link.near)

    async def _next(self, reader: asyncio.StreamReader, passes: asyncio.Event) -> bytes:
        data = await reader.read(CHUNK_BYTES)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await passes.wait()
        return data

    async def _drop(self, lots: random.Random) -> None:
        while True:
            await asyncio.sleep(lots.uniform(0.1, LONGEST_OUTAGE_S))
            if lots.random() < 0.5:
                self.cut()
            else:
                self.darken()
                await asyncio.sleep(lots.uniform(0.1, LONGEST_OUTAGE_S))
                self.mend_now()


class _Link:
    """One connection that is passed on."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.has_lost_far_end = False
        task = asyncio.current_task()
        assert task is not None
        self._task = task

    def lose_far_end(self) -> None:
        if self.far is not None:
            self.has_lost_far_end = True
            _reset(self.far)

    def cut(self) -> None:
        """Ends it at once, at both ends; its task goes with it."""
        self._task.cancel()

    def close(self) -> None:
        """Ends it politely: what was taken is handed on first."""
        self.near.close()
        if self.far is not None:
            self.far.close()

    def reset(self) -> None:
        """Ends it at once; what was taken and not handed on is lost."""
        _reset(self.near)
        if self.far is not None:
            _reset(self.far)


async def _dial(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, str):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*address)


async def _write(writer: asyncio.StreamWriter | None, data: bytes) -> None:
    assert writer is not None
    writer.write(data)
    await writer.drain()


def _end(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None and writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    if not writer.is_closing() and peer.family == socket.AF_INET:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
