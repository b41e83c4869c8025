"""Where the process that leads a profile lets others follow: a Unix socket in its folder, for its user alone."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Generator, Hashable
from pathlib import Path
from typing import Any, Final, Protocol

from chappe.client.destination import Destination
from chappe.client.errors import ChappeClientError, ProfileError, ProtocolError
from chappe.client.link import Stored, Submission
from chappe.client.sharing_codec import MOST_BYTES, PROTOCOL, error_fields, from_line, to_line
from chappe.client.tasks import Tasks

SOCKET: Final = "leader.sock"
MOST_WAITING_BYTES: Final = 8 << 20
"""A process that has so much not yet taken is let go; it comes back and reads on in the store."""

_LONGEST_ADDRESS: Final = 100


@contextlib.contextmanager
def address_in(folder: Path) -> Generator[str]:
    """Returns where the socket of a folder is; good for as long as the block lasts.

    The kernel takes no address of more than 107 bytes, so that a long one is shortened by a link.
    """
    path = folder.absolute() / SOCKET
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="chappe-") as short:
        link = Path(short) / "p"
        link.symlink_to(folder.absolute())
        yield str(link / SOCKET)


class Host(Protocol):
    """Does what guests ask for."""

    user_id: bytes
    edge: str

    async def submit(self, submission: Submission, seat: Hashable) -> Stored:
        """Sends a change."""
        ...

    async def call(self, method: str, payload: bytes) -> bytes:
        """Calls a method of a service."""
        ...

    def watch(self, user_ids: frozenset[bytes], seat: Hashable) -> None:
        """Asks to be told how people are."""
        ...

    def look_at(self, chats: tuple[Destination, ...], seat: Hashable) -> None:
        """Asks to be told who is typing."""
        ...

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets others see that the user is typing."""
        ...

    def left(self, seat: Hashable) -> None:
        """Forgets a guest."""
        ...


class Hall:
    """Serves the processes that follow."""

    def __init__(self, host: Host) -> None:
        self.guests: set[Guest] = set()
        """Who follows now."""
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()

    async def open(self, folder: Path) -> None:
        """Begins to serve; what a leader before left behind is taken away.

        Raises:
            ProfileError: There can be no socket in the folder.
        """
        try:
            self._server = await asyncio.start_unix_server(self._welcome, sock=_listener(folder), limit=MOST_BYTES)
        except OSError as error:
            raise ProfileError(
                f"the profile in {folder} cannot be shared: {error}; is the disk full, or the folder read-only?"
            ) from error
        self._folder = folder

    def ended(self, error: ChappeClientError) -> None:
        """Tells all guests that the device is of no use any more."""
        for guest in self.guests:
            guest.say(ended=error_fields(error))

    async def close(self) -> None:
        """Lets everybody go."""
        if self._server is None:
            return
        self._server.close()
        _remove(self._folder)
        await self._tasks.aclose()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.spawn(self._serve(reader, writer), name="guest of a profile")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = Guest(self._host, writer)
        self.guests.add(guest)
        try:
            await guest.serve(reader)
        finally:
            self.guests.discard(guest)
            self._host.left(guest)
            await guest.close()


class Guest:
    """One process that follows."""

    def __init__(self, host: Host, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._writer = writer
        self._tasks = Tasks()
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._asks: dict[str, Callable[[dict[str, Any]], Awaitable[object]]] = {
            "call": lambda said: host.call(said["method"], said["payload"]),
            "submit": lambda said: host.submit(said["submission"], self),
        }

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Does what the guest asks for until it leaves, or says what is none of ours."""
        self.say(hello=PROTOCOL, user_id=self._host.user_id, edge=self._host.edge)
        with contextlib.suppress(ProtocolError, ValueError, TypeError, LookupError, OSError):
            while line := await reader.readline():
                said = from_line(line)
                if "id" in said:
                    self._begin(said["id"], said["ask"], said)
                else:
                    self._take(said)

    def say(self, **said: object) -> None:
        """Sends a line; a guest that does not listen is let go."""
        if self._writer.transport.get_write_buffer_size() > MOST_WAITING_BYTES:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._writer.write(to_line(said))

    async def close(self) -> None:
        """Lets the guest go."""
        await self._tasks.aclose()
        self._writer.close()

    def _begin(self, id_: int, ask: str, said: dict[str, Any]) -> None:
        task = self._tasks.spawn(self._answer(id_, self._asks[ask](said)), name=f"{ask} for a guest")
        self._answering[id_] = task
        task.add_done_callback(lambda _: self._answering.pop(id_, None))

    async def _answer(self, id_: int, asked: Awaitable[object]) -> None:
        try:
            result = await asked
        except ChappeClientError as error:
            self.say(id=id_, error=error_fields(error))
        else:
            self.say(id=id_, result=result)

    def _take(self, said: dict[str, Any]) -> None:
        if "watch" in said:
            self._host.watch(frozenset(said["watch"]), self)
        elif "look_at" in said:
            self._host.look_at(said["look_at"], self)
        elif "typing" in said:
            self._host.type(said["typing"], said["kind"], is_over=said["is_over"])
        elif (task := self._answering.get(said.get("cancel", 0))) is not None:
            # Not before it has begun, if it was asked for in the same breath: the outbox has it then.
            asyncio.get_running_loop().call_soon(task.cancel)


def _listener(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove(folder)
        # Before it has a name, so that there is no moment at which others might open it.
        os.fchmod(listener.fileno(), 0o600)
        with address_in(folder) as address:
            listener.bind(address)
        (folder / SOCKET).chmod(0o600)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove(folder: Path) -> None:
    (folder / SOCKET).unlink(missing_ok=True)
