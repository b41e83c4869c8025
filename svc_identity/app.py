"""Builds the directory out of its parts; the only room that names concrete adapters."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from chappe.api.identity.v1 import (
    block_service_pb2_grpc,
    contact_service_pb2_grpc,
    device_service_pb2_grpc,
    directory_service_pb2_grpc,
    profile_service_pb2_grpc,
    registration_service_pb2_grpc,
    session_service_pb2_grpc,
)
from chappe.runtime import migrations
from chappe.runtime.clock import Seams
from chappe.runtime.tasks import Tasks
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.adapters.sms_sender_console import ConsoleSmsSender
from svc_identity.config import Config
from svc_identity.model import SendPolicy
from svc_identity.ports import IdentityStore, Inbox, SmsSender
from svc_identity.rpc.contact import BlockRpc, ContactRpc
from svc_identity.rpc.device import DeviceRpc
from svc_identity.rpc.directory import DirectoryRpc
from svc_identity.rpc.profile import ProfileRpc
from svc_identity.rpc.registration import RegistrationRpc
from svc_identity.rpc.session import SessionRpc
from svc_identity.rpc.watch import WatchSettings
from svc_identity.service.contact import ContactRules
from svc_identity.service.device import DeviceRules
from svc_identity.service.feed import ChangeFeed
from svc_identity.service.profile import ProfileRules
from svc_identity.service.registration import RegistrationRules
from svc_identity.service.session import SessionRules
from svc_identity.worker import InboxWorker

SCHEMA = Path(__file__).parent / "schema"
"""The migrations of the directory's database."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """What the directory stands on."""

    store: IdentityStore
    changed: asyncio.Event
    """Set by the store after every write of this process."""
    sms: SmsSender
    inbox: Inbox
    seams: Seams
    tasks: Tasks


class Directory:
    """The rules and doors of the directory over whatever it stands on."""

    def __init__(self, config: Config, outside: Outside) -> None:
        self._config = config
        self._outside = outside
        store, seams, pepper = outside.store, outside.seams, config.pepper.reveal().encode()
        policy = SendPolicy(wait_ms=int(config.resend_wait_s * 1000), per_day=config.codes_per_day)
        self.registration = RegistrationRules(store.registrations, outside.sms, seams, policy, pepper)
        self.sessions = SessionRules(store.sessions, seams)
        self.devices = DeviceRules(store.devices, seams, pepper, config.links_per_day)
        self.profiles = ProfileRules(store.profiles)
        self.contacts = ContactRules(store.contacts, seams.clock, pepper, config.lookups_per_day)
        self.feed = ChangeFeed(store.changes, outside.changed, config.change_poll_s)
        self.worker = InboxWorker(self.feed, outside.inbox, seams, config.change_keep_s)
        self._door = DirectoryRpc(self.profiles, self.feed, self._watch_settings())

    def serve(self, server: grpc.aio.Server) -> None:
        """Opens the doors on a server."""
        shows_codes = self._config.development_codes
        registration = RegistrationRpc(self.registration, shows_codes=shows_codes)
        registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server(registration, server)
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(SessionRpc(self.sessions), server)
        device_service_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceRpc(self.devices), server)
        profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(ProfileRpc(self.profiles), server)
        contact_service_pb2_grpc.add_ContactServiceServicer_to_server(ContactRpc(self.contacts), server)
        block_service_pb2_grpc.add_BlockServiceServicer_to_server(BlockRpc(self.contacts), server)
        directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(self._door, server)

    async def start(self) -> None:
        """Makes sure that there is a signing key, and starts to read the log of changes."""
        await self.sessions.ensure_key()
        self._outside.tasks.spawn(self.feed.run(), name="change-feed")
        self._outside.tasks.spawn(self.worker.run(), name="inbox-worker")

    def drain(self) -> None:
        """Asks every reader of changes to go to another replica."""
        self._door.drain()

    def _watch_settings(self) -> WatchSettings:
        seams = self._outside.seams
        return WatchSettings(
            peer_id=self._config.server.peer_name or "svc-identity",
            boot_id=seams.randomness.nonzero_u64(),
            heartbeat_s=self._config.heartbeat_s,
            tasks=self._outside.tasks,
            clock=seams.clock,
        )


@asynccontextmanager
async def postgres_directory(config: Config, inbox: Inbox, seams: Seams, tasks: Tasks) -> AsyncIterator[Directory]:
    """Gives a directory on PostgreSQL that has started.

    Raises:
        SchemaOutdatedError: The schema is older than this program; the message names the command.
        UnavailableError: PostgreSQL does not answer.
    """
    dsn = config.postgres_dsn.reveal()
    await migrations.check(dsn, SCHEMA)
    changed = asyncio.Event()
    database = Database(dsn, size=config.pool_size, changed=changed)
    await database.open()
    try:
        outside = Outside(
            store=postgres_identity_store(database),
            changed=changed,
            sms=ConsoleSmsSender(),
            inbox=inbox,
            seams=seams,
            tasks=tasks,
        )
        if config.development_codes:
            _log.warning("one-time codes are given to whoever asks: this is a development system")
        directory = Directory(config, outside)
        await directory.start()
        yield directory
    finally:
        await database.close()
