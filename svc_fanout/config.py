"""Everything that an operator of the carrier can set."""

from __future__ import annotations

import dataclasses

from chappe.runtime.config import ServerSettings, limited


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of svc_fanout."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    """What every service has."""
    presence_target: str
    """Where svc_presence answers: dns:///name:port of a headless Service, or host:port,host:port."""
    edge_target: str = ""
    """The edges that always have a stream, so that they can be told to verify after a loss: dns:///name:port of a
    headless Service, or host:port,host:port. Other edges are found through svc_presence."""
    locate_timeout_s: float = limited(2.0, least=0.05, most=10)
    """How long one question to svc_presence may take, retries included, seconds."""
    max_waiting_hints: int = limited(262_144, least=1024)
    """Above so many waiting hints, one for each user of an item, the oldest are dropped and all sessions verify."""
    max_waiting_bytes: int = limited(134_217_728, least=1_048_576)
    """Above so many bytes of waiting items the oldest are dropped and all sessions verify."""
    large_deliveries_per_s: int = limited(200_000, least=1_000)
    """How many deliveries of items for more than 256 users, messages to large groups, go out in a second; others do not
    count, and go first."""
