"""Judges what must be true once all is quiet: everything has arrived, and devices agree."""

from chappe.testing.checker_delivery import Delivery
from chappe.testing.checker_report import short
from chappe.testing.checker_state import Device, Findings, Message, User, World
from chappe.testing.checker_ticks import DELIVERED, READ, is_delivered
from chappe.testing.history import Line

# A read is a send too, but its peer gets ticks of it instead of an event.
# An edit or a reaction in whose place another one stands need not arrive any more.
_ARRIVING_KINDS = frozenset({"message", "revoke"})
_STATES = ("nothing", "delivered", "read")


class Quiet:
    """Follows `device`, `gone`, `connect` and `end`."""

    def __init__(self, world: World, findings: Findings, delivery: Delivery) -> None:
        self.ends = 0
        self.unjudged = 0
        self._world = world
        self._findings = findings
        self._blocks = delivery.blocks
        self._told: set[tuple[str, object]] = set()
        self._away: frozenset[Device] = frozenset()
        self._known: set[User] = set()
        self._present: dict[User, list[Device]] = {}

    def device(self, line: Line) -> None:
        """Entitles a device to what is sent from now on."""
        device = self._world.device(line["device"])
        device.since = min(device.since, line["t"])

    def gone(self, line: Line) -> None:
        """Expects nothing more of a device."""
        self._world.device(line["device"]).is_gone = True

    def connect(self, line: Line) -> None:
        """Entitles a device that nobody declared."""
        device = self._world.device(line["actor"])
        device.since = min(device.since, line["t"])

    def end(self, line: Line) -> None:
        """Judges all messages that were acknowledged before."""
        absent = {self._world.device(name) for name in line.get("absent", ())}
        self._away = frozenset(absent.union(d for d in self._world.devices.values() if d.is_gone))
        self._present = {
            user: [device for device in user.devices if device.since <= line["t"] and device not in self._away]
            for user in self._world.users.values()
        }
        self._known = {device.user for device in self._world.devices.values() if device.since <= line["t"]}
        self.ends += 1
        self.unjudged = 0
        has_ticks = line.get("ticks", True)
        for id_, message in self._world.messages.items():
            if message.is_stored and message.sender is not None and message.kind in _ARRIVING_KINDS:
                self._judge_arrival(id_, message, message.sender, line["t"])
                if has_ticks and message.kind == "message":
                    self._judge_ticks(id_, message, message.sender, line["t"])

    def _judge_arrival(self, id_: str, message: Message, sender: Device, t: float) -> None:
        applied, sent_t = message.applied, message.sent_t
        for device in self._present[sender.user]:
            if device is not sender and device not in applied and device.since <= sent_t:
                self._lose(id_, device, t)
        to = message.to
        if to is None or to is sender.user:
            return
        peers = self._present[to]
        self.unjudged += not (peers or to in self._known)
        missing = [d for d in peers if d not in applied and d.since <= sent_t]
        if missing and self._blocks.may_bite(to, sender.user, sent_t, message.stored_t):
            shown = [device for device in applied if device.user is to]
            if shown:
                what = f"{shown[0].name} has {short(id_)}, sent about a block, and {missing[0].name} has not"
                self._diverge(id_, what, t)
            return
        for device in missing:
            self._lose(id_, device, t)

    def _judge_ticks(self, id_: str, message: Message, sender: Device, t: float) -> None:
        ticks = message.ticks or {}
        own = self._present[sender.user]
        own = [device for device in own if device is sender or device.since <= message.sent_t]
        peers = {message.to} if message.to is not None else {by for _, by in ticks}
        for by in peers.difference({sender.user}) if own else ():
            levels = [ticks.get((device, by), 0) for device in own]
            due = self._due(message, by)
            if due <= min(levels) == max(levels):
                continue
            low = own[levels.index(min(levels))]
            if max(levels) != min(levels):
                high = own[levels.index(max(levels))]
                what = f"{high.name} shows {short(id_)} as {_STATES[max(levels)]}, "
                what += f"{low.name} as {_STATES[min(levels)]}"
                self._diverge(id_, what, t)
            else:
                what = f"{short(id_)} is {_STATES[due]}, but {low.name} shows {_STATES[min(levels)]}"
                self._diverge(id_, what, t)

    def _due(self, message: Message, by: User) -> int:
        for device in message.readers:
            if device.user is by and device not in self._away:
                return READ
        return DELIVERED if is_delivered(message, by, self._away) else 0

    def _lose(self, id_: str, device: Device, t: float) -> None:
        # Each end judges everything; what is still missing then was told before.
        if (id_, device) not in self._told:
            self._told.add((id_, device))
            self._findings.add("loss", t, f"{device.name} never applied {short(id_)}", id_)

    def _diverge(self, id_: str, what: str, t: float) -> None:
        if (id_, what) not in self._told:
            self._told.add((id_, what))
            self._findings.add("convergence", t, what, id_)
