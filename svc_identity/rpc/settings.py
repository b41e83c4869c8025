"""Settings on the wire."""

from chappe.api.identity.v1 import settings_pb2 as wire
from chappe.api.type.v1 import privacy_audience_pb2
from svc_identity.model.privacy import Audience, Settings
from svc_identity.service.settings import Changes

_AUDIENCES = frozenset({"last_seen", "online", "profile_photo", "about", "groups"})


def settings_to_wire(settings: Settings) -> wire.Settings:
    """Returns settings with every field set."""
    return wire.Settings(
        privacy=wire.PrivacySettings(
            last_seen=_audience(settings.last_seen),
            profile_photo=_audience(settings.profile_photo),
            about=_audience(settings.about),
            read_receipts=settings.read_receipts,
            groups=_audience(settings.groups),
            online=_audience(settings.online),
        ),
        notifications=wire.NotificationSettings(
            message_notifications=settings.message_notifications,
            group_notifications=settings.group_notifications,
            call_notifications=settings.call_notifications,
            notification_sound=settings.notification_sound,
        ),
        security=wire.SecuritySettings(
            two_step_verification=settings.two_step_verification,
            show_security_notifications=settings.show_security_notifications,
        ),
    )


def changes_of(settings: wire.Settings) -> Changes:
    """Returns what is set, by the names of the model, which are those of the contract."""
    changes: Changes = {}
    for part in (settings.privacy, settings.notifications, settings.security):
        for field, value in part.ListFields():
            # An audience that is set and unspecified follows another.
            changes[field.name] = (Audience(value) if value else None) if field.name in _AUDIENCES else value
    return changes


def _audience(audience: Audience | None) -> privacy_audience_pb2.PrivacyAudience.ValueType:
    return privacy_audience_pb2.PrivacyAudience.ValueType(audience or privacy_audience_pb2.PRIVACY_AUDIENCE_UNSPECIFIED)
