"""Asks svc_identity as which users programs speak."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2
from chappe.runtime.errors import from_rpc_error
from svc_message.model import DeviceId, UserId
from svc_message.model.bot import Bot

READ_TIMEOUT_S: Final = 3.0
CAPACITY: Final = 10_000


class GrpcBots:
    """The port `Bots` over svc_identity's DirectoryService; remembers what was found, for it never changes."""

    def __init__(self, stub: Any) -> None:
        """Prepares.

        Args:
            stub: Of the DirectoryService.
        """
        self._stub = stub
        self._known: dict[str, Bot] = {}

    async def find(self, spiffe_id: str) -> Bot | None:
        """Returns the user as which a program speaks; raises `UnavailableError`."""
        bot = self._known.get(spiffe_id)
        if bot is not None:
            return bot
        try:
            request = directory_service_pb2.GetBotRequest(spiffe_id=spiffe_id)
            found = await self._stub.GetBot(request, timeout=READ_TIMEOUT_S)
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error, dependency="svc_identity")
            if error.reason == "USER_NOT_FOUND":
                return None
            raise error from rpc_error
        if len(self._known) >= CAPACITY:
            self._known.clear()
        bot = self._known[spiffe_id] = Bot(UserId(found.user_id), DeviceId(found.device_id))
        return bot
