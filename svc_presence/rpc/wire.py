"""Wire types to model and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chappe.api.presence.v1 import presence_service_pb2, track_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2
from chappe.runtime.conversation import direct_conversation
from chappe.runtime.errors import InvalidFieldError
from svc_presence.model import (
    Changes,
    Conversation,
    ConversationId,
    DeviceId,
    Edge,
    GroupId,
    NewSession,
    Session,
    SessionId,
    Typing,
    TypingKind,
    UserId,
)

if TYPE_CHECKING:
    from svc_presence.model import ConnectAnswer, Located, Typist
    from svc_presence.protocol.news import Bulletin


def to_changes(batch: track_pb2.TrackBatch, waited_ms: int) -> Changes:
    """Returns what a batch that has waited for so long says of sessions, in the words of the model."""
    return Changes(
        [NewSession(_session(one.session), one.nonce, one.age_ms + waited_ms) for one in batch.connects],
        [_session(ref) for ref in batch.refreshes],
        [_session(ref) for ref in batch.byes],
    )


def to_result(item_id: int, answer: ConnectAnswer) -> track_pb2.ConnectResult:
    """Returns what an edge is told of a connect."""
    if answer.is_refused:
        reason = error_reason_pb2.ERROR_REASON_INVALID_PROOF
        return track_pb2.ConnectResult(item_id=item_id, refused_reason=reason)
    return track_pb2.ConnectResult(item_id=item_id, replaced_session_id=answer.replaced_session_id)


def to_typing(signal: track_pb2.TypingSignal) -> Typing:
    """Returns what somebody says of its own writing; a kind of a later version is read as text."""
    user_id = UserId(signal.user_id)
    kind = TypingKind.RECORDING if signal.kind == presence_pb2.TYPING_KIND_RECORDING else TypingKind.TEXT
    return Typing(user_id, conversation_of(user_id, signal.conversation), kind, signal.is_over)


def conversation_of(user_id: UserId, ref: presence_pb2.ConversationRef) -> Conversation:
    """Returns the conversation that a user names.

    Raises:
        InvalidFieldError: It names none.
    """
    if ref.group_id:
        return Conversation(ConversationId(ref.group_id), GroupId(ref.group_id))
    if not ref.peer_user_id:
        raise InvalidFieldError("conversation", "must have peer_user_id or group_id set")
    return Conversation(ConversationId(direct_conversation(user_id, ref.peer_user_id)), None)


def to_typist(typist: Typist) -> presence_pb2.Typist:
    """Returns the wire form of somebody who is writing."""
    kind: Any = int(typist.kind)
    return presence_pb2.Typist(user_id=typist.user_id, kind=kind)


def to_news(bulletin: Bulletin) -> track_pb2.TrackNews:
    """Returns the wire form of news."""
    presences = [
        track_pb2.PresenceNews(watch_numbers=numbers, state=int(view.presence), last_seen_ms=view.last_seen_ms)  # type: ignore[arg-type]  # the numbers are the contract's
        for view, numbers in bulletin.presences.items()
    ]
    typing = [
        track_pb2.TypingNews(watch_numbers=numbers, typists=[to_typist(typist) for typist in typists])
        for typists, numbers in bulletin.typing.items()
    ]
    return track_pb2.TrackNews(presences=presences, typing=typing)


def to_response(located: list[Located]) -> presence_service_pb2.LocateResponse:
    """Returns routes as columns."""
    edges: dict[Edge, int] = {}
    edge_indexes = [edges.setdefault(one.edge, len(edges)) for one in located]
    return presence_service_pb2.LocateResponse(
        user_indexes=[one.user_index for one in located],
        device_ids=[one.device_id for one in located],
        session_ids=[one.session_id for one in located],
        edge_indexes=edge_indexes,
        edge_ids=[edge.edge_id for edge in edges],
        boot_ids=[edge.boot_id for edge in edges],
    )


def _session(ref: track_pb2.SessionRef) -> Session:
    return Session(UserId(ref.user_id), DeviceId(ref.device_id), SessionId(ref.session_id))
