"""How a client reaches the server: by a connection of its own, or through the process that leads its profile."""

import asyncio
from typing import NamedTuple, Protocol

from chappe.client.destination import Destination
from chappe.client.errors import ChappeClientError
from chappe.client.methods import Answer, Method, Question
from chappe.client.outgoing import Kind
from chappe.client.views import Event


class Submission(NamedTuple):
    """A change that is to be sent."""

    kind: Kind
    destination: Destination
    action: bytes
    token: bytes
    """Names the submission, 16 bytes: however often it is handed over, through whichever process, it is sent once."""
    is_retry: bool = False
    """It was handed over before, and nobody knows what became of it."""


class Stored(NamedTuple):
    """A change that is durable on the server."""

    message_id: bytes
    accepted_ms: int


class LinkLostError(ChappeClientError):
    """The process that led the profile has ended; whoever was waiting for it goes on with the next."""


class Audience(Protocol):
    """Is told what happens to a profile; called on the event loop."""

    def show(self, event: Event) -> None:
        """Takes an event."""
        ...

    def ended(self, error: ChappeClientError) -> None:
        """Learns that the device is of no use any more, and why."""
        ...

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Makes a call, for what is read after a resync."""
        ...


class Link(Protocol):
    """Reaches the server. Every method raises LinkLostError when the process that leads has ended."""

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done once the link is of no use any more; never fails."""
        ...

    async def begin(self, audience: Audience) -> None:
        """Begins to tell what happens."""
        ...

    async def submit(self, submission: Submission) -> Stored:
        """Sends a change; returns once it is durable on the server.

        Raises:
            RefusedError: It was refused for good.
        """
        ...

    async def call(self, method: str, payload: bytes) -> bytes:
        """Calls a method of a service; takes and returns what is serialised.

        Raises:
            RefusedError: The service said no.
            NotConnectedError: There is no session, or it ended before the answer came.
        """
        ...

    async def expire(self) -> int:
        """Removes from the local store what has certainly disappeared by now.

        Returns:
            By which time, Unix milliseconds, what is still there is not to be shown; zero when the link does not know.
        """
        ...

    def watch(self, user_ids: frozenset[bytes]) -> None:
        """Asks to be told how these people are, and no others."""
        ...

    def look_at(self, chats: tuple[Destination, ...]) -> None:
        """Asks to be told who is typing in these chats, and in no others."""
        ...

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Lets the others in a chat see that the user is typing, or no longer."""
        ...

    async def stop(self) -> None:
        """Ends the link; what is not answered stays in the outbox."""
        ...
