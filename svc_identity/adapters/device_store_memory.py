"""Devices in memory."""

from svc_identity.adapters.tables_memory import GrantRow, Tables
from svc_identity.errors import DeviceNotFoundError, DeviceUnlinkedError, LinkCodeNotFoundError
from svc_identity.model import Charge, Device, DeviceRef, Grant, Joining, UserId
from svc_identity.protocol.limit import check_devices


class MemoryDeviceStore:
    """Keeps the devices of accounts, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def list_devices(self, user_id: UserId) -> list[Device]:
        """Returns the linked devices, by id."""
        return self._tables.linked(user_id)

    async def start_link(self, device: DeviceRef, code: Grant, charge: Charge) -> None:
        """Stores a link code, which is good while the device that asks for it is linked."""
        if not self._is_linked(device):
            raise DeviceUnlinkedError("this device was unlinked; register or link it again")
        check_devices(len(self._tables.linked(device.user_id)))
        self._tables.charge(device.user_id, charge)
        self._tables.links[code.secret_hash] = GrantRow(expire_ms=code.expire_ms, asked_by=device)

    async def link_device(self, joining: Joining) -> DeviceRef:
        """Adds a device; the same code and key get the same answer again."""
        code = self._tables.links.get(joining.code_hmac)
        if code is None or code.asked_by is None or code.expire_ms <= joining.now_ms:
            raise LinkCodeNotFoundError("the link code is unknown or expired; make a new one on the other device")
        if code.joined is not None:
            if code.public_key != joining.public_key:
                raise LinkCodeNotFoundError("the link code was used; make a new one on the other device")
            return code.joined
        if not self._is_linked(code.asked_by):
            raise LinkCodeNotFoundError("the device that made the link code was unlinked; make a new one on another")
        check_devices(len(self._tables.linked(code.asked_by.user_id)))
        user = self._tables.users[code.asked_by.user_id]
        code.public_key = joining.public_key
        code.joined = self._tables.add_device(user, joining.public_key, joining.platform, joining.now_ms)
        return code.joined

    async def unlink_device(self, device: DeviceRef, now_ms: int) -> None:
        """Takes a device out of its account and ends its sessions; one that is out stays so."""
        if device not in self._tables.devices:
            raise DeviceNotFoundError("this account has no such device; list its devices")
        self._tables.revoke(device, now_ms, is_unlinked=True)

    def _is_linked(self, device: DeviceRef) -> bool:
        known = self._tables.devices.get(device)
        return known is not None and known.is_linked
