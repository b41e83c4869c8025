"""Adds devices to accounts and takes them away."""

from chappe.runtime.clock import Seams
from svc_identity.model import Charge, Device, DeviceRef, Grant, Joining, UserId
from svc_identity.ports import DeviceStore
from svc_identity.protocol.code import LINK_LIFE_MS, draw_link_code, link_code_hmac, normal_link_code
from svc_identity.protocol.proof import check_signature, link_proof

LINKS = "link codes"
"""The daily budget of link codes."""


class DeviceRules:
    """Says which devices belong to an account."""

    def __init__(self, store: DeviceStore, seams: Seams, pepper: bytes, links_per_day: int) -> None:
        self._store = store
        self._clock, self._randomness = seams
        self._pepper = pepper
        self._links_per_day = links_per_day

    async def devices(self, user_id: UserId) -> list[Device]:
        """Returns the linked devices, by id."""
        return await self._store.list_devices(user_id)

    async def start_link(self, device: DeviceRef) -> str:
        """Returns a code with which one more device joins the account of this one, within 5 minutes."""
        now_ms = self._clock.wall_ms()
        link_code = draw_link_code(self._randomness)
        grant = Grant(link_code_hmac(self._pepper, link_code), now_ms + LINK_LIFE_MS)
        charge = Charge(budget=LINKS, amount=1, limit=self._links_per_day, now_ms=now_ms)
        await self._store.start_link(device, grant, charge)
        return link_code

    async def link(self, typed_code: str, public_key: bytes, platform: str, proof: bytes) -> DeviceRef:
        """Makes a device part of the account that gave out the code."""
        link_code = normal_link_code(typed_code)
        check_signature(public_key, proof, link_proof(link_code))
        joining = Joining(
            code_hmac=link_code_hmac(self._pepper, link_code),
            public_key=public_key,
            platform=platform,
            now_ms=self._clock.wall_ms(),
        )
        return await self._store.link_device(joining)

    async def unlink(self, device: DeviceRef) -> None:
        """Takes a device out of its account and ends its sessions."""
        await self._store.unlink_device(device, self._clock.wall_ms())
