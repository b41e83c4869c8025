"""Lets services speak as users."""

from chappe.runtime.clock import Seams
from chappe.runtime.errors import InvalidFieldError
from svc_identity.errors import UserNotFoundError
from svc_identity.model import BotDraft, DeviceRef, UserId
from svc_identity.ports.bot import BotStore
from svc_identity.protocol.identifier import draw_uuid7
from svc_identity.service.registration import checked_name

_MOST_NAME_CHARACTERS = 64
_MOST_ID_CHARACTERS = 255
"""As the table has room for."""
_PLATFORM = "bot"


class BotRules:
    """Says which service speaks as which user."""

    def __init__(self, store: BotStore, seams: Seams) -> None:
        self._store = store
        self._clock, self._randomness = seams

    async def create(self, spiffe_id: str, name: str) -> DeviceRef:
        """Makes a user for a service; one that has a user keeps it and its name.

        Args:
            spiffe_id: The service's, in its one form.
            name: What others see.

        Raises:
            InvalidFieldError: The name cannot be one, or the SPIFFE id is too long.
        """
        if len(spiffe_id) > _MOST_ID_CHARACTERS:
            raise InvalidFieldError("spiffe-id", f"must have at most {_MOST_ID_CHARACTERS} characters")
        checked = checked_name(name, "name")
        if len(checked) > _MOST_NAME_CHARACTERS or not checked.isprintable():
            raise InvalidFieldError("name", f"must be one line of at most {_MOST_NAME_CHARACTERS} characters")
        now_ms = self._clock.wall_ms()
        return await self._store.create_bot(
            BotDraft(
                spiffe_id=spiffe_id,
                user_id=UserId(draw_uuid7(now_ms, self._randomness)),
                name=checked,
                platform=_PLATFORM,
                # Nobody has the other half: a bot does not sign in, its certificate speaks for it.
                public_key=self._randomness.token(32),
                now_ms=now_ms,
            )
        )

    async def bot(self, spiffe_id: str) -> DeviceRef:
        """Returns the user and the device as which a service speaks.

        Raises:
            UserNotFoundError: It speaks as nobody.
        """
        device = await self._store.find_bot(spiffe_id)
        if device is None:
            raise UserNotFoundError(f"{spiffe_id} is no bot; an operator makes it one: chappe bot create")
        return device
