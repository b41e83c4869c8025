"""What the edge needs from outside: the socket of a client, and the four services behind it.

The ports of services never wait on the message path. What comes back by itself goes to a listener, which the rules
implement and the composition root hands over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chappe.runtime.tracing import Root, Sampled
    from svc_edge.errors import Closing
    from svc_edge.model import (
        ConnectOutcome,
        DeviceId,
        InboxAnswer,
        InboxQuery,
        Member,
        RateClass,
        Revocation,
        SessionId,
        SessionRef,
        Topic,
        Typing,
        Typist,
        UserId,
        Verdict,
        View,
    )


class Door(Protocol):
    """The client's end of a session."""

    def ping(self) -> None:
        """Asks for a sign of life."""
        ...

    def flush(self) -> None:
        """Writes what waits."""
        ...

    def warn(self, closing: Closing) -> None:
        """Says GoAway and takes no more frames, but still writes answers."""
        ...

    def close(self, closing: Closing) -> None:
        """Writes what waits, says why, and closes; may be called twice."""
        ...

    def close_soon(self, closing: Closing) -> None:
        """Warns now and closes half a second later, so that answers that are on their way still arrive."""
        ...


class Ledger(Protocol):
    """svc_message: makes Sends durable and reads logs."""

    def send(self, session_id: SessionId, member: Member, send: bytes, root: Root | None = None) -> None:
        """Hands over a serialised Send; the answer comes to the listener.

        The trace of a drawn one goes along, and its root ends with the answer.
        """
        ...

    def acknowledge(self, session_id: SessionId, member: Member, keys: bytes, drawn: Sequence[Sampled] = ()) -> int:
        """Hands over what a device stored; returns a number that the listener is told when that is durable.

        The traces of the drawn messages among it go along.
        """
        ...

    async def sync(self, queries: Sequence[InboxQuery]) -> list[InboxAnswer]:
        """Reads on in many logs; raises `UnavailableError`, and `TooLargeError` when less is to be asked for."""
        ...


class LedgerListener(Protocol):
    """Takes what the ledger answers."""

    def answered(self, session_id: SessionId, verdict: Verdict, frame: bytes) -> None:
        """Takes the answer to a Send as the frame that goes to the client."""
        ...

    def confirmed(self, session_id: SessionId, ack_id: int) -> None:
        """Learns that receipts are durable."""
        ...


class Carriers(Protocol):
    """Everyone who pushes to this edge: svc_fanout."""

    def arrived(self, user_id: UserId) -> None:
        """Tells that a session of a user has begun here, so that nobody relies on where the user was before."""
        ...


class Registry(Protocol):
    """svc_presence: knows which session of a device is where."""

    async def connect(self, session: SessionRef, nonce: bytes, age_s: float) -> ConnectOutcome | None:
        """Registers a session that began so long ago; None when the registry does not answer within 2 s."""
        ...

    def refresh(self, session: SessionRef) -> None:
        """Says that a session lives."""
        ...

    def bye(self, session: SessionRef) -> None:
        """Says that a session ended."""
        ...


class RegistryListener(Protocol):
    """Takes what the registry says by itself."""

    def replaced(self, session_id: SessionId) -> None:
        """Learns that the device of a session has a newer one elsewhere."""
        ...

    def registry_forgot(self) -> None:
        """Learns that the registry may not know the sessions any more: they are to be refreshed."""
        ...


class Watches(Protocol):
    """svc_presence: who is there, and who is writing. What it has to say goes to the listener."""

    def subscribe(self, topic: Topic) -> None:
        """Begins to be told of a topic."""
        ...

    def unsubscribe(self, topic: Topic) -> None:
        """Stops being told of a topic."""
        ...

    def type(self, typing: Typing) -> None:
        """Says that somebody is writing, or no longer; lost where nobody answers."""
        ...


class WatchListener(Protocol):
    """Takes what svc_presence says of topics."""

    def told(self, topic: Topic, state: View | tuple[Typist, ...]) -> None:
        """Learns how a person is, or who is writing in a conversation."""
        ...

    def lost(self, topics: Sequence[Topic]) -> None:
        """Learns that nobody can say any more."""
        ...


class Identity(Protocol):
    """svc_identity: who may sign in."""

    @property
    def watched_since_s(self) -> float:
        """Every revocation since this Unix time is known; infinity while changes are not watched."""
        ...

    async def signing_keys(self, *, is_fresh_wanted: bool) -> Mapping[str, bytes]:
        """Returns the public keys by id, the known ones or those of now; raises `UnavailableError` without either."""
        ...

    async def generation(self, user_id: UserId, device_id: DeviceId) -> int:
        """Returns the generation of a device, -1 when it is not linked; raises `UnavailableError`."""
        ...


class IdentityListener(Protocol):
    """Takes what svc_identity says by itself."""

    def revoked(self, revocation: Revocation) -> None:
        """Learns that a sign-in session was ended."""
        ...

    def revocations_lost(self) -> None:
        """Learns that revocations may have been missed: everybody has to sign in again."""
        ...


class Bridge(Protocol):
    """The unary methods that are open to clients, by the contract alone."""

    def rate_class(self, method: str) -> RateClass:
        """Returns the budget that a call of a method is charged to; that of reads for a method that nobody has."""
        ...

    async def call(self, method: str, payload: bytes, member: Member | None, address: str) -> bytes:
        """Forwards a call and returns the serialised response.

        Methods that are open to clients without a user are told where a client comes from, also one with a user.
        Raises `MethodNotAllowedError` when the contract does not open the method to this client, `InvalidFieldError`
        when the payload is not a request, and what the service refused with.
        """
        ...
