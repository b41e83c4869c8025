"""The link of a process that follows: it speaks through the process that leads the profile."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chappe.client.destination import Destination
from chappe.client.errors import NotConnectedError, ProfileError, ProtocolError
from chappe.client.hall import address_in
from chappe.client.link import Audience, LinkLostError, Stored, Submission
from chappe.client.sharing_codec import MOST_BYTES, PROTOCOL, from_line, to_error, to_line
from chappe.client.tasks import Tasks
from chappe.client.views import Online

HELLO_S: Final = 5.0
"""How long whoever leads has to greet."""
ANSWER_S: Final = 20.0
"""How long it has to answer a call, which it gives up after 15 seconds itself."""


class Following:
    """One connection to the process that leads."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edge: str) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._writer = writer
        self._edge = edge
        self._audience: Audience
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks = Tasks()

    @classmethod
    async def open(cls, folder: Path) -> "Following":
        """Connects to whoever leads the profile of a folder.

        Raises:
            OSError: Nobody leads, or whoever does has stopped.
            ProfileError: Whoever leads is of another version.
        """
        with address_in(folder) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MOST_BYTES)
        try:
            async with asyncio.timeout(HELLO_S):
                return cls(reader, writer, _edge(from_line(await reader.readline()), folder))
        except (ProtocolError, LookupError) as error:
            writer.close()
            raise ConnectionResetError("whoever led has just ended") from error
        except BaseException:
            writer.close()
            raise

    async def begin(self, audience: Audience) -> None:
        """Begins to tell what happens."""
        self._audience = audience
        if self._edge:
            audience.show(Online(edge=self._edge))
        self._tasks.spawn(self._read(), name="follow the process that leads")

    async def submit(self, submission: Submission) -> Stored:
        """Sends a change; returns once it is durable on the server."""
        stored: Stored = await self._ask(ask="submit", submission=submission)
        return stored

    async def call(self, method: str, payload: bytes) -> bytes:
        """Calls a method of a service."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer: bytes = await self._ask(ask="call", method=method, payload=payload)
        except TimeoutError:
            raise NotConnectedError(
                f"the process that leads this profile has not answered in {ANSWER_S:g} s; has it stopped?"
            ) from None
        return answer

    async def expire(self) -> int:
        """Leaves it to the process that leads, which does it all the time."""
        return 0

    def watch(self, user_ids: frozenset[bytes]) -> None:
        """Asks to be told how these people are, and no others."""
        self._say(watch=user_ids)

    def look_at(self, chats: tuple[Destination, ...]) -> None:
        """Asks to be told who is typing in these chats, and in no others."""
        self._say(look_at=chats)

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets the others in a chat see that the user is typing, or no longer."""
        self._say(typing=chat, kind=kind, is_over=is_over)

    async def stop(self) -> None:
        """Goes; what is under way goes on without this process."""
        self._writer.close()
        await self._tasks.aclose()
        self._end()

    async def _ask(self, **said: object) -> Any:
        if self.lost.done():
            raise LinkLostError
        id_ = next(self._ids)
        answer = self._asked[id_] = asyncio.get_running_loop().create_future()
        self._say(id=id_, **said)
        try:
            return await answer
        except asyncio.CancelledError:
            # What comes of it is news from here on, and no answer.
            self._say(cancel=id_)
            raise
        finally:
            del self._asked[id_]

    def _say(self, **said: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(to_line(said))

    async def _read(self) -> None:
        try:
            with suppress(ProtocolError, ValueError, LookupError, OSError):
                while line := await self._reader.readline():
                    self._take(from_line(line))
        finally:
            self._writer.close()
            self._end()

    def _take(self, said: dict[str, Any]) -> None:
        if "event" in said:
            self._audience.show(said["event"])
        elif "ended" in said:
            self._audience.ended(to_error(said["ended"]))
        elif (answer := self._asked.get(said["id"])) is not None and not answer.done():
            if "error" in said:
                answer.set_exception(to_error(said["error"]))
            else:
                answer.set_result(said["result"])

    def _end(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkLostError())


def _edge(hello: dict[str, Any], folder: Path) -> str:
    """Returns the edge to which the process that leads is connected."""
    if hello["hello"] != PROTOCOL:
        raise ProfileError(
            f"the profile in {folder} is in use by a process of another version of Chappe; end that one first"
        )
    edge: str = hello["edge"]
    return edge
