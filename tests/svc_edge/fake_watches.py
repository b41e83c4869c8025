"""What a fake of svc_presence notes of watches and typing, and how it tells news."""

import asyncio
from collections.abc import Iterable
from typing import Any

from chappe.api.presence.v1 import track_pb2
from chappe.api.type.v1 import presence_pb2


class FakeWatches:
    """The watches of all edges."""

    def __init__(self) -> None:
        self.watches: dict[int, tuple[bytes, bytes]] = {}
        """Viewer and target by number."""
        self.openings: dict[int, tuple[bytes, bytes]] = {}
        """Viewer, and peer or group, by number."""
        self.ended: list[int] = []
        self.typings: list[tuple[bytes, bytes, int, bool]] = []
        self.news_credit = 0
        self.track_contexts: list[Any] = []
        self._writing = asyncio.Lock()

    def take_watches(self, batch: track_pb2.TrackBatch) -> None:
        """Notes what a batch says of watches and typing."""
        for watch in batch.watches:
            self.watches[watch.number] = watch.viewer_user_id, watch.target_user_id
        for opening in batch.openings:
            self.openings[opening.number] = opening.viewer_user_id, _named(opening.conversation)
        for number in batch.unwatches:
            self.watches.pop(number, None)
            self.openings.pop(number, None)
            self.ended.append(number)
        self.typings += [(one.user_id, _named(one.conversation), one.kind, one.is_over) for one in batch.typing]
        self.news_credit += batch.news_credit

    async def tell(self, numbers: Iterable[int], state: int, last_seen_ms: int = 0) -> None:
        """Tells watches how their person is."""
        news = track_pb2.PresenceNews(watch_numbers=numbers, state=state, last_seen_ms=last_seen_ms)  # type: ignore[arg-type]  # any number may come
        await self.write(self.track_contexts[-1], track_pb2.TrackResponse(news=track_pb2.TrackNews(presences=[news])))

    async def tell_typing(self, numbers: Iterable[int], *user_ids: bytes) -> None:
        """Tells watches who is writing in their conversation."""
        typists = [presence_pb2.Typist(user_id=user_id, kind=presence_pb2.TYPING_KIND_TEXT) for user_id in user_ids]
        news = track_pb2.TrackNews(typing=[track_pb2.TypingNews(watch_numbers=numbers, typists=typists)])
        await self.write(self.track_contexts[-1], track_pb2.TrackResponse(news=news))

    async def write(self, context: Any, response: track_pb2.TrackResponse) -> None:
        """Writes to a stream; gRPC refuses a second write while the first is under way."""
        async with self._writing:
            await context.write(response)


def _named(ref: presence_pb2.ConversationRef) -> bytes:
    return ref.group_id or ref.peer_user_id
