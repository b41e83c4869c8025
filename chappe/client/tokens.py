"""Access tokens: fetched with the device's key over an anonymous session, kept until shortly before they end."""

from collections.abc import Callable
from typing import NamedTuple

from chappe.client.device import NONCE_BYTES, Device
from chappe.client.door import Door
from chappe.client.methods import CREATE_SESSION
from chappe.client.mint import ServerClock
from chappe.client.seams import Seams
from chappe.client.wire import WireOptions

REFRESH_BEFORE_MS = 60_000


class Token(NamedTuple):
    """An access token and when it ends, in Unix milliseconds of the server."""

    access_token: str
    expire_ms: int


class Tokens:
    """Gives out a token that still holds for a while."""

    def __init__(
        self,
        device: Device,
        clock: ServerClock,
        seams: Seams,
        options: WireOptions,
        keep: Callable[[Token | None], None] | None = None,
    ) -> None:
        """Makes a source.

        Args:
            device: Whose tokens.
            clock: The estimate of the server's time; learns from every anonymous session.
            seams: Time and randomness.
            options: How to connect.
            keep: Told each new token, and None when one proved useless, to keep it across processes.
        """
        self._device = device
        self._clock = clock
        self._seams = seams
        self._options = options
        self._keep = keep
        self._token: Token | None = None
        self.is_fresh = False
        """The last token given out was fetched for it: a refusal is not due to its age."""

    def use(self, token: Token | None) -> None:
        """Takes a token that was kept from earlier."""
        self._token = token

    def drop(self) -> None:
        """Forgets the token: an edge refused it."""
        self._token = None
        if self._keep is not None:
            self._keep(None)

    async def get(self, address: str) -> str:
        """Returns a token, from the edge at this address if there is none that holds.

        Raises:
            NotConnectedError: The edge does not answer.
            RefusedError: The device may not sign in.
        """
        token = self._token
        now_ms = self._clock.estimate_ms(self._seams.clock.monotonic_s())
        self.is_fresh = token is None or token.expire_ms - REFRESH_BEFORE_MS <= now_ms
        if token is None or self.is_fresh:
            token = self._token = await self._fetch(address)
            if self._keep is not None:
                self._keep(token)
        return token.access_token

    async def _fetch(self, address: str) -> Token:
        async with Door(address, self._seams, self._clock, self._options) as door:
            server_ms = self._clock.estimate_ms(self._seams.clock.monotonic_s())
            nonce = self._seams.randomness.token(NONCE_BYTES)
            answer = await door.call(CREATE_SESSION, self._device.session_request(server_ms, nonce))
        return Token(answer.access_token, answer.expire_ms)
