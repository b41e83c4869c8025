"""Keeps what people allow."""

from dataclasses import replace
from typing import TypeAlias

from svc_identity.model import Profile, UserId
from svc_identity.model.privacy import Audience, Settings
from svc_identity.ports.privacy import PrivacyStore

Changes: TypeAlias = "dict[str, Audience | bool | str | None]"
"""New values by the names of settings."""


class SettingsRules:
    """Shows and changes the settings of the one who asks; there is no way to those of another."""

    def __init__(self, store: PrivacyStore) -> None:
        self._store = store

    async def settings(self, user_id: UserId) -> tuple[Profile, Settings]:
        """Returns what a user says of itself, and what it has set."""
        return await self._store.profile_with_settings(user_id)

    async def update(self, user_id: UserId, changes: Changes) -> tuple[Profile, Settings]:
        """Changes what is named; returns all as it is then."""

        def change(settings: Settings) -> Settings:
            return replace(settings, **changes)  # type: ignore[arg-type]  # the door gives each name a value of its kind

        if changes:
            await self._store.update_settings(user_id, change)
        return await self._store.profile_with_settings(user_id)
