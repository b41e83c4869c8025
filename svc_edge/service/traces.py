"""Follows drawn messages through this edge: a Send until its answer, a push until the socket and the receipt.

A message that is not drawn costs one comparison on its way in, and nothing on its way out: what is followed hangs on
the sessions that it concerns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chappe.runtime.tracing import Sampled, Tracing, kind_of, message_id_of
from svc_edge.protocol.traced import Handed, Traced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from chappe.runtime.tracing import Batch, Lots, Root
    from svc_edge.protocol.account import Settlement
    from svc_edge.protocol.session import Session

MOST_SESSIONS: Final = 16
"""So many sessions of one batch are followed, so that a message to a large group costs no more than others."""


class Traces:
    """The drawn messages that this edge has in hand."""

    def __init__(self, tracing: Tracing | None = None, lots: Lots | None = None) -> None:
        """Prepares; without lots none is drawn here."""
        self._tracing = tracing or Tracing()
        self._lots = lots
        self.next_send = 0 if lots is None else lots.after(0)
        """The number of the next Send that is drawn; 0 for none."""

    def now_ns(self) -> int:
        """Returns the time as spans tell it."""
        return self._tracing.now_ns()

    def begin(self, number: int, send: bytes) -> Root | None:
        """Begins the trace of a drawn Send, and draws the next lot; None when the Send names no message."""
        if self._lots is not None:
            self.next_send = self._lots.after(number)
        message_id = message_id_of(send)
        return self._tracing.begin("edge.send", message_id) if message_id else None

    def pushing(self, drawn: Sequence[Sampled], deliveries: int) -> AbstractContextManager[Batch | None]:
        """Returns the span of a batch of pushes with drawn messages."""
        return self._tracing.batch("edge.push", drawn, deliveries)

    def pushed(self, session: Session, item: bytes, key: bytes, flags: int, drawn: tuple[Sampled, ...]) -> None:
        """Learns that an item with drawn messages waits for the socket of a session."""
        if self._tracing.is_on and session.member is not None:
            traced = session.traced = session.traced or Traced()
            traced.hand(item, Handed(drawn, flags, is_own=key.endswith(session.member.user_id)))

    def written(self, session: Session, items: Sequence[bytes]) -> None:
        """Learns what goes to the socket of a session that has drawn messages in hand."""
        traced, member = session.traced, session.member
        if traced is None or member is None:
            return
        for item, handed in traced.written(items, self._tracing.now_ns()):
            kind = kind_of(item)
            for sampled in handed.drawn:
                self._tracing.hop("edge.deliver", sampled, item=kind, device_id=member.device_id, is_own=handed.is_own)
        _tidy(session, traced)

    def acknowledged(self, session: Session, settlement: Settlement) -> list[Sampled]:
        """Learns what the device of a session with drawn messages has stored; returns those, for the ledger."""
        traced, member = session.traced, session.member
        if traced is None or member is None:
            return []
        drawn = traced.acknowledged(settlement.keys)
        for sampled in drawn:
            self._tracing.hop("edge.receipt", sampled, device_id=member.device_id)
        _tidy(session, traced)
        return drawn


def _tidy(session: Session, traced: Traced) -> None:
    if traced.is_empty:
        session.traced = None
