"""The frames of presence and typing: what clients say in the words of the model, and what they are told as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.type.v1 import presence_pb2
from chappe.runtime.errors import reason_value
from svc_edge.errors import CloseCode, SessionClosed
from svc_edge.model import PresenceDelta, TypingDelta, TypingKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.api.edge.v1 import client_frame_pb2
    from svc_edge.model import Conversation, PresenceFrame
    from svc_edge.protocol.session import Session
    from svc_edge.service.watching import Ref, Watching


def _take_typing(watching: Watching, session: Session, frame: client_frame_pb2.ClientFrame) -> None:
    typing = frame.typing
    # A kind of a later version is read as text.
    is_recording = typing.kind == presence_pb2.TYPING_KIND_RECORDING
    kind = TypingKind.RECORDING if is_recording else TypingKind.TEXT
    watching.type(session, _ref(typing.conversation), kind, is_over=typing.is_over)


def _take_watch(watching: Watching, session: Session, frame: client_frame_pb2.ClientFrame) -> None:
    watching.watch(session, frame.watch.user_ids)


def _take_unwatch(watching: Watching, session: Session, frame: client_frame_pb2.ClientFrame) -> None:
    watching.unwatch(session, frame.unwatch.user_ids)


def _take_open(watching: Watching, session: Session, frame: client_frame_pb2.ClientFrame) -> None:
    watching.open(session, [_ref(one) for one in frame.open_conversation.conversations])


TAKING: dict[str | None, Callable[[Watching, Session, client_frame_pb2.ClientFrame], None]] = {
    "typing": _take_typing,
    "watch": _take_watch,
    "unwatch": _take_unwatch,
    "open_conversation": _take_open,
}
"""What is done with a frame of a client, by its kind; each raises `SessionClosed`."""


def presence_frame(frame: PresenceFrame) -> server_frame_pb2.ServerFrame:
    """Returns what a client is told as its message of the contract."""
    made = server_frame_pb2.ServerFrame()
    if isinstance(frame, PresenceDelta):
        for user_id, view in frame.views.items():
            state: Any = int(view.presence)
            made.presence_delta.presences.add(user_id=user_id, state=state, last_seen_ms=view.last_seen_ms)
    elif isinstance(frame, TypingDelta):
        for conversation, typists in frame.typists.items():
            told = made.typing_delta.conversations.add(conversation=_wire_ref(conversation))
            for user_id, number in typists:
                kind: Any = int(number)
                told.typists.add(user_id=user_id, kind=kind)
    else:
        made.watch_refused.CopyFrom(
            server_frame_pb2.WatchRefused(
                reason=reason_value(frame.reason),
                detail=frame.detail,
                user_ids=frame.user_ids,
                retry_after_ms=frame.retry_after_ms,
            )
        )
    return made


def _ref(ref: presence_pb2.ConversationRef) -> Ref:
    if not (ref.peer_user_id or ref.group_id):
        raise SessionClosed(CloseCode.MALFORMED, "conversation: must have peer_user_id or group_id set")
    return ref.peer_user_id, ref.group_id


def _wire_ref(conversation: Conversation) -> presence_pb2.ConversationRef:
    if conversation.group_id:
        return presence_pb2.ConversationRef(group_id=conversation.group_id)
    return presence_pb2.ConversationRef(peer_user_id=conversation.peer_id)
