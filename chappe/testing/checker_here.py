"""Who is there when all is quiet, and what was said about it before."""

from collections.abc import Iterable, Iterator

from chappe.testing.checker_report import NOTHING, Concern, Guarantee
from chappe.testing.checker_state import Device, Findings, Message, User
from chappe.testing.checker_world import World


class Here:
    """The devices at one end line: those that must have everything, and those away."""

    def __init__(self, world: World, t: float, absent: Iterable[str]) -> None:
        """Looks around.

        Args:
            world: Who there is.
            t: When all was quiet.
            absent: The devices that cannot have caught up.
        """
        self.t = t
        gone = (device for device in world.devices.values() if device.gone_t <= t)
        self.away = frozenset([*(world.device(name) for name in absent), *gone])
        self._present = {
            user: [device for device in user.devices if device.since <= t and device not in self.away]
            for user in world.users.values()
        }
        self._known = {device.user for device in world.devices.values() if device.since <= t}

    def present(self, user: User) -> list[Device]:
        """Returns the devices of a user that must have everything."""
        return self._present.get(user, [])

    def is_known(self, user: User) -> bool:
        """Whether any device of a user was ever heard of."""
        return user in self._known

    def lacking(self, user: User, message: Message) -> Iterator[Device]:
        """Yields the present devices of a user that should have a message, were the user entitled, and have not."""
        applied = message.applied
        for device in self.present(user):
            if device not in applied and device.since <= message.sent_t:
                yield device


class Told:
    """Each end judges everything; what was found at an earlier one is not told again."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._told: set[tuple[Guarantee, str, str]] = set()

    def once(self, guarantee: Guarantee, t: float, what: str, id_: str = "", concern: Concern = NOTHING) -> None:
        """Adds a violation unless it was added before."""
        if (guarantee, id_, what) not in self._told:
            self._told.add((guarantee, id_, what))
            self._findings.add(guarantee, t, what, *([id_] if id_ else []), concern=concern)
