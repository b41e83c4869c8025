"""A carrier that knows less than svc_fanout does: it pushes to an edge by a route of which it remembers all."""

import grpc.aio

from chappe.api.edge.v1.edge_service_pb2 import PushRequest
from chappe.api.edge.v1.edge_service_pb2_grpc import EdgeServiceStub
from chappe.runtime.channels import channel
from chappe.runtime.streams import Identity
from svc_fanout.adapters.push_grpc import to_batch
from svc_fanout.model import Delivery
from tests.mutations.house import Service


async def push(delivery: Delivery, fanout: Service, edge: Service) -> bool:
    """Pushes to an edge of the boot that a route names; returns whether the edge lets it.

    Args:
        delivery: What, and by which route.
        fanout: In whose name.
        edge: At the route's address.
    """
    async with channel(edge.address, fanout.files, server_name="svc-edge") as dialled:
        call = EdgeServiceStub(dialled).Push()
        hello = Identity("carrier", boot_id=1).hello(0)
        try:
            await call.write(PushRequest(hello=hello, edge_boot_id=delivery.route.boot_id))
            await call.read()
            await call.write(PushRequest(batch=to_batch(1, [delivery])))
            await call.read()
        except grpc.aio.AioRpcError:
            return False
        call.cancel()
        return True
