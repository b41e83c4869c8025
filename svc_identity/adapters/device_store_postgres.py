"""Devices on PostgreSQL."""

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.adapters.session_store_postgres import device_of
from svc_identity.errors import DeviceNotFoundError, DeviceUnlinkedError, LinkCodeNotFoundError
from svc_identity.model import Charge, Device, DeviceId, DeviceRef, Grant, Joining, UserId
from svc_identity.protocol.limit import check_devices


class PostgresDeviceStore:
    """Keeps the devices of accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_devices(self, user_id: UserId) -> list[Device]:
        """Returns the linked devices, by id."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT device_id, public_key, platform, generation, link_ms, true FROM devices "
                "WHERE user_id = %s AND unlink_ms IS NULL ORDER BY device_id",
                uuid_of(user_id),
            )
        return [device_of(row) for row in rows]

    async def start_link(self, device: DeviceRef, code: Grant, charge: Charge) -> None:
        """Stores a link code, which is good while the device that asks for it is linked."""

        async def work(work: Work) -> None:
            count = await work.count_devices(device.user_id)
            if not await _is_linked(work, device):
                raise DeviceUnlinkedError("this device was unlinked; register or link it again")
            check_devices(count)
            await work.charge(device.user_id, charge)
            await work.run(
                "INSERT INTO link_codes (code_hmac, user_id, asking_device_id, expire_ms) VALUES (%s, %s, %s, %s)",
                *(code.secret_hash, uuid_of(device.user_id), device.device_id, code.expire_ms),
            )

        await self._database.write(work)

    async def link_device(self, joining: Joining) -> DeviceRef:
        """Adds a device; the same code and key get the same answer again."""

        async def work(work: Work) -> DeviceRef:
            code = await work.row(
                "SELECT user_id, public_key, device_id, asking_device_id FROM link_codes "
                "WHERE code_hmac = %s AND expire_ms > %s FOR UPDATE",
                *(joining.code_hmac, joining.now_ms),
            )
            if code is None:
                raise LinkCodeNotFoundError("the link code is unknown or expired; make a new one on the other device")
            user_id = UserId(code[0])
            if code[1] is not None:
                if code[1] != joining.public_key:
                    raise LinkCodeNotFoundError("the link code was used; make a new one on the other device")
                return DeviceRef(user_id, DeviceId(code[2]))
            count = await work.count_devices(user_id)
            # A code that names no device finds none.
            if not await _is_linked(work, DeviceRef(user_id, DeviceId(code[3]))):
                raise LinkCodeNotFoundError(
                    "the device that made the link code was unlinked; make a new one on another"
                )
            check_devices(count)
            device = await work.add_device(user_id, joining.public_key, joining.platform, joining.now_ms)
            await work.run(
                "UPDATE link_codes SET public_key = %s, device_id = %s WHERE code_hmac = %s",
                *(joining.public_key, device.device_id, joining.code_hmac),
            )
            return device

        return await self._database.write(work)

    async def unlink_device(self, device: DeviceRef, now_ms: int) -> None:
        """Takes a device out of its account and ends its sessions; one that is out stays so."""

        async def work(work: Work) -> None:
            if not await work.revoke(device, now_ms, is_unlinked=True):
                raise DeviceNotFoundError("this account has no such device; list its devices")

        await self._database.write(work)


async def _is_linked(work: Work, device: DeviceRef) -> bool:
    """Returns whether a device is linked; it stays so while the account is held, for unlinking changes the account."""
    row = await work.row(
        "SELECT 1 FROM devices WHERE (user_id, device_id) = (%s, %s) AND unlink_ms IS NULL",
        *(uuid_of(device.user_id), device.device_id),
    )
    return row is not None
