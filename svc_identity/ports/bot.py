"""What the directory needs in order to keep bots."""

from typing import Protocol

from svc_identity.model import BotDraft, DeviceRef


class BotStore(Protocol):
    """Keeps which service speaks as which user."""

    async def create_bot(self, draft: BotDraft) -> DeviceRef:
        """Makes a user with one device; a service that has one gets the same answer again."""
        ...

    async def find_bot(self, spiffe_id: str) -> DeviceRef | None:
        """Returns the user and the device as which a service speaks; None when it speaks as nobody."""
        ...
