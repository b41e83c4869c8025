"""Where everything arrives that edges say, and everything that svc_identity says by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError

if TYPE_CHECKING:
    from svc_presence.model import Changes, Edge, GroupId, TrackAnswer, UserId
    from svc_presence.ports import Feed
    from svc_presence.service.routes import Routes
    from svc_presence.service.typing import TypingRooms
    from svc_presence.service.watching import Watching


class Desk:
    """Passes on what arrives to whom it concerns; the directory's listener."""

    def __init__(self, routes: Routes, watching: Watching, rooms: TypingRooms) -> None:
        self._routes = routes
        self.watching = watching
        self.rooms = rooms

    async def track(self, edge: Edge, changes: Changes, sent_ms: int) -> TrackAnswer:
        """Writes what an edge said of its sessions at a time; those who watch their people learn of it.

        Raises:
            UnavailableError: The store does not answer; the edge sends its state again.
        """
        concerned = {connect.session.user_id for connect in changes.connects}
        concerned.update(session.user_id for session in changes.refreshes)
        gone = {session.user_id for session in changes.byes}
        try:
            answer = await self._routes.track(edge, changes, sent_ms)
        except ChappeError:
            self.watching.people.unsure(concerned | gone)
            raise
        refused = {
            connect.session.user_id
            for connect, answered in zip(changes.connects, answer.connects, strict=True)
            if answered.is_refused
        }
        # Somebody who was refused may have another session that lives; the store knows.
        self.watching.people.lived(concerned - refused)
        self.watching.people.left(gone)
        return answer

    def unwatch(self, feed: Feed, number: int) -> None:
        """Ends a watch of either kind."""
        self.watching.unwatch(feed, number)
        self.rooms.close(feed, number)

    def end(self, feed: Feed) -> None:
        """Ends every watch of an edge."""
        self.watching.end(feed)
        self.rooms.end(feed)

    def tick(self) -> None:
        """Does what is due; to be called several times a second."""
        self.watching.tick()
        self.rooms.tick()

    def user_changed(self, user_id: UserId) -> None:
        """Learns that settings, blocks or contacts of a user are new."""
        self.watching.user_changed(user_id)
        self.rooms.user_changed(user_id)

    def group_changed(self, group_id: GroupId) -> None:
        """Learns that the members of a group are new."""
        self.rooms.group_changed(group_id)

    def everything_changed(self) -> None:
        """Learns that changes may have been missed."""
        self.watching.everything_changed()
        self.rooms.everything_changed()
