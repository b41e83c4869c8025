"""Inboxes in memory, for tests."""

from collections.abc import Sequence

from chappe.runtime.errors import UnavailableError
from svc_identity.model import UserId
from svc_identity.ports import InboxEvent


class MemoryInbox:
    """Keeps what users are told; drops what it was told before, as svc_message and devices do."""

    def __init__(self) -> None:
        self.events: dict[tuple[bytes, UserId], InboxEvent] = {}
        self.failures_left = 0

    async def append(self, events: Sequence[InboxEvent]) -> None:
        """Keeps the events, unless it was told to fail a few times first."""
        if self.failures_left:
            self.failures_left -= 1
            raise UnavailableError("svc_message", "does not answer")
        for event in events:
            for recipient in event.recipients:
                self.events[event.change_id, recipient] = event

    def of(self, user_id: UserId) -> list[InboxEvent]:
        """Returns what one user was told, in order."""
        return [event for (_, recipient), event in self.events.items() if recipient == user_id]
