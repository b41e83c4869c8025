"""Makes a Hello that a person can paste into a WebSocket client."""

from pathlib import Path
from urllib.parse import urlsplit

from google.protobuf import json_format

from chappe.api.edge.v1 import client_frame_pb2
from chappe.client.connection import addresses_of
from chappe.client.device import NONCE_BYTES, Device
from chappe.client.frames import PROTOCOL
from chappe.client.mint import ServerClock
from chappe.client.profiles import read_about, read_key
from chappe.client.seams import system_seams
from chappe.client.tokens import Tokens
from chappe.client.wire import WireOptions


async def signed_hello(folder: Path, servers: tuple[str, ...]) -> str:
    """Returns a ClientFrame with a signed Hello as one line of JSON.

    Args:
        folder: Of the profile.
        servers: Edges; empty for those of the profile. The Hello is good for the first.
    """
    seams = system_seams()
    about = read_about(folder)
    device = Device(bytes.fromhex(about.user_id), about.device_id, read_key(folder))
    address = addresses_of(servers or about.addresses)[0]
    clock = ServerClock(seams.clock.wall_ms(), seams.clock.monotonic_s())
    # No token is kept: a fresh one comes with the server's time, by which the Hello is signed.
    token = await Tokens(device, clock, seams, WireOptions()).get(address)
    signed = device.hello(
        token,
        clock.estimate_ms(seams.clock.monotonic_s()),
        seams.randomness.token(NONCE_BYTES),
        urlsplit(address).netloc,
    )
    frame = client_frame_pb2.ClientFrame(hello=client_frame_pb2.Hello(protocol=PROTOCOL, signed=signed))
    return json_format.MessageToJson(frame, indent=None)
