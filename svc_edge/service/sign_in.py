"""Opens sessions: verifies who is there, registers the route, says Welcome, and begins to read the log."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.batching import MAX_BATCH_ITEMS
from chappe.runtime.errors import ChappeError, RateLimitedError, UnavailableError
from svc_edge.errors import CloseCode, Closing, InvalidProofError, InvalidTokenError, SessionRevokedError
from svc_edge.model import Member, Welcome
from svc_edge.protocol.delivery import Reading
from svc_edge.protocol.session import NEVER, Phase
from svc_edge.service.sessions import ref_of
from svc_edge.service.tokens import Nonces, Revocations, check_proof, key_id_of, read_claims

if TYPE_CHECKING:
    from chappe.runtime.clock import Seams
    from svc_edge.model import Claims, Hello, SessionId, SignedHello
    from svc_edge.ports import Carriers, Identity, Registry
    from svc_edge.protocol.session import Limits, Session
    from svc_edge.service.reading import LogReader
    from svc_edge.service.sessions import Sessions

LISTEN_S = 0.001
"""For how long a connection is listened to before its session takes the place of an older one: a turn of the loop."""
ASK_AGAIN_S = 5.0
"""When svc_identity has not said whether the sign-ins of sessions stand, it is asked again after this time."""
_REPLACED = Closing(CloseCode.REPLACED, "a newer connection of this device took over")

_log = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Where a connection comes from and which host it dialled."""

    address: str
    host: str


class AnonymousLimits(NamedTuple):
    """How many connections without a user there may be."""

    per_address: int
    in_all: int


class SignIn:
    """The rules of the first frame."""

    carriers: Carriers
    """Are told who has arrived; set before the first client is let in."""

    def __init__(
        self,
        sessions: Sessions,
        reader: LogReader,
        registry: Registry,
        identity: Identity,
        *,
        seams: Seams,
        terms: tuple[Limits, AnonymousLimits, frozenset[str]],
    ) -> None:
        """Prepares.

        Args:
            sessions: The table.
            reader: Reads the log of whoever is let in.
            registry: Where routes are registered and nonces are used up.
            identity: Whose keys sign tokens.
            seams: Clock and randomness.
            terms: The limits of a connection, of anonymous ones, and the hosts that a proof may name besides the one
                that was dialled.
        """
        self._sessions = sessions
        self._reader = reader
        self._registry = registry
        self._identity = identity
        self._clock = seams.clock
        self._limits, self._anonymous_limits, self._hosts = terms
        self._nonces = Nonces()
        self._anonymous: dict[str, int] = {}
        self._unsure: dict[SessionId, Claims] = {}
        """What the tokens of sessions say that were let in without an answer that holds."""
        self.revocations = Revocations()

    async def sign_in(self, session: Session, hello: Hello, caller: Caller) -> None:
        """Opens the session, or closes the connection and says why."""
        try:
            if hello.signed is None:
                self._count_anonymous(caller.address)
                session.expires_s = 0.0
            else:
                await self._admit(session, hello, hello.signed, caller)
        except RateLimitedError as error:
            session.door.close(Closing(CloseCode.OVERLOAD, error.message, error.retry_after_ms))
        except UnavailableError as error:
            _log.warning("nobody can be signed in: %s", error)
            session.door.close(Closing(CloseCode.OVERLOAD, error.message, error.retry_after_ms))
        except ChappeError as error:
            session.door.close(Closing(CloseCode.AUTH, f"{error.reason}: {error.message}"))
        else:
            if session.phase is Phase.SIGNING_IN:
                self._welcome(session)

    async def register_late(self, session: Session) -> None:
        """Registers a session that was signed in while svc_presence did not answer, and reads its log.

        A refresh would not do: the route of an older session may still stand, and it would win. Nothing was pushed to
        the session so far.
        """
        try:
            await self._register(session)
        except ChappeError as error:
            session.door.close(Closing(CloseCode.AUTH, f"{error.reason}: {error.message}"))
            return
        if not session.route_nonce and session.phase is Phase.LIVE:
            session.plan_first_verify(self._sessions.now_s, self._sessions.jitter())
            self._sessions.plan(session)
            session.delivery.request_pass(Reading.VERIFY)
            self._reader.pump(session)

    async def ask_again(self) -> None:
        """Asks svc_identity about everybody who was let in without an answer, and closes those who were revoked.

        Returns when it does not answer; whoever is left then is asked about the next time.
        """
        # An answer holds only where what is revoked after it is heard of.
        while self._unsure and self._identity.watched_since_s < NEVER:
            some = list(itertools.islice(self._unsure.items(), MAX_BATCH_ITEMS))
            if not all(await asyncio.gather(*(self._make_sure(session_id, claims) for session_id, claims in some))):
                _log.warning("%d sessions go on without their devices' generations", len(self._unsure))
                return

    def forget(self, session: Session) -> None:
        """Learns that a connection is gone, about which nobody need be asked any more."""
        self._unsure.pop(session.session_id, None)

    def release(self, address: str) -> None:
        """Gives back the place of an anonymous connection."""
        left = self._anonymous.get(address, 0) - 1
        if left > 0:
            self._anonymous[address] = left
        else:
            self._anonymous.pop(address, None)

    async def _admit(self, session: Session, hello: Hello, signed: SignedHello, caller: Caller) -> None:
        claims = await self._verify(signed, caller.host)
        try:
            # Revocations since the changes are watched are known; for an older token svc_identity is asked.
            is_sure = claims.issued_s >= self._identity.watched_since_s or await self._check_generation(claims)
        except UnavailableError as error:
            _log.warning("signing in without the device's generation: %s", error)
            is_sure = False
        # A Hello that was held up may have the end of its connection right behind it, since its device has gone
        # elsewhere by now: that is read first.
        await asyncio.sleep(LISTEN_S)
        if session.phase >= Phase.CLOSING:
            # It has ended meanwhile, and a route of it would end the next one of its device.
            return
        if not is_sure:
            self._unsure[session.session_id] = claims
        member = Member(claims.user_id, claims.device_id, claims.sign_in_id)
        session.begin_delivery(member, hello.cursor, hello.receive_window)
        if not self._sessions.arrive(session):
            session.door.close(_REPLACED)
            return
        session.delivery.request_pass(Reading.CATCH_UP)
        session.route_nonce = signed.nonce
        await self._register(session)
        self.revocations.check(claims)
        older = self._sessions.adopt(session) if session.phase is Phase.SIGNING_IN else None
        if older is not None:
            older.door.close(_REPLACED)

    async def _verify(self, signed: SignedHello, host: str) -> Claims:
        key_id = key_id_of(signed.access_token)
        keys = await self._identity.signing_keys(is_fresh_wanted=False)
        if key_id not in keys:
            keys = await self._identity.signing_keys(is_fresh_wanted=True)
        if key_id not in keys:
            raise InvalidTokenError(f"the access token is signed with the key {key_id!r}, which is not a current one")
        claims = read_claims(signed.access_token, keys[key_id], self._clock.wall_ms() / 1000)
        check_proof(signed, claims, self._hosts | {host}, self._clock.wall_ms())
        self._nonces.use(signed.nonce, self._clock.monotonic_s())
        self.revocations.check(claims)
        return claims

    async def _check_generation(self, claims: Claims) -> bool:
        """Asks whether a sign-in stands; returns false when it would not be heard of if that changed."""
        is_watched = self._identity.watched_since_s < NEVER
        generation = await self._identity.generation(claims.user_id, claims.device_id)
        if generation < 0:
            raise SessionRevokedError("the device was unlinked: register or link it again")
        if claims.generation < generation:
            raise SessionRevokedError("the sign-in session of this access token was ended: sign in again")
        return is_watched

    async def _make_sure(self, session_id: SessionId, claims: Claims) -> bool:
        """Asks about a session that was let in; returns whether there was an answer that holds."""
        try:
            if not await self._check_generation(claims):
                return False
        except UnavailableError:
            return False
        except SessionRevokedError as error:
            session = self._sessions.by_id.get(session_id)
            if session is not None:
                session.door.close(Closing(CloseCode.AUTH, f"{error.reason}: {error.message}"))
        self._unsure.pop(session_id, None)
        return True

    async def _register(self, session: Session) -> None:
        ref = ref_of(session)
        if ref is None:
            return
        age_s = self._clock.monotonic_s() - session.opened_s
        outcome = await self._registry.connect(ref, session.route_nonce, age_s)
        if session.phase >= Phase.CLOSING:
            self._registry.bye(ref)
        if outcome is None:
            _log.warning("session %d is signed in without a route: svc_presence does not answer", ref.session_id)
            return
        if outcome.refusal:
            raise InvalidProofError(f"svc_presence refused the session with {outcome.refusal}: sign a new Hello")
        session.route_nonce = b""
        # Before the log is read: what is accepted from now on finds the session.
        self.carriers.arrived(ref.user_id)
        replaced = self._sessions.by_id.get(outcome.replaced_session_id)
        if replaced is not None and replaced is not session:
            replaced.door.close(_REPLACED)

    def _count_anonymous(self, address: str) -> None:
        limits = self._anonymous_limits
        mine = self._anonymous.get(address, 0)
        if mine >= limits.per_address or sum(self._anonymous.values()) >= limits.in_all:
            raise RateLimitedError("anonymous connections", retry_after_ms=10_000)
        self._anonymous[address] = mine + 1

    def _welcome(self, session: Session) -> None:
        session.begin_live(self._sessions.now_s, self._sessions.jitter())
        session.frames.append(
            Welcome(session.session_id, session.member, self._limits.send_window, session.delivery.window)
        )
        self._sessions.plan(session)
        self._sessions.mark(session)
        self._reader.pump(session)
