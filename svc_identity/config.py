"""Everything an operator can set."""

from dataclasses import dataclass, field

from chappe.runtime.config import Secret, ServerSettings, limited

LEAST_PEPPER_CHARACTERS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How svc_identity is set up; the defaults are what production should run with."""

    server: ServerSettings = field(default_factory=ServerSettings)
    """What every service lets an operator set."""
    store_dsn: Secret
    """The PostgreSQL database of the directory, which nobody else uses."""
    pool_size: int = limited(8, least=2, most=200)
    """How many connections to PostgreSQL one process holds at most."""
    message_target: str
    """Where svc_message is reached: host:port, several with commas, or one name with many addresses."""
    pepper: Secret
    """Mixed into stored one-time codes and page tokens; 32 characters or more, the same for all replicas."""
    development_codes: bool = False
    """Whether StartVerification answers with the code itself; only for development."""
    resend_wait_s: float = limited(60.0, least=0, most=3600)
    """How long a number waits for its second code; the third takes twice, every later one five times as long."""
    codes_per_day: int = limited(5, least=1, most=100_000)
    """How many codes one number gets in 24 hours."""
    codes_per_address: int = limited(20, least=0, most=1_000_000)
    """How many codes the clients of one address get in an hour, all clients behind a proxy having one; 0: no limit."""
    codes_per_range: int = limited(200, least=0, most=1_000_000)
    """How many codes go to numbers that differ in the last four digits alone, in an hour; 0: no limit."""
    lookups_per_day: int = limited(500, least=1, most=1_000_000)
    """How many phone numbers one account may look up or add in a day."""
    links_per_day: int = limited(20, least=1, most=10_000)
    """How many link codes one account may ask for in a day."""
    groups_per_day: int = limited(20, least=0, most=1_000_000)
    """How many groups one account may create in a day."""
    additions_per_day: int = limited(5_000, least=0, most=10_000_000)
    """How many people one account may add to groups in a day."""
    joins_per_day: int = limited(100, least=0, most=1_000_000)
    """How many invites one account may try in a day."""
    change_poll_s: float = limited(0.2, least=0.01, most=1)
    """How often changes of other replicas are looked for."""
    heartbeat_s: float = limited(0.5, least=0.1, most=1)
    """How often readers of changes are told that they have everything."""
    change_keep_s: float = limited(604_800.0, least=3600)
    """How long changes are kept for readers that were away."""

    def __post_init__(self) -> None:
        if len(self.pepper.reveal()) < LEAST_PEPPER_CHARACTERS:
            raise ValueError(
                f"PEPPER is shorter than {LEAST_PEPPER_CHARACTERS} characters; make one: openssl rand -hex 32"
            )
