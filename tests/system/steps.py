"""The words in which the document's flows are told: every step is a line, and fails unless it comes true in time.

The document's times are for its own machines; here each single step may take `GENEROUS` times as long. Where a step is
taken several times, the document's own time holds: for half of the tries, or for the quickest.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
import redis.asyncio

from chappe.cli.launcher import Mesh
from chappe.client import Message, Tick
from chappe.client.group_views import Group
from chappe.client.views import GroupTickChanged
from chappe.runtime.engines import databases
from tests.system.crowd import until
from tests.system.person import Person, registered

GENEROUS: Final = 6.0
ONLINE_S: Final = 0.5
"""From pressing send until the other one has it, online."""
FAN_OUT_S: Final = 0.05
"""All writes of a message to a group of 100."""
LARGE_S: Final = 30.0
"""Until everybody in a group of 1,024 has it."""

_POINTERS = b"SELECT user_id FROM inbox WHERE message_id = %b AND kind = 1"


class Route(NamedTuple):
    """What Redis says of where somebody is."""

    servers: list[str]
    connection_ttl_s: int
    online_ttl_s: int


class User(Person):
    """Somebody of the document, at one of its WebSocket servers."""

    def __init__(self, person: Person, name: str) -> None:
        """Takes the place of a person who has just registered."""
        super().__init__(person.address, person.folder, person.number)
        self.name = name
        self.user_id = b""
        """Known once it has been online."""

    async def comes_online(self) -> None:
        """Opens the WebSocket."""
        await self.__aenter__()
        self.user_id = self.me.user_id

    async def goes_offline(self) -> None:
        """Closes it."""
        await self.__aexit__(None, None, None)

    async def sends(self, text: str, to: "User | Group") -> "Sent":
        """Presses send; returns once the server has answered."""
        pressed_s = time.monotonic()
        message = await self.me.send(to.number if isinstance(to, User) else to, text)
        return Sent(message, pressed_s, time.monotonic() - pressed_s)

    async def is_shown(self, sent: "Sent", within_s: float) -> Message:
        """Sees a message, within a time after its sender pressed send."""
        message = await self.sees(sent.message.text, within_s * GENEROUS)
        took_s = self.time_to(message, sent)
        assert took_s < within_s * GENEROUS, f"{self.name} sees {message.text!r} after {took_s:.2f} s"
        return message

    def time_to(self, message: Message, sent: "Sent") -> float:
        """Returns how long after its sender pressed send a message was shown."""
        return self.moments[self.events.index(message)] - sent.pressed_s

    async def reads(self, message: Message) -> None:
        """Opens the chat with the message in sight."""
        await self.me.mark_read(message)

    async def sees_count(self, sent: "Sent", text: str) -> None:
        """Waits until that is shown of a message to a group, like "delivered to 85/100, read by 42/100"."""

        def last() -> str:
            told = [told for told in self.of(GroupTickChanged) if told.message_id == sent.message.message_id]
            return str(told[-1].counts) if told else ""

        try:
            await until(lambda: last() == text, f"{self.name} sees {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}, but {last()!r}") from None


class Sent(NamedTuple):
    """A message that was sent, with one tick."""

    message: Message
    pressed_s: float
    """When send was pressed, on the monotonic clock."""
    took_s: float
    """Until the tick."""


class Flow:
    """Users, servers and stores."""

    def __init__(self, mesh: Mesh, folder: Path, ledger: psycopg.AsyncConnection, registry: Any) -> None:
        self.mesh = mesh
        self._folder = folder
        self._ledger = ledger
        self._registry = registry
        self._users: list[User] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, mesh: Mesh, folder: Path) -> AsyncGenerator["Flow"]:
        """Opens the stores; everybody goes offline at the end."""
        dsn = (await databases(mesh.foundation.postgres.dsn, ["chappe_ledger"]))["chappe_ledger"]
        registry = redis.asyncio.from_url(mesh.foundation.valkey.url, decode_responses=True)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ledger, registry:
            flow = cls(mesh, folder, ledger, registry)
            try:
                yield flow
            finally:
                await asyncio.gather(*(user.goes_offline() for user in flow._users))

    async def user(self, name: str, ws_server: int) -> User:
        """Registers somebody, who comes online at a server."""
        person = await registered(self.mesh.ws[ws_server], self._folder / name.replace(" ", "-"), name)
        user = User(person, name)
        self._users.append(user)
        await user.comes_online()
        return user

    async def users(self, count: int) -> list[User]:
        """Registers several, who come online by turns at all servers."""
        servers = len(self.mesh.ws)
        return [await self.user(f"member {number:03}", number % servers) for number in range(count)]

    async def is_stored_for(self, sent: Sent, *users: User, others: int = 0, within_s: float = 1.0) -> None:
        """Waits until a message is in the inboxes of these users and of so many others, and of nobody else."""
        due, deadline_s = {user.user_id for user in users}, time.monotonic() + within_s * GENEROUS
        while len(found := await self._inboxes(sent)) < len(due) + others:
            assert time.monotonic() < deadline_s, f"it is in {len(found)} inboxes after {within_s * GENEROUS:.1f} s"
            await asyncio.sleep(0.01)
        assert due <= found
        assert len(found) == len(due) + others

    async def route_of(self, user: User) -> Route:
        """Returns what Redis holds of somebody."""
        name = user.user_id.hex()
        connection, online = f"connection:{{{name}}}", f"online:{{{name}}}"
        fields: dict[str, str] = await self._registry.hgetall(connection)
        servers = [value.partition("|")[0] for value in fields.values()]
        return Route(servers, await self._registry.ttl(connection), await self._registry.ttl(online))

    async def _inboxes(self, sent: Sent) -> set[bytes]:
        cursor = await self._ledger.execute(_POINTERS, (UUID(bytes=sent.message.message_id),))
        return {user_id.bytes for (user_id,) in await cursor.fetchall()}


async def all_see(users: Sequence[User], sent: Sent, within_s: float) -> None:
    """Waits until several see a message."""
    await asyncio.gather(*(user.is_shown(sent, within_s) for user in users))


async def sees_ticks(user: User, messages: Sequence[Sent], tick: Tick) -> None:
    """Waits until a user sees the same ticks on several messages."""
    await asyncio.gather(*(user.sees_tick(sent.message, tick) for sent in messages))
