"""Who may see what of whom: the one rule, which the statements of the store agree with."""

from typing import NamedTuple

from svc_identity.model.privacy import Audience, PrivacyAspect, Settings

RECIPROCAL = frozenset({PrivacyAspect.LAST_SEEN, PrivacyAspect.ONLINE})
"""Whoever shows these to nobody does not see those of others."""


class Sight(NamedTuple):
    """What the rule needs to know of a viewer and of whom it looks at, when both exist and are not one."""

    viewer: Settings
    target: Settings
    is_contact: bool
    """The viewer is among the target's contacts."""
    is_blocked: bool
    """One of the two has blocked the other."""


def audience_of(settings: Settings, aspect: PrivacyAspect) -> Audience:
    """Returns to whom a user shows something."""
    if aspect is PrivacyAspect.ONLINE:
        return settings.last_seen if settings.online is None else settings.online
    return {
        PrivacyAspect.LAST_SEEN: settings.last_seen,
        PrivacyAspect.PHOTO: settings.profile_photo,
        PrivacyAspect.ABOUT: settings.about,
        PrivacyAspect.GROUPS: settings.groups,
    }[aspect]


def may_see(aspect: PrivacyAspect, sight: Sight) -> bool:
    """Tells whether one user may see something of another."""
    if sight.is_blocked:
        return False
    if aspect in RECIPROCAL and audience_of(sight.viewer, aspect) is Audience.NOBODY:
        return False
    audience = audience_of(sight.target, aspect)
    return audience is Audience.EVERYONE or (audience is Audience.CONTACTS and sight.is_contact)
