"""Lets programs speak as users: who says what a program asks for, and under which id.

The id is made from the request alone, so that every replica makes the same one of a retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import InvalidFieldError
from svc_message.errors import NoBotError
from svc_message.model.bot import Spoken
from svc_message.protocol import bot_message_id, is_uuid7

if TYPE_CHECKING:
    from svc_message.ports import Bots, Directory


class Speaking:
    """Knows the bots."""

    def __init__(self, bots: Bots, directory: Directory) -> None:
        self._bots = bots
        self._directory = directory

    async def speak(self, spiffe_id: str, request_id: bytes) -> Spoken:
        """Returns who speaks, and the id of what it says.

        Raises:
            InvalidFieldError: The request id is no UUIDv7.
            NoBotError: The program speaks as nobody, or its user is gone.
            UnavailableError: svc_identity does not answer.
        """
        if not is_uuid7(request_id):
            raise InvalidFieldError("request_id", "must be a UUIDv7, minted when the bot decided to speak")
        bot = await self._bots.find(spiffe_id)
        if bot is None:
            raise NoBotError(spiffe_id)
        user = self._directory.cached(bot.user_id)
        if user is None or not user.is_active:
            (user,) = await self._directory.read([bot.user_id])
        if not user.is_active:
            raise NoBotError(spiffe_id)
        return Spoken(bot.user_id, bot.device_id, bot_message_id(request_id, bot.user_id, bot.device_id))
