"""Profiles on PostgreSQL."""

from collections.abc import Sequence

from svc_identity.adapters.database_postgres import Database, Row, Work, uuid_of
from svc_identity.adapters.sight_postgres import JOINS, sees
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, DeviceId, DirectoryUser, Profile, UserId
from svc_identity.model.privacy import PrivacyAspect

_PROFILES_TEMPLATE = """
    SELECT q.target, u.profile_name, u.version,
           CASE WHEN q.viewer = q.target OR EXISTS (
               SELECT 1 FROM contacts c WHERE c.contact_user_id = q.target AND c.owner_id = q.viewer
           ) THEN u.phone_e164 END,
           CASE WHEN {sees_about} THEN u.about END, CASE WHEN {sees_photo} THEN u.photo_media_id END
    FROM (SELECT %s::uuid AS viewer, id AS target, place FROM unnest(%s::uuid[]) WITH ORDINALITY AS t(id, place)) q
    {joins} ORDER BY q.place
"""
_PROFILES = _PROFILES_TEMPLATE.format(
    sees_about=sees(PrivacyAspect.ABOUT), sees_photo=sees(PrivacyAspect.PHOTO), joins=JOINS
)
# One change of an account at a time: each begins with what the one before it has left.
_SAID = "SELECT profile_name, about, coalesce(photo_media_id, '') FROM users WHERE user_id = %s FOR NO KEY UPDATE"
_UPDATE = "UPDATE users SET profile_name = %s, about = %s, photo_media_id = nullif(%s::bytea, '') WHERE user_id = %s"
_USERS = """
    SELECT q.id, coalesce(u.version, 0),
           ARRAY(SELECT b.blocked_id FROM blocks b WHERE b.blocker_id = q.id ORDER BY b.blocked_id),
           ARRAY(SELECT device_id FROM devices d WHERE d.user_id = q.id AND unlink_ms IS NULL ORDER BY device_id),
           ARRAY(SELECT generation FROM devices d WHERE d.user_id = q.id AND unlink_ms IS NULL ORDER BY device_id),
           u.user_id IS NOT NULL AND coalesce(s.read_receipts, true)
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS q(id, place) LEFT JOIN users u ON u.user_id = q.id
    LEFT JOIN user_settings s ON s.user_id = q.id ORDER BY q.place
"""


class PostgresProfileStore:
    """Keeps what people say of themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns what the viewer may see, in order; a user that does not exist has version 0."""
        async with self._database.read() as work:
            rows = await work.rows(_PROFILES, uuid_of(viewer_id), [uuid_of(user_id) for user_id in user_ids])
        return [_profile_of(row) for row in rows]

    async def update_profile(
        self, user_id: UserId, profile_name: str | None, about: str | None, photo_media_id: bytes | None = None
    ) -> None:
        """Changes what is not None, no bytes take the photo away; what is so already is no change."""

        async def work(work: Work) -> None:
            before = await work.row(_SAID, uuid_of(user_id))
            if before is None:
                raise UserNotFoundError("the user does not exist")
            wanted = (profile_name, about, photo_media_id)
            after = tuple(old if new is None else new for old, new in zip(before, wanted, strict=True))
            if after != before:
                await work.run(_UPDATE, *after, uuid_of(user_id))
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
                gives_read_receipts=row[5],
            )
            for row in rows
        ]


def _profile_of(row: Row) -> Profile:
    user_id, name, version, phone, about, photo_media_id = row
    if version is None:
        return Profile(user_id=UserId(user_id))
    return Profile(
        user_id=UserId(user_id),
        profile_name=name,
        about=about or "",
        phone=phone or "",
        version=version,
        photo_media_id=photo_media_id or b"",
    )
