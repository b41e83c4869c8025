"""What names things: raw bytes, 16 of a UUID, typed by `NewType` and never wrapped."""

from __future__ import annotations

from typing import NewType

UserId = NewType("UserId", bytes)
DeviceId = NewType("DeviceId", int)
ConversationId = NewType("ConversationId", bytes)
MessageId = NewType("MessageId", bytes)
Position = NewType("Position", bytes)

NO_POSITION = Position(bytes(16))
"""The place before every other in a log."""
