"""Knows who gives read receipts, and therefore gets those of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svc_message.model import UserId
    from svc_message.ports import Directory


async def givers_of_receipts(directory: Directory, user_ids: Iterable[UserId]) -> set[UserId]:
    """Returns those of some users who give read receipts; who is not known by heart is read through.

    Raises:
        UnavailableError: The directory does not answer.
    """
    users = {user_id: directory.cached(user_id) for user_id in user_ids}
    unsure = [user_id for user_id, user in users.items() if user is None]
    if unsure:
        users.update(zip(unsure, await directory.read(unsure), strict=True))
    return {user_id for user_id, user in users.items() if user is not None and user.gives_read_receipts}


def is_known_giver(directory: Directory, user_id: UserId) -> bool:
    """Tells whether a user is known by heart to give read receipts; asks nobody."""
    user = directory.cached(user_id)
    return user is not None and user.gives_read_receipts
