"""A channel that dials with the certificate of now; gRPC's own keeps the one that it was made with."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio

from chappe.runtime.pki import TlsFiles
from chappe.runtime.tasks import Tasks
from chappe.runtime.tls import RotatingFiles, channel_credentials


class RotatingChannel(grpc.aio.Channel):
    """A channel whose calls go out under the certificate that the files hold when they begin.

    Calls that run stay on the connection on which they began, which no change of the files harms. So a stream moves on
    when it is dialled anew, and the channel of an earlier certificate is closed once everything on it has ended.
    """

    def __init__(self, files: TlsFiles, dial: Callable[[grpc.ChannelCredentials], grpc.aio.Channel]) -> None:
        """Dials.

        Args:
            files: The certificate of this process, and whom it trusts.
            dial: Makes a channel to the target.

        Raises:
            TlsFilesError: The files cannot be used.
        """
        self._files = RotatingFiles(files, channel_credentials)
        self._dial = dial
        self._dialled = [_Dialled(dial(self._files.made))]
        self._tasks = Tasks()

    @property
    def newest(self) -> grpc.aio.Channel:
        """The channel under the certificate of now."""
        return self.dialled().channel

    def dialled(self) -> "_Dialled":
        """Returns the same, with the count of its calls."""
        credentials = self._files.changed()
        if credentials is not None:
            self._tasks.spawn(self._outlive(self._dialled[-1]), name="close the channel of an earlier certificate")
            self._dialled.append(_Dialled(self._dial(credentials)))
        return self._dialled[-1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes everything that was dialled."""
        await self._tasks.aclose()
        for dialled in self._dialled:
            await dialled.channel.close(grace)

    async def _outlive(self, dialled: "_Dialled") -> None:
        await dialled.idle.wait()
        await dialled.channel.close()
        self._dialled.remove(dialled)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's own
        """Returns the state of the newest channel."""
        return self.newest.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the newest channel is in another state."""
        await self.newest.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the newest channel is connected."""
        await self.newest.channel_ready()

    def unary_unary(self, *arguments: Any, **settings: Any) -> Any:
        """Returns what calls a method of the newest channel."""
        return _Method(self, "unary_unary", arguments, settings)

    def unary_stream(self, *arguments: Any, **settings: Any) -> Any:
        """Returns what calls a method of the newest channel."""
        return _Method(self, "unary_stream", arguments, settings)

    def stream_unary(self, *arguments: Any, **settings: Any) -> Any:
        """Returns what calls a method of the newest channel."""
        return _Method(self, "stream_unary", arguments, settings)

    def stream_stream(self, *arguments: Any, **settings: Any) -> Any:
        """Returns what calls a method of the newest channel."""
        return _Method(self, "stream_stream", arguments, settings)


class _Dialled:
    """A channel under one certificate, and how many of its calls have not ended."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._calls = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def began(self, call: Any) -> None:
        """Counts a call until it has ended."""
        self._calls += 1
        self.idle.clear()
        call.add_done_callback(self._ended)

    def _ended(self, _: Any) -> None:
        self._calls -= 1
        if self._calls == 0:
            self.idle.set()


class _Method:
    """A method of a service, called on whichever channel is the newest."""

    __slots__ = ("_arguments", "_call", "_channel", "_kind", "_owner", "_settings")

    def __init__(self, owner: RotatingChannel, kind: str, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
        self._owner = owner
        self._kind = kind
        self._arguments = arguments
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        dialled = self._owner.dialled()
        if dialled.channel is not self._channel:
            self._call = getattr(dialled.channel, self._kind)(*self._arguments, **self._settings)
            self._channel = dialled.channel
        call = self._call(*arguments, **settings)
        dialled.began(call)
        return call
