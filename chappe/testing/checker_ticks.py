"""Judges ticks: each one true when it is shown, and none that goes back."""

from chappe.testing.checker_report import short
from chappe.testing.checker_state import Device, Findings, Message, User, World
from chappe.testing.history import Line

DELIVERED = 1
READ = 2
_LEVELS = {"delivered": DELIVERED, "read": READ}


class Ticks:
    """Follows `read` and `tick`."""

    def __init__(self, world: World, findings: Findings) -> None:
        self._world = world
        self._findings = findings

    def read(self, line: Line) -> None:
        """Takes note of what a user has read."""
        device = self._world.device(line["actor"])
        for id_ in line.get("ids", ()):
            message = self._world.messages[id_]
            if device not in message.readers:
                message.readers += (device,)
        upto = line.get("upto", "")
        if upto > device.read_upto.get(line["conv"], ""):
            device.read_upto[line["conv"]] = upto

    def tick(self, line: Line) -> None:
        """Judges one state shown."""
        device = self._world.device(line["actor"])
        message = self._world.messages[line["id"]]
        level = _LEVELS[line["state"]]
        by = self._world.user(line["by"]) if "by" in line else message.to
        if message.sender is None or by is None or message.sender.user is not device.user:
            self._lie(line, "which is not a message of its user")
            return
        if level == DELIVERED and not is_delivered(message, by):
            self._lie(line, f"but no device of {short(by.name)} had applied and acked it")
        elif level == READ and not is_read(message, line["id"], by):
            self._lie(line, f"but {short(by.name)} had not read it")
        if message.ticks is None:
            message.ticks = {}
        if message.ticks.get((device, by), 0) > level:
            self._lie(line, "after it had shown read")
        else:
            message.ticks[device, by] = level

    def _lie(self, line: Line, why: str) -> None:
        what = f"{line['actor']} shows {short(line['id'])} as {line['state']}, {why}"
        self._findings.add("tick", line["t"], what, line["id"])


def is_delivered(message: Message, by: User, away: frozenset[Device] = frozenset()) -> bool:
    """Whether a device of this user, not among those away, has applied and acked a message."""
    # A loop, as this runs for every tick and a generator costs twice as much.
    for device in message.acked:  # noqa: SIM110 - see above
        if device.user is by and device not in away and device in message.applied:
            return True
    return False


def is_read(message: Message, id_: str, by: User) -> bool:
    """Whether this user has read a message, by naming it or all up to a later one."""
    for device in message.readers:
        if device.user is by:
            return True
    return any(device.read_upto.get(message.conv, "") >= id_ for device in by.devices)
