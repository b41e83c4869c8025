"""Everything that an operator of the registry can set."""

from __future__ import annotations

import dataclasses

from chappe.runtime.config import Secret, ServerSettings, limited


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of svc_presence."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    """What every service has."""
    redis_url: Secret
    """Redis 7 or Valkey 8 and later, as redis://, rediss:// or unix://, with its password; any node of a Cluster."""
    identity_target: str
    """Where svc_identity answers: dns:///name:port of a headless Service, or host:port,host:port."""
    is_redis_cluster: bool = False
    """Whether the address is that of a Cluster."""
    redis_timeout_s: float = limited(2.0, least=0.05, most=60)
    """How long to wait for a connection to Redis, and for an answer, seconds."""
