"""Everything an operator can set."""

from dataclasses import dataclass, field

from chappe.runtime.config import ServerSettings, limited


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How svc_edge is set up; the defaults are what production should run with."""

    server: ServerSettings = field(default_factory=ServerSettings)
    """What every service lets an operator set."""
    message_target: str
    """Where svc_message is reached: addresses by commas, or dns:///name:port of a headless Service."""
    presence_target: str
    """Where svc_presence is reached, like MESSAGE_TARGET."""
    identity_target: str
    """Where svc_identity is reached, like MESSAGE_TARGET."""
    ws_listen: str = "127.0.0.1:0"
    """Where WebSocket clients connect, host:port, without TLS: a proxy in front ends it."""
    advertise: str = ""
    """The address at which svc_fanout reaches this process, host:port; empty for the one of LISTEN."""
    allowed_origins: tuple[str, ...] = ()
    """The origins of web pages that may connect, like https://chat.example.org; * for any."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that a client may sign in its Hello besides the one in its Host header, for proxies that change it."""
    allow_json: bool = False
    """Whether the JSON sub-protocol is spoken, for development and debugging."""
    max_connections: int = limited(100_000, least=1)
    """How many WebSocket connections one process takes."""
    anonymous_per_address: int = limited(20, least=0)
    """How many connections without a user one address may have; all clients behind a proxy have one address."""
    anonymous_in_all: int = limited(1_000, least=0)
    """How many connections without a user there may be."""
    frame_burst: int = limited(400, least=10)
    """How many frames a connection may send at once."""
    frame_rate: int = limited(50, least=1)
    """How many frames a connection may send each second after its burst."""
    read_call_burst: int = limited(300, least=1)
    """How many Calls that read a connection may make at once; the contract says of each method what it is."""
    read_call_rate: float = limited(50.0, least=0.001)
    """How many Calls that read a connection may make each second after its burst."""
    write_call_burst: int = limited(100, least=1)
    """How many Calls that change something a connection may make at once."""
    write_call_rate: float = limited(10.0, least=0.001)
    """How many Calls that change something a connection may make each second after its burst."""
    sensitive_call_burst: int = limited(20, least=1)
    """How many Calls that could guess or cost money a connection may make at once: codes, look-ups, signing in."""
    sensitive_call_rate: float = limited(0.2, least=0.001)
    """How many such Calls a connection may make each second after its burst; 0.2 is one in 5 seconds."""
    send_window: int = limited(32, least=1, most=4096)
    """How many Sends of a connection may wait for their answers."""
    receive_window: int = limited(256, least=1, most=4096)
    """How many items a client that names no window is sent without acknowledgement."""
    verify_interval_s: float = limited(120.0, least=1, most=3600)
    """How often each session reads its log, whatever was pushed."""
    verify_jitter_s: float = limited(30.0, least=0, most=600)
    """By how much that may be earlier or later."""
    watches_per_session: int = limited(500, least=1, most=16_384)
    """How many people a connection may watch."""
    watches_in_all: int = limited(200_000, least=1)
    """How many people and conversations all connections together may watch, counted once for each user who watches."""
