"""Keeps one device connected to one of several edges for as long as that makes sense."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from chappe.client.budget import BELOW_EDGE, FrameRate
from chappe.client.changes import GoingAway
from chappe.client.device import NONCE_BYTES, Device, signed_hello
from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, SessionEndedError
from chappe.client.reconnect import Comeback, backoff_s, reconnect_policy
from chappe.client.seams import Seams
from chappe.client.tokens import Tokens
from chappe.client.wire import Closed, Wire, WireOptions, open_wire

WELCOME_S = 10.0
"""How long an edge may take to answer a Hello."""

GHOST_S = 60.0
"""For how long an edge may still come to read the Hello of an earlier connection, or a store to write down that it is
there: it would take the place of the present one."""

_RATE = 4100
_AUTH = 4401
_REPLACED = 4409
_OVERLOAD = 4101
_FINAL = frozenset(
    {"CALLER_NOT_ALLOWED", "DEVICE_NOT_FOUND", "INVALID_FIELD", "INVALID_PROOF", "MALFORMED", "METHOD_NOT_ALLOWED"}
)
"""Why a sign-in is refused for good; everything else passes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionOptions:
    """How a device stays connected."""

    receive_window: int = 0
    """How many events the edge may send ahead; zero takes the edge's own choice."""
    ping_s: float | None = 60.0
    """How often the server's time is asked for; None never."""
    rate: FrameRate = BELOW_EDGE
    """How many frames are sent; what is more waits. It is halved for a while when an edge says that it was too much."""
    wire: WireOptions = field(default_factory=WireOptions)
    """How each connection is made."""


def addresses_of(address: str | Sequence[str]) -> list[str]:
    """Returns the addresses in a list, or in a text with commas.

    Raises:
        ChappeClientError: There is none.
    """
    texts = address.split(",") if isinstance(address, str) else address
    found = [text.strip() for text in texts if text.strip()]
    if not found:
        raise ChappeClientError("no edge is named; give an address such as ws://127.0.0.1:7000")
    return found


class Connection:
    """Connects, resumes and comes back; any edge will do, and after a failure the next one is tried."""

    def __init__(
        self,
        engine: Engine,
        device: Device,
        addresses: Sequence[str],
        tokens: Tokens,
        seams: Seams,
        options: ConnectionOptions,
    ) -> None:
        """Makes a connection that starts when it is run.

        Args:
            engine: The device's engine.
            device: Signs the Hello.
            addresses: Of the edges.
            tokens: Where tokens come from.
            seams: Time and randomness.
            options: How to stay connected.
        """
        self._engine = engine
        self._device = device
        self._addresses = addresses
        self._tokens = tokens
        self._seams = seams
        self._options = options
        self._at = 0
        self._wire: Wire | None = None
        self._haunted_until_s = 0.0
        """Until then a newer connection of this device may be an older one of this client's own."""

    async def run(self) -> None:
        """Stays connected until the device is told not to come back.

        Raises:
            SessionEndedError: An edge closed with a code that says so.
            RefusedError: The device may not sign in.
            StoreError: The local store failed.
        """
        failures = 0
        # An earlier process of this device may have gone a moment ago.
        self._haunted_until_s = self._seams.clock.monotonic_s() + GHOST_S
        while True:
            closed = self._told(await self._session())
            if self._engine.failure is not None:
                raise self._engine.failure
            failures = 0 if self._engine.is_caught_up else failures + 1
            delay_s = self._delay_s(closed, failures)
            self._learn_rate(closed)
            if closed.code != _REPLACED:
                self._haunted_until_s = self._seams.clock.monotonic_s() + GHOST_S
            _log.info("disconnected (%d %s), back in %.1f s", closed.code, closed.detail, delay_s)
            if delay_s:
                await self._seams.clock.sleep(delay_s)

    def close(self, code: int = 1000, detail: str = "") -> None:
        """Ends the present session, if there is one."""
        if self._wire is not None:
            self._wire.close(code, detail)

    async def _session(self) -> Closed:
        """Goes through one session and returns how it ended; of one that never began, as broken."""
        address = self._addresses[self._at % len(self._addresses)]
        self._at += 1
        self._engine.is_caught_up = False
        self._engine.go_away = None
        try:
            wire = await self._open(address)
        except NotConnectedError as error:
            return Closed(1006, str(error))
        except SessionEndedError as error:
            return Closed(error.code, error.detail)
        except RefusedError as error:
            if error.reason in _FINAL:
                raise
            self._engine.go_away = GoingAway(_OVERLOAD, error.detail, error.retry_after_ms)
            return Closed(_OVERLOAD, str(error))
        try:
            return await self._ended(wire)
        finally:
            self._wire = None
            wire.close()
            self._engine.detach()

    async def _open(self, address: str) -> Wire:
        token = await self._tokens.get(address)
        wire = self._wire = await open_wire(address, self._engine, self._options.wire)
        core = self._engine.core
        server_ms = core.clock.estimate_ms(self._seams.clock.monotonic_s())
        nonce = self._seams.randomness.token(NONCE_BYTES)
        hello = signed_hello(
            self._device.hello(token, server_ms, nonce, wire.host),
            cursor=core.cursor,
            receive_window=self._options.receive_window,
            user_agent=self._options.wire.user_agent,
        )
        self._engine.attach(wire, hello)
        return wire

    async def _ended(self, wire: Wire) -> Closed:
        await asyncio.wait([wire.closed], timeout=WELCOME_S)
        if not self._engine.core.session.session_id:
            wire.abandon("no Welcome came")
        while not wire.closed.done():
            await asyncio.wait([wire.closed], timeout=self._options.ping_s)
            if not wire.closed.done():
                self._engine.ping()
        return wire.closed.result()

    def _learn_rate(self, closed: Closed) -> None:
        """Sends less after an edge has said that it was too much, and more again after one that said nothing."""
        if closed.code == _RATE:
            self._engine.core.budget.shrink()
        elif self._engine.is_caught_up:
            self._engine.core.budget.grow()

    def _told(self, closed: Closed) -> Closed:
        """Returns why a session ended: what the edge said before, if its close was lost with the connection."""
        go_away = self._engine.go_away
        if go_away is None or closed.code >= 4000:  # noqa: PLR2004 - CloseCode
            return closed
        return Closed(go_away.close_code, go_away.detail or closed.detail)

    def _delay_s(self, closed: Closed, failures: int) -> float:
        go_away = self._engine.go_away
        code = closed.code
        if code == _AUTH and not self._tokens.is_fresh:
            # The token was from earlier; a new one may do.
            self._tokens.drop()
            return backoff_s(failures - 1, self._seams.randomness)
        if code == _REPLACED and self._seams.clock.monotonic_s() < self._haunted_until_s:
            # What stood still has read only now what was said to it before this client went elsewhere.
            self._haunted_until_s = 0.0
            return backoff_s(1, self._seams.randomness)
        comeback = reconnect_policy(code)
        if comeback is Comeback.NEVER:
            raise SessionEndedError(code, closed.detail or (go_away.detail if go_away is not None else ""))
        if comeback is Comeback.AFTER_DELAY:
            failures = max(1, failures)
        delay_s = backoff_s(failures, self._seams.randomness)
        return max(delay_s, go_away.delay_ms / 1000) if go_away is not None else delay_s
