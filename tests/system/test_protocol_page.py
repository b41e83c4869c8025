"""The conversation of docs/protocol.md, played against a real system by a client that knows nothing but the page."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chappe.cli.launcher import Mesh
from tests.protocol_page import Frame, Page, Speaker, Step
from tests.svc_edge.client import Client
from tests.system.conftest import Planner, started

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(120)]

WAIT_S = 40.0
"""Longer than an edge takes to read a log for the first time after a Welcome, which may be what brings a cursor."""


@pytest.fixture(scope="module")
def page(root: Path) -> Page:
    return Page(root / "docs" / "protocol.md")


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    with started(planned("protocol-page")) as mesh:
        yield mesh


class Line:
    """One connection: what has arrived and no example has shown yet."""

    def __init__(self, client: Client, speaker: Speaker) -> None:
        self.client = client
        self._speaker = speaker
        self.frames: list[Frame] = []
        self.items: list[Frame] = []
        self.cursors: list[str] = []
        self.received = 0
        self._reader = asyncio.create_task(self._read())
        self._news = asyncio.Event()

    async def _read(self) -> None:
        while (payload := await self._next()) is not None:
            frame = json.loads(payload)
            events = frame.get("events", {})
            self.items += events.get("items", ())
            self.received += len(events.get("items", ()))
            if "cursor" in events:
                self.cursors.append(events["cursor"])
            if "events" not in frame and not self._is_about_strangers(frame):
                self.frames.append(frame)
            self._news.set()
        self._news.set()

    def _is_about_strangers(self, frame: Frame) -> bool:
        """Tells whether nothing is left of a frame without what it says of strangers, which is taken out."""
        presences = frame.get("presenceDelta", {}).get("presences")
        if presences:
            presences[:] = [told for told in presences if told["userId"] not in self._speaker.strangers]
        return presences == []

    async def _next(self) -> bytes | None:
        while True:
            # Silence is no fault here: whole connections of the page only listen.
            with contextlib.suppress(TimeoutError):
                return await self.client.read_message()

    def send(self, frame: Frame) -> None:
        self.client.send_json(frame)

    async def get(self, example: Frame, speaker: Speaker) -> None:
        """Waits until what the example shows has arrived, and takes it away."""
        async with asyncio.timeout(WAIT_S):
            while not self._take(example, speaker):
                self._news.clear()
                await self._news.wait()

    def _take(self, example: Frame, speaker: Speaker) -> bool:
        if "events" not in example:
            # Everything but Events stands in the order of the page.
            optional = example | {"caughtUp": {"cursor": "<...>"}} if "caughtUp" in example else example
            if not self.frames or not (
                speaker.matches(example, self.frames[0]) or speaker.matches(optional, self.frames[0])
            ):
                return False
            del self.frames[0]
            return True
        events = example["events"]
        if "cursor" in events:
            if not self.cursors:
                return False
            return speaker.matches(events["cursor"], self.cursors.pop())
        [wanted] = events["items"]
        for place, item in enumerate(self.items):
            if speaker.matches(wanted, item):
                del self.items[place]
                return True
        return False

    async def closed(self) -> int:
        """Returns the code with which the edge closes."""
        async with asyncio.timeout(WAIT_S):
            await self._reader
        assert self.client.closed is not None
        return self.client.closed.code

    async def close(self) -> None:
        self.client.abort()
        self._reader.cancel()


class Play:
    """Plays the steps."""

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._address = address
        self.speakers: dict[str, Speaker] = {}
        self.lines: dict[str, list[Line]] = {}
        for number, name in enumerate(("alice", "bob", "tablet")):
            self.speakers[name] = Speaker(page, f"+4416329608{number:02}", self.speakers)

    async def play(self, step: Step) -> None:
        for who in step.who:
            await self._play(who.lower(), step)

    async def _play(self, name: str, step: Step) -> None:
        speaker = self.speakers[name]
        if step.does == "connect":
            client = Client(self._address, "chappe.v1.json")
            assert await client.request() == 101
            self.lines.setdefault(name, []).append(Line(client, speaker))
        line = self.lines[name][-2 if step.is_older else -1]
        speaker.received = line.received
        if step.does in {"connect", "send"}:
            line.send(speaker.fill(step.frame, line.client.host, time.time_ns() // 1_000_000))
        elif step.does == "get":
            await line.get(step.frame, speaker)
        elif step.does == "close":
            await line.close()
        else:
            assert await line.closed() == step.code

    def leftovers(self) -> list[str]:
        """Returns the kinds of what arrived and no example showed, but for what may come by itself.

        On a person's first signed connection everything has an example; later ones are sent again what came before.
        """
        lines = [line for lines in self.lines.values() for line in lines]
        frames = [kind for line in lines for frame in line.frames for kind in frame]
        firsts = [self.lines[name][1] for name in ("alice", "bob")]
        items = [kind for line in firsts for item in line.items for kind in item]
        return frames + [kind for kind in items if kind not in {"position", "account"}]

    async def aclose(self) -> None:
        for lines in self.lines.values():
            for line in lines:
                await line.close()


async def test_the_conversation_of_the_page_takes_place(page: Page, mesh: Mesh) -> None:
    play = Play(page, mesh.ws[0])

    for step in page.steps:
        try:
            await play.play(step)
        except (AssertionError, TimeoutError) as error:
            seen = [(name, line.frames, line.items) for name, lines in play.lines.items() for line in lines]
            raise AssertionError(f"{step}\nnot shown so far: {seen}") from error

    assert play.leftovers() == []
    await play.aclose()
