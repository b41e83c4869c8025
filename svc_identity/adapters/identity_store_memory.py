"""The directory's store in memory: for tests, and for a first look without PostgreSQL."""

import asyncio
from collections.abc import Callable

from svc_identity.adapters.bot_store_memory import MemoryBotStore
from svc_identity.adapters.change_log_memory import MemoryChangeLog
from svc_identity.adapters.contact_store_memory import MemoryContactStore
from svc_identity.adapters.device_store_memory import MemoryDeviceStore
from svc_identity.adapters.group_store_memory import MemoryGroupStore
from svc_identity.adapters.groups_memory import GroupTables
from svc_identity.adapters.invite_store_memory import MemoryInviteStore
from svc_identity.adapters.membership_store_memory import MemoryMembershipStore
from svc_identity.adapters.privacy_store_memory import MemoryPrivacyStore
from svc_identity.adapters.profile_store_memory import MemoryProfileStore
from svc_identity.adapters.registration_store_memory import MemoryRegistrationStore
from svc_identity.adapters.session_store_memory import MemorySessionStore
from svc_identity.adapters.tables_memory import Tables
from svc_identity.ports import IdentityStore


def memory_identity_store(changed: asyncio.Event, wall_ms: Callable[[], int], page_size: int = 1000) -> IdentityStore:
    """Returns an empty store, which sets `changed` after every change."""
    tables = Tables(changed=changed, wall_ms=wall_ms)
    groups = GroupTables(tables)
    return IdentityStore(
        MemoryRegistrationStore(tables),
        MemorySessionStore(tables),
        MemoryDeviceStore(tables),
        MemoryProfileStore(tables),
        MemoryContactStore(tables),
        MemoryChangeLog(tables, page_size),
        MemoryGroupStore(groups),
        MemoryInviteStore(groups),
        MemoryMembershipStore(groups),
        MemoryPrivacyStore(tables),
        MemoryBotStore(tables),
    )
