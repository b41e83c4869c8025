"""What the checker remembers: a few words for each message, device and block, never the lines themselves."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from chappe.testing.checker_report import Guarantee, Violation

_NEVER = float("inf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far the promises reach, and how much is told."""

    block_grace_ms: float = 2_000
    """A block may take this long to bite after it has returned."""
    clock_lead_ms: float = 2_500
    """A reply need not sort after a message that is further ahead of the clock than this."""
    stories: int = 20
    """Violations told for each guarantee; the counts go on."""


@dataclass(slots=True, eq=False)
class User:
    """A user, with every device that was heard of."""

    name: str
    devices: list["Device"] = field(default_factory=list["Device"])


@dataclass(slots=True, eq=False)
class Device:
    """One device."""

    name: str
    user: User
    since: float = _NEVER
    """Entitled to what is first sent from now on; infinite until it is declared or connects."""
    is_gone: bool = False
    last_sent: str = ""
    """The highest id that it has sent."""
    last_seen: dict[str, str] = field(default_factory=dict[str, str])
    """By conversation, the highest id of a message that it has applied."""
    read_upto: dict[str, str] = field(default_factory=dict[str, str])
    drafts: dict[str, str] = field(default_factory=dict[str, str])
    """By outbox entry, the id under which it was last sent."""


@dataclass(slots=True, eq=False)
class Message:
    """What is known of one id; tuples, as they are short and an empty one costs nothing."""

    sender: Device | None = None
    """None until its `send` is read."""
    to: User | None = None
    """None in a group."""
    conv: str = ""
    kind: str = ""
    sent_t: float = _NEVER
    stored_t: float = _NEVER
    accepted_ms: int = 0
    is_refused: bool = False
    applied: tuple[Device, ...] = ()
    acked: tuple[Device, ...] = ()
    readers: tuple[Device, ...] = ()
    ticks: dict[tuple[Device, User], int] | None = None

    @property
    def is_stored(self) -> bool:
        """Whether its sender was told that it is stored."""
        return self.stored_t < _NEVER


class World:
    """Everything heard of so far."""

    def __init__(self) -> None:
        self.messages: defaultdict[str, Message] = defaultdict(Message)
        self.devices: dict[str, Device] = {}
        self.users: dict[str, User] = {}

    def device(self, name: str) -> Device:
        """Returns the device of this name, new if it was not heard of."""
        found = self.devices.get(name)
        if found is None:
            user = self.user(name.partition("/")[0])
            found = self.devices[name] = Device(name, user)
            user.devices.append(found)
        return found

    def user(self, name: str) -> User:
        """Returns the user of this id, new if not heard of."""
        found = self.users.get(name)
        if found is None:
            found = self.users[name] = User(name)
        return found


class Findings:
    """Counts broken promises, and keeps the first few of each."""

    def __init__(self, limit: int) -> None:
        self.counts: Counter[Guarantee] = Counter()
        self.kept: list[Violation] = []
        self._limit = limit

    def add(self, guarantee: Guarantee, t: float, what: str, *ids: str, users: tuple[str, ...] = ()) -> None:
        """Adds one violation at a time, about some ids."""
        self.counts[guarantee] += 1
        if self.counts[guarantee] <= self._limit:
            self.kept.append(Violation(guarantee=guarantee, t=t, what=what, ids=ids, users=users))


@dataclass(slots=True)
class _Span:
    began: float
    returned: float
    lift_began: float = _NEVER
    lifted: float = _NEVER


class Blocks:
    """Who has blocked whom, and when for certain or perhaps."""

    def __init__(self, grace_ms: float) -> None:
        self._grace_ms = grace_ms
        self._spans: dict[tuple[User, User], list[_Span]] = {}

    def __bool__(self) -> bool:
        return bool(self._spans)

    def block(self, by: User, whom: User, began: float, returned: float) -> None:
        """Opens a span; blocking again changes nothing."""
        spans = self._spans.setdefault((by, whom), [])
        if not spans or spans[-1].lifted < _NEVER:
            spans.append(_Span(began, returned))

    def lift(self, by: User, whom: User, began: float, returned: float) -> None:
        """Closes the open span, if there is one."""
        spans = self._spans.get((by, whom))
        if spans and spans[-1].lifted == _NEVER:
            spans[-1].lift_began, spans[-1].lifted = began, returned

    def may_bite(self, by: User, whom: User, start: float, end: float) -> bool:
        """Whether a message accepted between these times may rightly be withheld."""
        spans = self._spans.get((by, whom), ())
        return any(span.began <= end and span.lifted >= start for span in spans)

    def must_bite(self, by: User, whom: User, start: float, end: float) -> bool:
        """Whether a message accepted between these times must be withheld, whichever moment it was."""
        spans = self._spans.get((by, whom), ())
        return any(span.returned + self._grace_ms <= start and span.lift_began > end for span in spans)
