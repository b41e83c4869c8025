"""A directory over stores in memory, behind a real loopback channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.identity.v1 import (
    block_service_pb2_grpc,
    contact_service_pb2_grpc,
    device_service_pb2_grpc,
    directory_service_pb2_grpc,
    group_service_pb2_grpc,
    profile_service_pb2_grpc,
    registration_service_pb2,
    registration_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from chappe.runtime.app import App
from chappe.runtime.clock import Seams
from chappe.runtime.config import Secret, ServerSettings
from chappe.runtime.errors import ChappeError, from_rpc_error
from chappe.runtime.interceptors import ConformanceInterceptor
from chappe.runtime.pki import SpiffeId
from chappe.runtime.principal import ADDRESS_KEY, Principal, principal_metadata
from svc_identity.adapters.identity_store_memory import memory_identity_store
from svc_identity.adapters.inbox_memory import MemoryInbox
from svc_identity.adapters.sms_sender_memory import MemorySmsSender
from svc_identity.app import Outside, assemble
from svc_identity.config import Config
from svc_identity.model import DeviceRef
from svc_identity.ports import IdentityStore
from svc_identity.protocol.proof import register_proof, session_proof
from tests.svc_identity.people import RANDOM, ToldClock, new_phone, public_key, register

CALLER = "x-test-caller"


def config(**values: Any) -> Config:
    """Returns a configuration that polls fast."""
    settings: dict[str, Any] = {
        "change_poll_s": 0.02,
        "heartbeat_s": 0.1,
        "server": ServerSettings(drain_s=2.0),
    } | values
    return Config(store_dsn=Secret("none"), message_target="none:1", pepper=Secret("p" * 32), **settings)


@dataclass(kw_only=True, slots=True)
class Door:
    """Calls the directory as the edge or another service would."""

    channel: grpc.aio.Channel
    app: App
    clock: ToldClock
    sms: MemorySmsSender
    inbox: MemoryInbox
    store: IdentityStore

    async def registered_quickly(self) -> DeviceRef:
        """Registers one of a crowd, past the doors."""
        return await register(self.store)

    async def call(
        self,
        stub: Any,
        method: str,
        request: Any,
        device: DeviceRef | None = None,
        *,
        caller: str = "svc-edge",
        address: str = "",
    ) -> Any:
        """Calls a method; raises the ChappeError that the directory meant."""
        metadata: list[tuple[str, str | bytes]] = [(CALLER, caller)]
        if address:
            metadata.append((ADDRESS_KEY, address))
        if device is not None:
            metadata.append(principal_metadata(Principal(device.user_id, device.device_id, bytes(16))))
        try:
            return await getattr(stub(self.channel), method)(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def refusal(self, *arguments: Any, **named: Any) -> tuple[str, str]:
        """Returns code and reason with which a call is refused."""
        try:
            await self.call(*arguments, **named)
        except ChappeError as error:
            return error.code, error.reason
        raise AssertionError("the call was not refused")

    async def verify(self, phone: str) -> bytes:
        """Returns a registration token."""
        started = await self.call(
            REGISTRATION, "StartVerification", registration_service_pb2.StartVerificationRequest(phone_number=phone)
        )
        request = registration_service_pb2.CheckVerificationRequest(
            verification_id=started.verification_id, code=self.sms.sent[-1][1]
        )
        token: bytes = (await self.call(REGISTRATION, "CheckVerification", request)).registration_token
        return token

    async def register(self, key: Ed25519PrivateKey, phone: str = "", name: str = "Ada") -> DeviceRef:
        """Registers a person through the doors."""
        token = await self.verify(phone or new_phone())
        request = registration_service_pb2.RegisterAccountRequest(
            registration_token=token,
            device_public_key=public_key(key),
            profile_name=name,
            platform="test",
            proof=key.sign(register_proof(token)),
        )
        answer = await self.call(REGISTRATION, "RegisterAccount", request)
        return DeviceRef(answer.user_id, answer.device_id)

    def sign_in(self, device: DeviceRef, key: Ed25519PrivateKey, age_s: float = 0) -> Any:
        """Returns a request for a token."""
        timestamp_ms, nonce = self.clock.wall_ms() - int(age_s * 1000), RANDOM.token(16)
        return session_service_pb2.CreateSessionRequest(
            user_id=device.user_id,
            device_id=device.device_id,
            timestamp_ms=timestamp_ms,
            nonce=nonce,
            signature=key.sign(session_proof(device, timestamp_ms, nonce)),
        )


REGISTRATION = registration_service_pb2_grpc.RegistrationServiceStub
SESSION = session_service_pb2_grpc.SessionServiceStub
DEVICE = device_service_pb2_grpc.DeviceServiceStub
PROFILE = profile_service_pb2_grpc.ProfileServiceStub
CONTACT = contact_service_pb2_grpc.ContactServiceStub
BLOCK = block_service_pb2_grpc.BlockServiceStub
GROUP = group_service_pb2_grpc.GroupServiceStub
DIRECTORY = directory_service_pb2_grpc.DirectoryServiceStub


def _identify(context: Any) -> SpiffeId:
    named = dict(context.invocation_metadata() or ())
    return SpiffeId(trust_domain="chappe.test", service=named[CALLER])


@asynccontextmanager
async def open_door(settings: Config) -> AsyncIterator[Door]:
    """Serves a directory on a free port, and checks that nothing leaves it but what the contract allows."""
    conformance = ConformanceInterceptor()
    clock, changed, sms, inbox = ToldClock(), asyncio.Event(), MemorySmsSender(), MemoryInbox()
    seams = Seams(clock, RANDOM)
    app = App("identity", settings.server, seams=seams, identify=_identify, watchers=[conformance])
    # Background work waits on the machine's clock; only the rules are told the time.
    app.health = type(app.health)({}, clock=_Waiting())
    async with app:
        store = memory_identity_store(changed, clock.wall_ms)
        await assemble(settings, app, Outside(store=store, changed=changed, sms=sms, inbox=inbox))
        await app.start()
        async with grpc.aio.insecure_channel(app.address) as channel:
            yield Door(channel=channel, app=app, clock=clock, sms=sms, inbox=inbox, store=store)
    conformance.check()


class _Waiting(ToldClock):
    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
