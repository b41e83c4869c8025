"""The SDK at a real edge with the limits of production."""

import time

from chappe.client.changes import Disconnected
from chappe.client.connection import ConnectionOptions
from chappe.client.device import Device, DeviceKey
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.tokens import Token
from tests.client.test_connection import until
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeMesh, Person


async def test_more_messages_than_the_edge_takes_at_once_leave_in_one_session(edge: Edge, mesh: FakeMesh) -> None:
    person, ends = Person.new(), list[Disconnected]()
    parts = LeanParts(
        options=ConnectionOptions(ping_s=None),
        token=Token(mesh.token(person), int(time.time() * 1000) + 900_000),
    )
    device = Device(person.user_id, person.device_id, DeviceKey(person.key))
    client = LeanClient(device, edge.url, Callbacks(disconnected=ends.append), parts)
    for number in range(500):
        client.send(b"r" * 16, b"%d" % number)

    await client.start()
    await until(lambda: client.pending == 0)

    assert len({send.message_id for send in mesh.stored}) == 500
    assert ends == []
    await client.close()
