"""What happened to a group, as a sentence."""

from collections.abc import Iterable, Mapping
from typing import Final

from chappe.client import GroupChanged, GroupEvent, Role

_ROLES: Final = {Role.OWNER: "the owner", Role.ADMIN: "an admin", Role.MEMBER: "a member"}


def people_of(change: GroupChanged) -> list[bytes]:
    """Returns everybody whom the sentence names."""
    return [change.by_user_id, *change.user_ids]


def sentence(change: GroupChanged, names: Mapping[bytes, str]) -> str:
    """Returns what happened.

    Args:
        change: What happened.
        names: How everybody of `people_of` is called, the reader as "you".
    """
    actor = names.get(change.by_user_id, "somebody")
    others = _joined(names.get(user_id, "somebody") for user_id in change.user_ids)
    match change.what:
        case GroupEvent.CREATED:
            text = f"{actor} made the group {change.name}" + (f" with {others}" if others else "")
        case GroupEvent.ADDED | GroupEvent.REMOVED:
            text = f"{actor} {change.what.name.lower()} {others}"
        case GroupEvent.JOINED | GroupEvent.LEFT:
            text = f"{others} {'joined by an invite' if change.what is GroupEvent.JOINED else 'left'}"
        case GroupEvent.ROLE:
            text = f"{actor} made {others} {_ROLES.get(change.role, 'something else')}"
        case GroupEvent.UPDATED:
            text = f"{actor} changed the group {change.name}"
        case _:
            text = f"the group {change.name} changed"
    return text


def _joined(names: Iterable[str]) -> str:
    """Returns names as people say them; of many only the first."""
    found = list(names)
    if len(found) > 4:  # noqa: PLR2004 - what fits on a line
        found = [*found[:3], f"{len(found) - 3} more"]
    return " and ".join((", ".join(found[:-1]), found[-1])) if len(found) > 1 else "".join(found)
