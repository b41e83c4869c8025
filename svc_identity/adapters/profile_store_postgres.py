"""Profiles on PostgreSQL."""

from collections.abc import Sequence

from svc_identity.adapters.database_postgres import Database, Row, Work, uuid_of
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, DeviceId, DirectoryUser, Profile, UserId

_PROFILES = """
    SELECT q.id, u.profile_name, u.about, u.phone_e164, u.version, q.id = %s,
           EXISTS (SELECT 1 FROM contacts c WHERE c.contact_user_id = q.id AND c.owner_id = %s),
           EXISTS (SELECT 1 FROM contacts c WHERE c.contact_user_id = %s AND c.owner_id = q.id)
           AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = q.id AND b.blocked_id = %s)
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS q(id, place) LEFT JOIN users u ON u.user_id = q.id ORDER BY q.place
"""
_USERS = """
    SELECT q.id, coalesce(u.version, 0),
           ARRAY(SELECT b.blocked_id FROM blocks b WHERE b.blocker_id = q.id ORDER BY b.blocked_id),
           ARRAY(SELECT d.device_id FROM devices d WHERE d.user_id = q.id AND d.unlink_ms IS NULL ORDER BY d.device_id),
           ARRAY(SELECT d.generation FROM devices d WHERE d.user_id = q.id AND d.unlink_ms IS NULL ORDER BY d.device_id)
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS q(id, place) LEFT JOIN users u ON u.user_id = q.id ORDER BY q.place
"""


class PostgresProfileStore:
    """Keeps what people say of themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns what the viewer may see, in order; a user that does not exist has version 0."""
        viewer = uuid_of(viewer_id)
        async with self._database.read() as work:
            rows = await work.rows(
                _PROFILES, viewer, viewer, viewer, viewer, [uuid_of(user_id) for user_id in user_ids]
            )
        return [_profile_of(row) for row in rows]

    async def update_profile(self, user_id: UserId, profile_name: str | None, about: str | None) -> None:
        """Changes what is not None."""

        async def work(work: Work) -> None:
            changed = await work.run(
                "UPDATE users SET profile_name = coalesce(%s, profile_name), about = coalesce(%s, about) "
                "WHERE user_id = %s",
                *(profile_name, about, uuid_of(user_id)),
            )
            if changed == 0:
                raise UserNotFoundError("the user does not exist")
            await work.record(ChangeKind.PROFILE, user_id)

        await self._database.write(work)

    async def users(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Returns what other services may know, in order; a user that does not exist has version 0."""
        async with self._database.read() as work:
            rows = await work.rows(_USERS, [uuid_of(user_id) for user_id in user_ids])
        return [
            DirectoryUser(
                user_id=UserId(row[0]),
                version=row[1],
                blocked=tuple(UserId(blocked) for blocked in row[2]),
                device_ids=tuple(DeviceId(device_id) for device_id in row[3]),
                generations=tuple(row[4]),
            )
            for row in rows
        ]


def _profile_of(row: Row) -> Profile:
    user_id, name, about, phone, version, is_self, is_kept, is_friend = row
    if version is None:
        return Profile(user_id=UserId(user_id))
    return Profile(
        user_id=UserId(user_id),
        profile_name=name,
        about=about if is_self or is_friend else "",
        phone=phone or "" if is_self or is_kept else "",
        version=version,
    )
