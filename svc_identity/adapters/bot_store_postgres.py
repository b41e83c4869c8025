"""Bots on PostgreSQL."""

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.model import BotDraft, ChangeKind, DeviceId, DeviceRef, UserId

_FIND = "SELECT user_id, device_id FROM bots WHERE spiffe_id = %s"


class PostgresBotStore:
    """Keeps which service speaks as which user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_bot(self, draft: BotDraft) -> DeviceRef:
        """Makes a user with one device; a service that has one gets the same answer again."""

        async def work(work: Work) -> DeviceRef:
            known = await _find(work, draft.spiffe_id)
            if known is not None:
                return known
            await work.run(
                "INSERT INTO users (user_id, profile_name) VALUES (%s, %s)", uuid_of(draft.user_id), draft.name
            )
            await work.record(ChangeKind.PROFILE, draft.user_id)
            device = await work.add_device(draft.user_id, draft.public_key, draft.platform, draft.now_ms)
            # Of two that make the same bot at once one clashes here, does all of this again, and finds it.
            await work.run(
                "INSERT INTO bots (spiffe_id, user_id, device_id) VALUES (%s, %s, %s)",
                *(draft.spiffe_id, uuid_of(device.user_id), device.device_id),
            )
            return device

        return await self._database.write(work)

    async def find_bot(self, spiffe_id: str) -> DeviceRef | None:
        """Returns the user and the device as which a service speaks; None when it speaks as nobody."""
        async with self._database.read() as work:
            return await _find(work, spiffe_id)


async def _find(work: Work, spiffe_id: str) -> DeviceRef | None:
    row = await work.row(_FIND, spiffe_id)
    return None if row is None else DeviceRef(UserId(row[0]), DeviceId(row[1]))
