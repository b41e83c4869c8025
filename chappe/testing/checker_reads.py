"""Judges that all devices of a user learn how far it has read, whichever of them it read on."""

from typing import NamedTuple

from chappe.testing.checker_here import Here, Told
from chappe.testing.checker_report import short
from chappe.testing.checker_state import Device
from chappe.testing.checker_world import World
from chappe.testing.history import Line


class _Read(NamedTuple):
    """How far somebody has read a conversation on one device."""

    upto: str
    t: float


_NOTHING = _Read("", 0.0)


class Reads:
    """Follows `read` and `elsewhere`."""

    def __init__(self, world: World, told: Told) -> None:
        self._world = world
        self._told = told
        self._read: dict[tuple[Device, str], _Read] = {}
        """By device and conversation, how far its user has read there."""
        self._known: dict[tuple[Device, str], str] = {}
        """By device and conversation, how far it knows that its user has read, there or elsewhere."""

    def read(self, line: Line) -> None:
        """Takes note of what a user has read on a device: the newest message of another that it had not read before."""
        device, conv, upto = self._world.device(line["actor"]), line["conv"], line.get("upto", "")
        newest = max((id_ for id_ in device.unread.get(conv, ()) if id_ <= upto), default="")
        if newest > self._read.get((device, conv), _NOTHING).upto:
            self._read[device, conv] = _Read(newest, line["t"])
        if upto > self._known.get((device, conv), ""):
            self._known[device, conv] = upto

    def elsewhere(self, line: Line) -> None:
        """Takes note of what a device was told."""
        key = self._world.device(line["actor"]), line["conv"]
        self._known[key] = max(line.get("upto", ""), self._known.get(key, ""))

    def end(self, here: Here) -> None:
        """Judges what everybody should have been told by now."""
        unsure = self._unsure()
        for (reader, conv), (upto, t) in self._read.items():
            if (reader, conv) in unsure:
                continue
            for device in here.present(reader.user):
                if device.since <= t and self._known.get((device, conv), "") < upto:
                    what = f"{device.name} never learned that its user has read up to {short(upto)} on {reader.name}"
                    self._told.once("convergence", here.t, what, upto)

    def _unsure(self) -> set[tuple[Device, str]]:
        """Returns where a read has not been acknowledged, or what was hidden may be what it would have reached."""
        unsure: set[tuple[Device, str]] = set()
        for message in self._world.messages.values():
            if message.sender is None:
                continue
            if message.kind == "read" and not message.is_stored:
                unsure.add((message.sender, message.conv))
            elif message.kind == "hide":
                unsure.update((device, message.conv) for device in message.sender.user.devices)
        return unsure
