"""Bots in memory."""

from svc_identity.adapters.tables_memory import Tables, UserRow
from svc_identity.model import BotDraft, ChangeKind, DeviceRef


class MemoryBotStore:
    """Keeps which service speaks as which user, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def create_bot(self, draft: BotDraft) -> DeviceRef:
        """Makes a user with one device; a service that has one gets the same answer again."""
        if draft.spiffe_id not in self._tables.bots:
            user = UserRow(user_id=draft.user_id, phone=None, profile_name=draft.name)
            self._tables.users[draft.user_id] = user
            self._tables.record(ChangeKind.PROFILE, draft.user_id)
            device = self._tables.add_device(user, draft.public_key, draft.platform, draft.now_ms)
            self._tables.bots[draft.spiffe_id] = device
        return self._tables.bots[draft.spiffe_id]

    async def find_bot(self, spiffe_id: str) -> DeviceRef | None:
        """Returns the user and the device as which a service speaks; None when it speaks as nobody."""
        return self._tables.bots.get(spiffe_id)
