"""Asks svc_presence where users are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.runtime.errors import from_rpc_error
from svc_fanout.model import Located, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_fanout.model import UserId


class GrpcRegistry:
    """The `Registry` port over svc_presence's PresenceService."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        """Makes the adapter.

        Args:
            channel: To all replicas of svc_presence.
            timeout_s: How long one question may take, retries included.
        """
        self._stub: Any = presence_service_pb2_grpc.PresenceServiceStub(channel)
        self._timeout_s = timeout_s

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> Located:
        """Returns the live routes of users, after forgetting the routes that were found gone."""
        request = presence_service_pb2.LocateRequest(user_ids=user_ids, gone=[_wire_route(route) for route in gone])
        try:
            response = await self._stub.Locate(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_presence") from error
        if not response.edge_ids:
            return Located({}, [])
        edge_ids, boot_ids = list(response.edge_ids), list(response.boot_ids)
        routes: dict[UserId, list[Route]] = {}
        for user_index, device_id, session_id, edge in zip(
            response.user_indexes, response.device_ids, response.session_ids, response.edge_indexes, strict=True
        ):
            user_id = user_ids[int(user_index)]
            route = Route(user_id, device_id, session_id, boot_ids[edge], edge_ids[edge])
            if user_id in routes:
                routes[user_id].append(route)
            else:
                routes[user_id] = [route]
        return Located(routes, edge_ids)


def _wire_route(route: Route) -> presence_service_pb2.Route:
    return presence_service_pb2.Route(
        user_id=route.user_id,
        device_id=route.device_id,
        session_id=route.session_id,
        boot_id=route.boot_id,
        edge_id=route.edge_id,
    )
