"""What people allow, on PostgreSQL."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.adapters.sight_postgres import JOINS, sees
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, Profile, UserId
from svc_identity.model.privacy import Audience, PrivacyAspect, Settings

# The columns are called like the fields of the model; whoever has no row has their defaults.
_NAMES = tuple(field.name for field in fields(Settings))
_AUDIENCES = frozenset({"last_seen", "online", "profile_photo", "about", "groups"})
# Query 1 of the source document; the settings are typed columns and need no aggregation.
_PROFILE_WITH_SETTINGS_TEMPLATE = """
    SELECT u.profile_name, u.about, u.phone_e164, u.version, u.photo_media_id, s.user_id IS NOT NULL, {columns}
    FROM users u LEFT JOIN user_settings s ON s.user_id = u.user_id WHERE u.user_id = %s
"""
_PROFILE_WITH_SETTINGS = _PROFILE_WITH_SETTINGS_TEMPLATE.format(columns=", ".join(f"s.{name}" for name in _NAMES))
_WRITE_TEMPLATE = """
    INSERT INTO user_settings (user_id, {columns}) VALUES (%s, {values})
    ON CONFLICT (user_id) DO UPDATE SET ({columns}) = ({excluded})
"""
_WRITE = _WRITE_TEMPLATE.format(
    columns=", ".join(_NAMES),
    values=", ".join("%s" for _ in _NAMES),
    excluded=", ".join(f"excluded.{name}" for name in _NAMES),
)

_TEMPLATE = """
    SELECT {sees}
    FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS q(viewer, target, place) {joins} ORDER BY q.place
"""
# Query 2 of the source document, for many pairs at once.
_MAY_SEE = {aspect: _TEMPLATE.format(sees=sees(aspect), joins=JOINS) for aspect in PrivacyAspect}


class PostgresPrivacyStore:
    """Keeps settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def profile_with_settings(self, user_id: UserId) -> tuple[Profile, Settings]:
        """Returns what a user says of itself and what it has set, as itself sees it."""
        async with self._database.read() as work:
            return await _profile_with_settings(work, user_id)

    async def update_settings(self, user_id: UserId, change: Callable[[Settings], Settings]) -> None:
        """Changes the settings of a user; what makes no difference is no change."""

        async def work(work: Work) -> None:
            # One change of an account at a time: each begins with what the one before it has left.
            await work.row("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", uuid_of(user_id))
            _, before = await _profile_with_settings(work, user_id)
            after = change(before)
            if after != before:
                await work.run(_WRITE, uuid_of(user_id), *(getattr(after, name) for name in _NAMES))
                await work.record(ChangeKind.SETTINGS, user_id)

        await self._database.write(work)

    async def may_see(self, aspect: PrivacyAspect, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Says for pairs of viewer and target whether the one may see that aspect of the other, in order."""
        viewers = [uuid_of(viewer_id) for viewer_id, _ in pairs]
        targets = [uuid_of(target_id) for _, target_id in pairs]
        async with self._database.read() as work:
            rows = await work.rows(_MAY_SEE[aspect], viewers, targets)
        return [row[0] for row in rows]


async def _profile_with_settings(work: Work, user_id: UserId) -> tuple[Profile, Settings]:
    row = await work.row(_PROFILE_WITH_SETTINGS, uuid_of(user_id))
    if row is None:
        raise UserNotFoundError("the user does not exist")
    name, about, phone, version, photo_media_id, is_set, *values = row
    profile = Profile(
        user_id=user_id,
        profile_name=name,
        about=about,
        phone=phone or "",
        version=version,
        photo_media_id=photo_media_id or b"",
    )
    return profile, _settings_of(values) if is_set else Settings()


def _settings_of(values: Sequence[Any]) -> Settings:
    named: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    for name in _AUDIENCES:
        named[name] = None if named[name] is None else Audience(named[name])
    return Settings(**named)
