"""Programs that speak as users."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from svc_message.model.ids import DeviceId, MessageId, UserId


class Bot(NamedTuple):
    """The user as which a program speaks, and its one device."""

    user_id: UserId
    device_id: DeviceId


class Spoken(NamedTuple):
    """Who says something, and under which id."""

    user_id: UserId
    device_id: DeviceId
    message_id: MessageId
