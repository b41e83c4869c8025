"""Judges ticks and tallies: each one true when it is shown, and none that goes back."""

from chappe.testing.checker_report import short
from chappe.testing.checker_state import Device, Findings, Message, Tally, User, with_one
from chappe.testing.checker_world import World
from chappe.testing.history import Line

DELIVERED = 1
READ = 2
_LEVELS = {"delivered": DELIVERED, "read": READ}
_NOTHING = Tally(0, 0)


class Ticks:
    """Follows `read`, `tick` and `tally`."""

    def __init__(self, world: World, findings: Findings) -> None:
        self._world = world
        self._findings = findings

    def read(self, line: Line) -> None:
        """Takes note of what a user has read: the ids named, or what this device had applied of all up to one."""
        device = self._world.device(line["actor"])
        ids = line.get("ids", [])
        upto, conv = line.get("upto", ""), line["conv"]
        if upto:
            user_upto = self._world.read_upto[conv]
            user_upto[device.user] = max(upto, user_upto.get(device.user, ""))
            unread = device.unread.get(conv, ())
            ids = [id_ for id_ in unread if id_ <= upto]
            device.unread[conv] = [id_ for id_ in unread if id_ > upto]
        for id_ in ids:
            message = self._world.messages[id_]
            if device not in message.readers:
                message.readers = with_one(message.readers, device)

    def tick(self, line: Line) -> None:
        """Judges one state shown."""
        device = self._world.device(line["actor"])
        message = self._world.messages[line["id"]]
        level = _LEVELS[line["state"]]
        by = self._world.user(line["by"]) if "by" in line else message.to
        if message.sender is None or by is None or message.sender.user is not device.user:
            self._lie(line, line["state"], "which is not a message of its user")
            return
        if level == DELIVERED and not is_delivered(message, by):
            self._lie(line, line["state"], f"but no device of {short(by.name)} had applied and acked it")
        elif level == READ and not self._is_read(message, line["id"], by):
            self._lie(line, line["state"], f"but {short(by.name)} had not read it")
        if message.ticks is None:
            message.ticks = {}
        if message.ticks.get((device, by), 0) > level:
            self._lie(line, line["state"], "after it had shown read")
        else:
            message.ticks[device, by] = level

    def tally(self, line: Line) -> None:
        """Judges how many are shown to have a message, and to have read it."""
        device = self._world.device(line["actor"])
        message = self._world.messages[line["id"]]
        shown = Tally(line["delivered"], line["read"])
        words = f"delivered to {shown.delivered} and read by {shown.read} of {line['of']}"
        if message.sender is None or message.sender.user is not device.user:
            self._lie(line, words, "which is not a message of its user")
            return
        true = self._truth(message, line, message.sender.user)
        if shown.delivered > true.delivered or shown.read > true.read:
            self._lie(line, words, f"but {true.delivered} had it, and {true.read} of them had read it")
        elif not shown.read <= shown.delivered <= line["of"]:
            self._lie(line, words, "which cannot be")
        if message.tallies is None:
            message.tallies = {}
            message.recipients = line["of"]
        before = message.tallies.get(device, _NOTHING)
        if shown.delivered < before.delivered or shown.read < before.read:
            self._lie(line, words, f"after delivered to {before.delivered} and read by {before.read}")
        elif line["of"] != message.recipients:
            self._lie(line, words, f"though it was sent to {message.recipients}")
        message.tallies[device] = Tally(*map(max, before, shown))

    def _truth(self, message: Message, line: Line, sender: User) -> Tally:
        have = delivered_to(message)
        read = {device.user for device in message.readers}
        for user, upto in self._world.read_upto.get(message.conv, {}).items():
            # Whoever says that all up to a later one is read says it of what is in its log and on its way, too.
            if upto >= line["id"] and (user in have or self._may_have(user, message, line["t"])):
                read.add(user)
        have |= read
        return Tally(len(have - {sender}), len(read - {sender}))

    def _may_have(self, user: User, message: Message, t: float) -> bool:
        group = self._world.group(message.conv)
        return not group.spans(user) or group.may_have(user, message, min(message.stored_t, t))

    def _is_read(self, message: Message, id_: str, by: User) -> bool:
        if self._world.read_upto[message.conv].get(by, "") >= id_:
            return True
        return any(device.user is by for device in message.readers)

    def _lie(self, line: Line, shown: str, why: str) -> None:
        self._findings.add(
            "tick", line["t"], f"{line['actor']} shows {short(line['id'])} as {shown}, {why}", line["id"]
        )


def is_delivered(message: Message, by: User, away: frozenset[Device] = frozenset()) -> bool:
    """Whether a device of this user, not among those away, has applied and acked a message."""
    # A loop, as this runs for every tick and a generator costs twice as much.
    for device in message.acked:  # noqa: SIM110 - see above
        if device.user is by and device not in away and device in message.applied:
            return True
    return False


def delivered_to(message: Message, away: frozenset[Device] = frozenset()) -> set[User]:
    """Returns the users who have a device, not among those away, that has applied and acked a message."""
    return {device.user for device in message.acked if device not in away and device in message.applied}
