"""What people show of themselves, and to whom."""

import enum
from dataclasses import dataclass


class Audience(enum.IntEnum):
    """Who may see something of a user; the numbers are stored."""

    NOBODY = 1
    CONTACTS = 2
    """The people in the user's own contacts."""
    EVERYONE = 3
    """Everyone but the blocked."""


class PrivacyAspect(enum.IntEnum):
    """Something of a user that not everybody may see."""

    LAST_SEEN = 1
    ONLINE = 2
    PHOTO = 3
    ABOUT = 4
    GROUPS = 5
    """Whether the viewer may add the user to groups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of a user; the defaults are those of whoever has set nothing."""

    last_seen: Audience = Audience.CONTACTS
    online: Audience | None = None
    """None follows last_seen."""
    profile_photo: Audience = Audience.EVERYONE
    about: Audience = Audience.CONTACTS
    groups: Audience = Audience.EVERYONE
    read_receipts: bool = True
    message_notifications: bool = True
    group_notifications: bool = True
    call_notifications: bool = True
    notification_sound: str = "default"
    two_step_verification: bool = False
    show_security_notifications: bool = True
