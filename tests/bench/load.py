"""The load client, a process of its own: `python -m tests.bench.load WS_URL [HISTORIES]`.

Takes one JSON object with an `op` per line on its standard input and answers each with one line; ends with its input.
"""

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2
from tests.bench.connection import Connection
from tests.bench.numbers import summary_ms
from tests.bench.people import People, create_group
from tests.bench.traffic import (
    BODY_BYTES,
    Lane,
    Latencies,
    LoadError,
    Person,
    Traffic,
    group_lane,
    lane_of,
    read_lane,
    run_closed,
    run_open,
    run_out,
)

_DRAIN_S = 30.0
_FILL_S = 120.0
_CALL_S = 10.0
_LIST_CONVERSATIONS = "chappe.api.message.v1.ConversationService/ListConversations"
_LIST_MESSAGES = "chappe.api.message.v1.HistoryService/ListMessages"
_PAGE_SIZE = 50
_YOUNG_OBJECTS = 50_000


class LoadClient:
    """What the load client can be asked to do; every method is one `op`."""

    def __init__(self, url: str, area: str, histories: Path | None) -> None:
        self._traffic = Traffic()
        self._people = People(url, self._traffic, area, histories)
        self._windows: list[Latencies] = []
        self._opened: asyncio.Task[None] | None = None
        self._group_lanes: list[Lane] = []
        self._start_done = 0

    async def register(self, *, count: int) -> dict[str, Any]:
        """Makes people until there are so many."""
        await self._people.register(max(0, count - len(self._people.persons)))
        # What is there now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        return {"users": len(self._people.persons)}

    async def connect(self, *, first: int, count: int) -> dict[str, Any]:
        """Signs in whoever of these is not connected."""
        took_s = await self._people.connect(self._persons(first, count))
        return {"connected": len(took_s), "took": summary_ms(took_s)}

    async def disconnect(self, *, first: int, count: int) -> dict[str, Any]:
        """Closes the connections of these."""
        for person in self._persons(first, count):
            if person.connection is not None:
                person.connection.hang_up()
        return {}

    async def closed(self, *, chats: int, in_flight: int) -> dict[str, Any]:
        """Starts to keep so many messages in flight over the first chats; a message ends with its receipt."""
        self._begin()
        run_closed(self._traffic, self._lanes(chats), in_flight)
        return {}

    async def open(self, *, chats: int, rate: float) -> dict[str, Any]:
        """Starts to send so many messages each second over the first chats."""
        return self._open(self._lanes(chats), rate)

    async def open_groups(self, *, rate: float) -> dict[str, Any]:
        """Starts to send so many messages each second to the groups."""
        return self._open(self._group_lanes, rate)

    def _open(self, lanes: list[Lane], rate: float) -> dict[str, Any]:
        self._begin()
        self._opened = asyncio.create_task(run_open(self._traffic, lanes, rate))
        return {}

    async def groups(self, *, first: int, count: int, size: int) -> dict[str, Any]:
        """Makes groups of so many people each, none in two of them; every member writes in turn from now on."""
        lanes: list[list[Lane]] = []
        for number in range(count):
            members = self._persons(first + number * size, size)
            group = await create_group(_connection(members[0]), f"bench {number}", members)
            lanes.append([group_lane(member, group.group_id, group.version, size - 1) for member in members])
        self._group_lanes = [lane for turn in zip(*lanes, strict=True) for lane in turn]
        return {}

    async def closed_groups(self, *, in_flight: int) -> dict[str, Any]:
        """Starts to keep so many messages to the groups in flight; one ends when the last member has it."""
        self._begin()
        run_closed(self._traffic, self._group_lanes, in_flight)
        return {}

    async def window(self) -> dict[str, Any]:
        """Ends a window of measuring and begins the next."""
        self._windows.append(self._traffic.take_latencies())
        return {"time_s": time.perf_counter(), "done": self._traffic.done, "in_flight": len(self._traffic.flights)}

    async def stop(self) -> dict[str, Any]:
        """Starts nothing more, waits for what is in flight, and tells the latencies of each window."""
        if self._opened is not None:
            self._opened.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opened
            self._opened = None
        run_out(self._traffic)
        lost = await self._traffic.until_idle(_DRAIN_S)
        windows, self._windows = self._windows, []
        return {
            "done": self._traffic.done - self._start_done,
            "unfinished": lost,
            "retried": self._traffic.retried,
            "windows": [latencies.summary() for latencies in windows],
        }

    async def fill(self, *, sender: list[int], recipient: list[int], count: int, in_flight: int) -> dict[str, Any]:
        """Sends so many messages to each recipient, from the senders in turn; a message ends with its SendAck.

        Args:
            sender: The first sender and how many.
            recipient: The first recipient, who need not be connected, and how many.
            count: How many messages each gets.
            in_flight: How many are on their way at once.
        """
        senders = self._persons(*sender)
        bodies = os.urandom(BODY_BYTES)
        recipients = self._persons(*recipient)
        lanes = [lane_of(one, other, bodies) for one in senders for other in recipients]
        self._begin()
        self._traffic.ends_at_ack = True
        start_s = time.perf_counter()
        total = count * len(recipients)
        run_closed(self._traffic, lanes, min(in_flight, total), total)
        left = await self._traffic.until_idle(_FILL_S)
        self._traffic.ends_at_ack = False
        if left:
            raise LoadError(f"{left} of {total} messages were not acknowledged within {_FILL_S:g} s")
        return {"seconds": time.perf_counter() - start_s}

    async def drain(self, *, first: int, count: int) -> dict[str, Any]:
        """Connects these at the same time; tells how long each took until CaughtUp, and how many items it got."""
        persons = self._persons(first, count)
        start_s = time.perf_counter()
        took_s = await asyncio.gather(*(self._people.sign_in(person) for person in persons))
        return {
            "seconds": time.perf_counter() - start_s,
            "took_s": took_s,
            "items": [_connection(person).items for person in persons],
        }

    async def pages(self, *, reader: int, peer: int, calls: int) -> dict[str, Any]:
        """Reads a chat page after page, one call at a time, from the newest again when it ends."""
        connection = _connection(self._people.persons[reader])
        peer_id = self._people.persons[peer].device.user_id
        took_s, messages, token = [], 0, ""
        for _ in range(calls):
            request = history_service_pb2.ListMessagesRequest(
                peer_user_id=peer_id, page_size=_PAGE_SIZE, page_token=token
            )
            start_s = time.perf_counter()
            payload = await connection.call(_LIST_MESSAGES, request.SerializeToString())
            took_s.append(time.perf_counter() - start_s)
            answer = history_service_pb2.ListMessagesResponse.FromString(payload)
            messages += len(answer.messages)
            token = answer.next_page_token
        return {"took": summary_ms(took_s), "messages": messages}

    async def chats(self, *, reader: int, calls: int) -> dict[str, Any]:
        """Reads the first window of a chat list, one call at a time, and once the whole list."""
        connection = _connection(self._people.persons[reader])
        took_s = []
        for _ in range(calls):
            start_s = time.perf_counter()
            await _window_of_chats(connection, "")
            took_s.append(time.perf_counter() - start_s)
        windows_s: list[float] = []
        chats, token = 0, ""
        while not windows_s or token:
            start_s = time.perf_counter()
            answer = await _window_of_chats(connection, token)
            windows_s.append(time.perf_counter() - start_s)
            chats, token = chats + len(answer.conversations), answer.next_page_token
        return {"took": summary_ms(took_s), "chats": chats, "windows": summary_ms(windows_s)}

    async def reads(self, *, reader: int, peer: int, calls: int) -> dict[str, Any]:
        """Lets one person write and the other say that it was read, one after the other."""
        one, other = self._people.persons[reader], self._people.persons[peer]
        there = lane_of(other, one, os.urandom(BODY_BYTES))
        self._begin()
        took_s: list[float] = []
        for _ in range(calls):
            message_id = self._traffic.launch(there, time.perf_counter())
            await self._traffic.until_idle(_CALL_S)
            read = read_lane(one, other, message_id)
            if one.history is not None:
                one.history.read(read.conversation_id, [message_id])
            self._traffic.ends_at_ack = True
            start_s = time.perf_counter()
            self._traffic.launch(read, start_s)
            await self._traffic.until_idle(_CALL_S)
            took_s.append(time.perf_counter() - start_s)
            self._traffic.ends_at_ack = False
        return {"took": summary_ms(took_s)}

    async def end(self) -> dict[str, Any]:
        """Ends every history: all is quiet, and whoever is not connected cannot have caught up."""
        writers = [person.history for person in self._people.persons if person.history is not None]
        absent = [
            f"{person.device.user_id.hex()}/{person.device.device_id}"
            for person in self._people.persons
            if not person.is_connected
        ]
        if writers:
            writers[0].note("end", absent=absent)
        for writer in writers:
            writer.close()
        return {}

    def failure(self) -> str:
        """Returns what went wrong so far; empty when nothing did."""
        return self._traffic.failure

    def _begin(self) -> None:
        self._windows.clear()
        self._traffic.take_latencies()
        self._traffic.retried = 0
        self._start_done = self._traffic.done

    def _persons(self, first: int, count: int) -> list[Person]:
        return self._people.persons[first : first + count]

    def _lanes(self, chats: int) -> list[Lane]:
        """Returns both directions of each chat: the people 0 and 1 have one, 2 and 3 the next."""
        persons = self._people.persons
        pairs = [(persons[2 * chat], persons[2 * chat + 1]) for chat in range(chats)]
        there = [lane_of(one, other, os.urandom(BODY_BYTES)) for one, other in pairs]
        return there + [lane_of(other, one, os.urandom(BODY_BYTES)) for one, other in pairs]


async def _window_of_chats(connection: Connection, token: str) -> conversation_service_pb2.ListConversationsResponse:
    request = conversation_service_pb2.ListConversationsRequest(page_size=_PAGE_SIZE, page_token=token)
    payload = await connection.call(_LIST_CONVERSATIONS, request.SerializeToString())
    return conversation_service_pb2.ListConversationsResponse.FromString(payload)


def _connection(person: Person) -> Connection:
    if not isinstance(person.connection, Connection):
        raise LoadError(f"person {person.number} is not connected")
    return person.connection


async def _serve(client: LoadClient) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        run: Callable[..., Awaitable[dict[str, Any]]] = getattr(client, order.pop("op"))
        try:
            answer = await run(**order)
        except (LoadError, TimeoutError, OSError) as error:
            answer = {"failure": f"{type(error).__name__}: {error}"}
        if client.failure():
            answer = {"failure": client.failure()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Runs until the standard input ends."""
    url, area, *histories = sys.argv[1:]
    gc.set_threshold(_YOUNG_OBJECTS, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_all(url, area, Path(histories[0]) if histories else None))


async def _serve_all(url: str, area: str, histories: Path | None) -> None:
    await _serve(LoadClient(url, area, histories))


if __name__ == "__main__":
    main()
