"""The rules of routes: which sessions stand, and where people are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_presence.model import NONCE_BYTES, Changes, ConnectAnswer, Connected, TrackAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.model import Edge, Located, NewSession, Route, UserId
    from svc_presence.ports import PresenceStore

REFUSED = ConnectAnswer(is_refused=True, replaced_session_id=0)


class Routes:
    """Decides what edges and fanout are told."""

    def __init__(self, store: PresenceStore) -> None:
        self._store = store

    async def track(self, edge: Edge, changes: Changes, sent_ms: int) -> TrackAnswer:
        """Writes what an edge said of its sessions at a time, and returns which connects fail and whom it must close.

        A connect whose nonce has the wrong length is refused like one whose nonce was used: its Hello proves nothing.

        Raises:
            UnavailableError: The store does not answer; the edge sends its state again.
        """
        proven = [connect for connect in changes.connects if _has_nonce(connect)]
        written = await self._store.write(edge, Changes(proven, changes.refreshes, changes.byes), sent_ms)
        answers = iter(written.connects)
        return TrackAnswer(
            [_answer(edge, next(answers)) if _has_nonce(connect) else REFUSED for connect in changes.connects],
            [session.session_id for session in written.replaced],
        )

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        """Returns the live routes of users, after forgetting the routes that were found gone.

        Raises:
            UnavailableError: The store does not answer.
        """
        if not user_ids and not gone:
            return []
        return await self._store.locate(user_ids, gone)


def _has_nonce(connect: NewSession) -> bool:
    return len(connect.nonce) == NONCE_BYTES


def _answer(edge: Edge, connected: Connected) -> ConnectAnswer:
    if connected.is_refused:
        return REFUSED
    replaced = connected.replaced
    # A session number means something on its own edge only: that of another boot could be anybody's here.
    is_here = replaced is not None and replaced.edge == edge
    return ConnectAnswer(is_refused=False, replaced_session_id=replaced.session_id if replaced and is_here else 0)
