"""Whom a device watches and which chats it looks at: the part of the core that is no part of the log.

Nothing of it is stored, and an edge knows it for one session only: after every Welcome all of it is said again, and
with the end of a session all that was told no longer holds.
"""

from collections.abc import Iterable

from chappe.api.edge.v1 import client_frame_pb2, server_frame_pb2
from chappe.api.type.v1 import presence_pb2
from chappe.client.changes import PresenceTold, Told, TypingTold, WatchesRefused
from chappe.client.destination import Destination, to_group, to_person
from chappe.client.outbox import reason_name
from chappe.client.recorder import Recorder
from chappe.client.recording import record_presences

MOST_CHATS = 32
"""So many chats an edge lets a session look at."""

_UNKNOWN = presence_pb2.PRESENCE_STATE_UNKNOWN


class Watches:
    """What one device wants to be told, and what it was told in this session."""

    def __init__(self, user_id: bytes, recorder: Recorder | None = None) -> None:
        """Begins with nothing; what is shown of people is written down by the recorder, if there is one."""
        self._user_id = user_id
        self._wanted: dict[bytes, None] = {}
        self._chats: tuple[Destination, ...] = ()
        self._told: dict[bytes, int] = {}
        self._typing: dict[Destination, tuple[tuple[bytes, int], ...]] = {}
        self._frames: list[bytes] = []
        self._is_online = False
        self._recorder = recorder

    @property
    def chats(self) -> tuple[Destination, ...]:
        """The chats that are looked at."""
        return self._chats

    def watch(self, user_ids: Iterable[bytes]) -> None:
        """Asks to be told of people."""
        new = [user_id for user_id in user_ids if user_id not in self._wanted]
        self._wanted.update(dict.fromkeys(new))
        if new:
            self._say(client_frame_pb2.ClientFrame(watch=client_frame_pb2.Watch(user_ids=new)))

    def unwatch(self, user_ids: Iterable[bytes]) -> None:
        """Asks to be told of people no more."""
        gone = [user_id for user_id in user_ids if user_id in self._wanted]
        for user_id in gone:
            del self._wanted[user_id]
            self._told.pop(user_id, None)
        if gone:
            self._say(client_frame_pb2.ClientFrame(unwatch=client_frame_pb2.Unwatch(user_ids=gone)))

    def look_at(self, chats: Iterable[Destination]) -> None:
        """Asks to be told who is typing in these chats, the first 32 of them, and in no others."""
        self._chats = tuple(dict.fromkeys(chats))[:MOST_CHATS]
        self._typing = {chat: typists for chat, typists in self._typing.items() if chat in self._chats}
        self._say(_opened(self._chats))

    def type(self, chat: Destination, kind: int, *, is_over: bool) -> None:
        """Says that the user is writing, or no longer; of no use without a session, and then forgotten."""
        typing = client_frame_pb2.Typing(conversation=_ref(chat), kind=kind, is_over=is_over)  # type: ignore[arg-type]  # the numbers are the contract's
        self._say(client_frame_pb2.ClientFrame(typing=typing))

    def online(self) -> None:
        """Says everything to the edge of a new session."""
        self._is_online = True
        if self._wanted:
            self._say(client_frame_pb2.ClientFrame(watch=client_frame_pb2.Watch(user_ids=self._wanted)))
        if self._chats:
            self._say(_opened(self._chats))

    def offline(self) -> list[Told]:
        """Learns that the session has ended; returns what no longer holds."""
        self._is_online = False
        self._frames = []
        told, self._told = self._told, {}
        typing, self._typing = self._typing, {}
        unknown = [PresenceTold(user_id, _UNKNOWN, 0) for user_id, state in told.items() if state != _UNKNOWN]
        return [*unknown, *(TypingTold(chat, ()) for chat, typists in typing.items() if typists)]

    def take_frames(self) -> list[bytes]:
        """Returns what is to be sent."""
        frames, self._frames = self._frames, []
        return frames

    def presences(self, delta: server_frame_pb2.PresenceDelta) -> list[PresenceTold]:
        """Takes how watched people are; what is said of others was on its way when they were watched."""
        known = [one for one in delta.presences if one.user_id in self._wanted]
        self._told.update((one.user_id, one.state) for one in known)
        told = [PresenceTold(one.user_id, one.state, one.last_seen_ms) for one in known]
        if self._recorder is not None:
            record_presences(self._recorder, told)
        return told

    def typing(self, delta: server_frame_pb2.TypingDelta) -> list[Told]:
        """Takes who is typing."""
        changes: list[Told] = []
        for one in delta.conversations:
            chat = self._chat(one.conversation)
            if chat in self._chats:
                self._typing[chat] = tuple((typist.user_id, typist.kind) for typist in one.typists)
                changes.append(TypingTold(chat, self._typing[chat]))
        return changes

    def refused(self, refused: server_frame_pb2.WatchRefused) -> list[Told]:
        """Takes who is not watched; whoever is still wanted is to be asked for again."""
        user_ids = tuple(refused.user_ids)
        for user_id in user_ids:
            self._wanted.pop(user_id, None)
        return [WatchesRefused(user_ids, reason_name(refused.reason), refused.detail, refused.retry_after_ms)]

    def _say(self, frame: client_frame_pb2.ClientFrame) -> None:
        if self._is_online:
            self._frames.append(frame.SerializeToString())

    def _chat(self, ref: presence_pb2.ConversationRef) -> Destination:
        return to_group(ref.group_id) if ref.group_id else to_person(self._user_id, ref.peer_user_id)


def _opened(chats: Iterable[Destination]) -> client_frame_pb2.ClientFrame:
    opened = client_frame_pb2.OpenConversation(conversations=map(_ref, chats))
    return client_frame_pb2.ClientFrame(open_conversation=opened)


def _ref(chat: Destination) -> presence_pb2.ConversationRef:
    if chat.group_id:
        return presence_pb2.ConversationRef(group_id=chat.group_id)
    return presence_pb2.ConversationRef(peer_user_id=chat.peer_id)
