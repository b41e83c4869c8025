"""What the carrier knows: hints, where devices are, and what is on its way to them.

Made once for every message, so everything here is a `NamedTuple` over plain bytes and ints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NewType

from chappe.runtime.tracing import Sampled

UserId = NewType("UserId", bytes)


class Hint(NamedTuple):
    """An item, and whom it goes to."""

    item: bytes
    """A serialised `chappe.api.edge.v1.Item`."""
    key: bytes
    """64 bytes: position, message id, conversation id, and at the end the sender's user id."""
    flags: int
    user_ids: Sequence[UserId]
    origin_device_id: int
    """The sender's device that caused the item and is not told of it; 0 for none."""
    grant: Callable[[int], None]
    """Gives credit back to the stream that brought the hint, in hints."""
    only_device_id: int = 0
    """Set on a second attempt, which is for the one device that the first did not find."""
    drawn: tuple[Sampled, ...] = ()
    """The drawn messages that the item is or tells of."""

    @property
    def message_id(self) -> bytes:
        """The message that the item is or tells of; for several the first."""
        return self.key[16:32]

    @property
    def attempt(self) -> int:
        """1, and 2 for the second attempt."""
        return 2 if self.only_device_id else 1


class Route(NamedTuple):
    """Where a device is."""

    user_id: UserId
    device_id: int
    session_id: int
    boot_id: int
    edge_id: str


class Delivery(NamedTuple):
    """A hint on its way to one device."""

    hint: Hint
    route: Route


class Located(NamedTuple):
    """Where users are: the routes of those who are online, and every edge that occurs."""

    routes: Mapping[UserId, Sequence[Route]]
    edge_ids: list[str]
