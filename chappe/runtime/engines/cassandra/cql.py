"""Speaks just enough CQL to ask a node who it is, without a driver and its pools and threads.

The frames are those of the native protocol, version 4.
"""

import asyncio
import contextlib
import enum
import struct
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from chappe.runtime.config import Secret

PORT: Final = 9042
_TIMEOUT_S: Final = 10.0
_REQUEST: Final = 0x04
_HEADER: Final = struct.Struct(">BBhBI")
_ERROR: Final = 0x00
_STARTUP: Final = 0x01
_AUTHENTICATE: Final = 0x03
_QUERY: Final = 0x07
_AUTH_RESPONSE: Final = 0x0F


class Consistency(enum.IntEnum):
    """How many replicas must take part."""

    ONE = 0x0001
    ALL = 0x0005


class Login(NamedTuple):
    """A role and its password."""

    role: str
    password: Secret


class CqlError(Exception):
    """A node answered with an error, or with nothing that is CQL."""


class CqlConnection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes an open connection."""
        self._reader = reader
        self._writer = writer

    async def greet(self, login: Login | None) -> None:
        """Begins the conversation.

        Raises:
            CqlError: if the node wants another login.
        """
        option = _string("CQL_VERSION") + _string("3.0.0")
        opcode, _ = await self._ask(_STARTUP, struct.pack(">H", 1) + option)
        if opcode == _AUTHENTICATE:
            token = b"" if login is None else f"\0{login.role}\0{login.password.reveal()}".encode()
            await self._ask(_AUTH_RESPONSE, struct.pack(">i", len(token)) + token)

    async def query(self, text: str, consistency: Consistency = Consistency.ONE) -> bytes:
        """Runs a statement; returns the body of the answer, which ends with the last value of the last row.

        Raises:
            CqlError: if the node refuses.
        """
        statement = text.encode()
        body = struct.pack(">i", len(statement)) + statement + struct.pack(">HB", consistency, 0)
        _, answer = await self._ask(_QUERY, body)
        return answer

    async def _ask(self, opcode: int, body: bytes) -> tuple[int, bytes]:
        self._writer.write(_HEADER.pack(_REQUEST, 0, 0, opcode, len(body)) + body)
        version, _, _, answered, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
        if version != _REQUEST | 0x80:
            raise CqlError(f"an answer of version {version:#x}, which is not CQL 4")
        answer = await self._reader.readexactly(length)
        if answered == _ERROR:
            raise CqlError(answer[6:].decode(errors="replace"))
        return answered, answer


@contextlib.asynccontextmanager
async def connected(address: str, login: Login | None = None) -> AsyncGenerator[CqlConnection]:
    """Connects to the node at an address.

    Raises:
        CqlError: if nobody listens, the login is refused, or what answers is no CQL.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, PORT)
            try:
                connection = CqlConnection(reader, writer)
                await connection.greet(login)
                yield connection
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, EOFError) as error:
        raise CqlError(f"{address}:{PORT} does not answer: {error}") from error


def _string(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()
