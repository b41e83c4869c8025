"""The directory's store on PostgreSQL 15 to 18."""

from svc_identity.adapters.bot_store_postgres import PostgresBotStore
from svc_identity.adapters.change_log_postgres import PostgresChangeLog
from svc_identity.adapters.contact_store_postgres import PostgresContactStore
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.device_store_postgres import PostgresDeviceStore
from svc_identity.adapters.group_store_postgres import PostgresGroupStore
from svc_identity.adapters.invite_store_postgres import PostgresInviteStore
from svc_identity.adapters.membership_store_postgres import PostgresMembershipStore
from svc_identity.adapters.privacy_store_postgres import PostgresPrivacyStore
from svc_identity.adapters.profile_store_postgres import PostgresProfileStore
from svc_identity.adapters.registration_store_postgres import PostgresRegistrationStore
from svc_identity.adapters.session_store_postgres import PostgresSessionStore
from svc_identity.ports import IdentityStore


def postgres_identity_store(database: Database, page_size: int = 1000) -> IdentityStore:
    """Returns the store in an open database whose schema is up to date."""
    return IdentityStore(
        PostgresRegistrationStore(database),
        PostgresSessionStore(database),
        PostgresDeviceStore(database),
        PostgresProfileStore(database),
        PostgresContactStore(database),
        PostgresChangeLog(database, page_size),
        PostgresGroupStore(database),
        PostgresInviteStore(database),
        PostgresMembershipStore(database),
        PostgresPrivacyStore(database),
        PostgresBotStore(database),
    )
