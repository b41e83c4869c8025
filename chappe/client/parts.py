"""What a client may be given instead of what it makes itself."""

from dataclasses import dataclass, field

from chappe.client.connection import ConnectionOptions
from chappe.client.recorder import Recorder
from chappe.client.seams import Seams, system_seams


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientParts:
    """What a client may be given instead of what it makes itself."""

    seams: Seams = field(default_factory=system_seams)
    options: ConnectionOptions = field(default_factory=ConnectionOptions)
    recorder: Recorder | None = None
    online_s: float = 10.0
    """How long entering the client, and each call, waits for a session."""
    may_start_offline: bool = False
    """Entering the client does not wait for an edge; what is sent waits in the outbox.

    Once a call has waited for a session in vain, the next ones fail at once until there is one.
    """
    may_follow: bool = True
    """Whether this process goes through another one that leads the profile; otherwise a profile in use is refused."""
