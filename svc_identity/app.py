"""Builds the directory out of its parts; the only room that names concrete adapters."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chappe.api.identity.v1 import (
    block_service_pb2_grpc,
    contact_service_pb2_grpc,
    device_service_pb2_grpc,
    directory_service_pb2_grpc,
    group_service_pb2_grpc,
    profile_service_pb2_grpc,
    registration_service_pb2_grpc,
    session_service_pb2_grpc,
)
from chappe.api.message.v1 import message_service_pb2
from chappe.runtime import channels, migrations
from chappe.runtime.app import App
from svc_identity.adapters.database_postgres import NAME, Database
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.adapters.inbox_grpc import GrpcInbox
from svc_identity.adapters.sms_sender_console import ConsoleSmsSender
from svc_identity.config import Config
from svc_identity.model import SendPolicy
from svc_identity.ports import IdentityStore, Inbox, SmsSender
from svc_identity.rpc.contact import BlockRpc, ContactRpc
from svc_identity.rpc.device import DeviceRpc
from svc_identity.rpc.directory import DirectoryRpc
from svc_identity.rpc.group import GroupRpc
from svc_identity.rpc.profile import ProfileRpc
from svc_identity.rpc.registration import RegistrationRpc
from svc_identity.rpc.session import SessionRpc
from svc_identity.rpc.watch import WatchSettings
from svc_identity.service.bot import BotRules
from svc_identity.service.contact import ContactRules
from svc_identity.service.device import DeviceRules
from svc_identity.service.feed import ChangeFeed
from svc_identity.service.group import GroupLimits, GroupRules
from svc_identity.service.invite import InviteRules
from svc_identity.service.membership import MembershipRules
from svc_identity.service.profile import ProfileRules
from svc_identity.service.registration import CodeLimits, RegistrationRules
from svc_identity.service.session import SessionRules
from svc_identity.service.settings import SettingsRules
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


async def build(config: Config, app: App) -> None:
    """Adds the parts of the directory to its app.

    Raises:
        SchemaOutdatedError: The schema is older than this program; the message names the command.
        UnavailableError: PostgreSQL does not answer.
    """
    dsn = config.store_dsn.reveal()
    await migrations.check(dsn, SCHEMA)
    changed = asyncio.Event()
    database = await app.add_store(Database(dsn, size=config.pool_size, changed=changed), name=NAME)
    app.health.add(NAME, database.check)
    inbox = await app.add_peer(_inbox(config, app), name="svc_message")
    store = postgres_identity_store(database)
    _log.warning("one-time codes are printed here, beside the logs: no way to send them to phones is built in")
    await assemble(config, app, Outside(store=store, changed=changed, sms=ConsoleSmsSender(), inbox=inbox))


async def assemble(config: Config, app: App, outside: Outside) -> None:
    """Adds rules, doors and background work to an app, over whatever they stand on."""
    if config.development_codes:
        _log.warning("one-time codes are given to whoever asks: this is a development system")
    store, seams, pepper = outside.store, app.seams, config.pepper.reveal().encode()
    registration = RegistrationRules(store.registrations, outside.sms, seams, _code_limits(config), pepper)
    sessions = SessionRules(store.sessions, seams)
    devices = DeviceRules(store.devices, seams, pepper, config.links_per_day)
    profiles, settings = ProfileRules(store.profiles), SettingsRules(store.privacy)
    contacts = ContactRules(store.contacts, store.memberships, seams.clock, pepper, config.lookups_per_day)
    feed = ChangeFeed(store.changes, outside.changed, config.change_poll_s)
    worker = InboxWorker(feed, outside.inbox, seams, config.change_keep_s)
    await sessions.ensure_key()
    app.tasks.spawn(feed.run(), name="change feed")
    app.tasks.spawn(worker.run(), name="inbox worker")
    doors = (
        (
            registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server,
            RegistrationRpc(registration, shows_codes=config.development_codes),
        ),
        (session_service_pb2_grpc.add_SessionServiceServicer_to_server, SessionRpc(sessions)),
        (device_service_pb2_grpc.add_DeviceServiceServicer_to_server, DeviceRpc(devices)),
        (
            profile_service_pb2_grpc.add_ProfileServiceServicer_to_server,
            ProfileRpc(profiles, settings),
        ),
        (contact_service_pb2_grpc.add_ContactServiceServicer_to_server, ContactRpc(contacts)),
        (block_service_pb2_grpc.add_BlockServiceServicer_to_server, BlockRpc(contacts)),
    )
    for register, door in doors:
        app.add_door(register, door)
    app.add_door(group_service_pb2_grpc.add_GroupServiceServicer_to_server, _group_door(config, app, store))
    pairs = MembershipRules(store.memberships, store.privacy)
    bots = BotRules(store.bots, seams)
    _add_directory(app, DirectoryRpc(profiles, pairs, bots, feed, _watch_settings(config, app)))
    app.metrics.counter("told_events", "Events that inboxes were told of.", lambda: worker.told)


def _code_limits(config: Config) -> CodeLimits:
    policy = SendPolicy(wait_ms=int(config.resend_wait_s * 1000), per_day=config.codes_per_day)
    return CodeLimits(policy, config.codes_per_address, config.codes_per_range)


def _group_door(config: Config, app: App, store: IdentityStore) -> GroupRpc:
    clock, pepper = app.seams.clock, config.pepper.reveal().encode()
    limits = GroupLimits(config.groups_per_day, config.additions_per_day)
    groups = GroupRules(store.groups, clock, pepper, limits)
    return GroupRpc(groups, InviteRules(store.invites, store.groups, clock, pepper, config.joins_per_day))


def _add_directory(app: App, door: DirectoryRpc) -> None:
    app.add_door(directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server, door)
    app.on_drain(door.drain)
    app.metrics.gauge("change_readers", "Readers of changes.", lambda: door.reader_count)


def _watch_settings(config: Config, app: App) -> WatchSettings:
    return WatchSettings(
        peer_id=app.peer_name,
        boot_id=app.boot_id,
        heartbeat_s=config.heartbeat_s,
        tasks=app.tasks,
        clock=app.seams.clock,
    )


@asynccontextmanager
async def _inbox(config: Config, app: App) -> AsyncGenerator[GrpcInbox]:
    contracts = [message_service_pb2.DESCRIPTOR]
    target = config.message_target
    async with channels.channel(target, app.tls, server_name="svc-message", contracts=contracts) as channel:
        yield GrpcInbox(channel)
