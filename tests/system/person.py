"""Somebody at a real client: a profile, a session, and everything that was shown."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from chappe.client import (
    ChappeClientError,
    Client,
    Event,
    Message,
    Online,
    Tick,
    TickChanged,
    connect,
    register,
)
from tests.system.crowd import until

EventType = TypeVar("EventType", bound=Event)


def phone_number() -> str:
    """Returns a number that nobody has."""
    return f"+1303{secrets.randbelow(10_000_000):07d}"


async def registered(address: str, folder: Path, name: str) -> "Person":
    """Returns a new person, not yet connected."""
    number = phone_number()
    await register(address, number, name=name, profile=folder)
    return Person(address, folder, number)


class Person:
    """One device and whoever looks at it; connected while its block lasts, and again in the next."""

    def __init__(self, address: str, folder: Path, number: str = "") -> None:
        self.number = number
        self.address = address
        self.folder = folder
        self.events: list[Event] = []
        self.moments: list[float] = []
        """When each event was shown, on the monotonic clock."""
        self.end: ChappeClientError | None = None
        """Why an edge does not want this device any more."""
        self._client: Client | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def me(self) -> Client:
        """The client, while connected."""
        assert self._client is not None
        return self._client

    @property
    def messages(self) -> list[Message]:
        """The messages that were shown, in the order in which they came."""
        return self.of(Message)

    def of(self, kind: type[EventType]) -> list[EventType]:
        """Returns what was shown of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def tick(self, message: Message) -> Tick:
        """Returns the last tick shown for a message."""
        ticks = [event.tick for event in self.of(TickChanged) if event.message_id == message.message_id]
        return ticks[-1] if ticks else message.tick

    async def sees(self, text: str, timeout_s: float = 30.0) -> Message:
        """Returns the message with this text once it is shown."""
        await until(lambda: text in [message.text for message in self.messages], f"{text!r} is shown", timeout_s)
        return next(message for message in self.messages if message.text == text)

    async def sees_tick(self, message: Message, tick: Tick, timeout_s: float = 30.0) -> None:
        """Waits until a message has a tick."""
        await until(lambda: self.tick(message) == tick, f"{message.text!r} is {tick.name}", timeout_s)

    async def sees_event(self, kind: type[EventType], fits: Callable[[EventType], bool] = lambda _: True) -> EventType:
        """Returns the first event of a kind that fits, once it is shown."""
        await until(lambda: any(map(fits, self.of(kind))), f"a {kind.__name__} is shown")
        return next(event for event in self.of(kind) if fits(event))

    async def __aenter__(self) -> Self:
        self._client = await connect(self.address, profile=self.folder).__aenter__()
        self._looking = asyncio.create_task(self._look(self._client))
        await self.sees_event(Online)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        looking, self._looking = self._looking, None
        if client is not None:
            await client.__aexit__(kind, error, trace)
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _look(self, client: Client) -> None:
        try:
            async for event in client.events():
                self.events.append(event)
                self.moments.append(time.monotonic())
        except ChappeClientError as error:
            self.end = error
