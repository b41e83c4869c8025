"""Everything that an operator of the ledger can set."""

from __future__ import annotations

import dataclasses

from chappe.runtime.config import Secret, ServerSettings, limited


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of svc_message."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    """What every service has."""
    store_dsn: Secret
    """The PostgreSQL database of the ledger, as a libpq connection string or URL."""
    identity_target: str
    """Where svc_identity answers: dns:///name:port of a headless Service, or host:port,host:port."""
    fanout_target: str
    """Where the replicas of svc_fanout are: dns:///name:port of a headless Service, or host:port,host:port."""
    store_writers: int = limited(2, least=1, most=16)
    """How many connections write; two keep one commit in flight while the next gathers."""
    store_group_writers: int = limited(2, least=1, most=16)
    """How many connections write messages to groups."""
    store_expanders: int = limited(2, least=1, most=16)
    """How many connections write what the members of groups get; more write faster and leave less for the others."""
    store_readers: int = limited(2, least=1, most=64)
    """How many connections read pages, inboxes and chat lists."""
    retention_interval_s: float = limited(20.0, least=1, most=3600)
    """How often what has disappeared is removed, seconds; nobody sees it from its end on."""
    edit_window_s: float = limited(900.0, least=0)
    """For how long after it was accepted its sender may edit a message, seconds."""
    revoke_window_s: float = limited(172_800.0, least=0)
    """For how long after it was accepted a message may be taken back for everyone, seconds.

    Two days, as WhatsApp has had it since 2022; guides to it say "2 days and 12 hours".
    """
