"""The door of DeviceService."""

from typing import Any

from chappe.api.identity.v1 import device_service_pb2 as wire
from chappe.api.identity.v1 import device_service_pb2_grpc
from chappe.runtime.principal import principal
from svc_identity.model import DeviceId, DeviceRef, UserId
from svc_identity.protocol.code import LINK_LIFE_MS
from svc_identity.service.device import DeviceRules


class DeviceRpc(device_service_pb2_grpc.DeviceServiceServicer):
    """Adds devices to an account and takes them away."""

    def __init__(self, rules: DeviceRules) -> None:
        self._rules = rules

    async def ListDevices(self, request: wire.ListDevicesRequest, context: Any) -> wire.ListDevicesResponse:
        """Returns the user's linked devices."""
        devices = await self._rules.devices(UserId(principal().user_id))
        return wire.ListDevicesResponse(
            devices=[
                wire.Device(device_id=device.device_id, platform=device.platform, link_ms=device.link_ms)
                for device in devices
            ]
        )

    async def StartLink(self, request: wire.StartLinkRequest, context: Any) -> wire.StartLinkResponse:
        """Makes a code with which one more device joins the account."""
        caller = principal()
        link_code = await self._rules.start_link(DeviceRef(UserId(caller.user_id), DeviceId(caller.device_id)))
        return wire.StartLinkResponse(link_code=link_code, lifetime_ms=LINK_LIFE_MS)

    async def LinkDevice(self, request: wire.LinkDeviceRequest, context: Any) -> wire.LinkDeviceResponse:
        """Makes the caller a device of the account that gave out the code."""
        device = await self._rules.link(request.link_code, request.device_public_key, request.platform, request.proof)
        return wire.LinkDeviceResponse(user_id=device.user_id, device_id=device.device_id)

    async def UnlinkDevice(self, request: wire.UnlinkDeviceRequest, context: Any) -> wire.UnlinkDeviceResponse:
        """Takes a device out of the account and ends its sessions."""
        await self._rules.unlink(DeviceRef(UserId(principal().user_id), DeviceId(request.device_id)))
        return wire.UnlinkDeviceResponse()
