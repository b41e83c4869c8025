"""Judges what devices apply: once, in time, in the right place, and only by those entitled to it."""

from itertools import pairwise
from typing import NamedTuple

from chappe.testing.checker_report import Concern, short
from chappe.testing.checker_spans import Blocks
from chappe.testing.checker_state import Device, Findings, Limits, Message, User, with_one
from chappe.testing.checker_world import World
from chappe.testing.history import Line

_POSITION_DIGITS = 32


class _Early(NamedTuple):
    """An event that was applied before its send was read."""

    device: Device
    message: Message
    line: Line


class _Suspect(NamedTuple):
    """A delivery through a block, unless the block turns out to have been lifted in time."""

    device: Device
    sender: User
    id: str
    t: float
    sent_t: float
    accepted_by: float


class _Stranger(NamedTuple):
    """A delivery to somebody who is no member, unless the membership turns out to have begun in time."""

    device: Device
    message: Message
    id: str
    t: float
    written_t: float
    """When it was written into the inbox, by the position in it; 0 when it came otherwise."""


class Delivery:
    """Follows `apply`, `ack`, `shown`, `block` and `unblock`."""

    def __init__(self, world: World, findings: Findings, limits: Limits) -> None:
        self.applied = 0
        self.blocks = Blocks(limits.block_grace_ms)
        self._world = world
        self._findings = findings
        self._limits = limits
        self._early: list[_Early] = []
        self._suspects: list[_Suspect] = []
        self._strangers: list[_Stranger] = []

    def apply(self, line: Line) -> None:
        """Judges one event given to an application."""
        id_ = line["id"]
        device = self._world.device(line["actor"])
        message = self._world.messages[id_]
        self.applied += 1
        device.heard_t = line["t"]
        if device in message.applied:
            self._findings.add("double", line["t"], f"{device.name} applies {short(id_)} again", id_)
            return
        message.applied = with_one(message.applied, device)
        if line["ms"] != int(id_[:12], 16):
            what = f"{device.name} sorts {short(id_)} by {line['ms']}, others by {int(id_[:12], 16)} of its id"
            self._findings.add("order", line["t"], what, id_)
        if line["kind"] == "message":
            self._note(device, line)
        if message.is_refused and device is not message.sender:
            what = f"{device.name} applies {short(id_)}, which was refused for good"
            self._findings.add("retry", line["t"], what, id_)
        if line["t"] - max(message.stored_t, device.connected_t) > self._limits.repair_ms and line["how"] != "history":
            self._find_late(device, message, line)
        if message.sender is None:
            self._early.append(_Early(device, message, line))
        else:
            self._judge_entitled(device, message, message.sender.user, line)

    def ack(self, line: Line) -> None:
        """Takes note of what a device has on its disk."""
        device = self._world.device(line["actor"])
        messages = self._world.messages
        for id_ in line.get("ids", ()):
            message = messages[id_]
            if device not in message.acked:
                message.acked = with_one(message.acked, device)

    def shown(self, line: Line) -> None:
        """Judges the order in which a device displays messages."""
        ids = line.get("ids", [])
        for before, after in pairwise(ids):
            if before >= after:
                what = f"{line['actor']} displays {short(before)} above {short(after)}, which sorts before"
                self._findings.add("order", line["t"], what, before, after)

    def block(self, line: Line) -> None:
        """Takes note of a block."""
        by, whom = self._world.device(line["actor"]).user, self._world.user(line["whom"])
        self.blocks.block(by, whom, line.get("at", line["t"]), line["t"])

    def unblock(self, line: Line) -> None:
        """Takes note of a block that was lifted."""
        by, whom = self._world.device(line["actor"]).user, self._world.user(line["whom"])
        self.blocks.lift(by, whom, line.get("at", line["t"]), line["t"])

    def finish(self) -> None:
        """Judges what could not be judged before all was read."""
        invented: set[str] = set()
        for device, message, line in self._early:
            if message.sender is not None:
                self._judge_entitled(device, message, message.sender.user, line)
            elif line["id"] not in invented:
                invented.add(line["id"])
                what = f"{device.name} applies {short(line['id'])}, which nobody sent"
                self._findings.add("invented", line["t"], what, line["id"])
        for suspect in self._suspects:
            by, sender = suspect.device.user, suspect.sender
            if self.blocks.must_bite(by, sender, suspect.sent_t, suspect.accepted_by):
                what = f"{suspect.device.name} applies {short(suspect.id)}, "
                what += "accepted while its sender was blocked"
                concern = Concern((by.name, sender.name))
                self._findings.add("misdelivery", suspect.t, what, suspect.id, concern=concern)
        for stranger in self._strangers:
            self._judge_stranger(stranger)

    def _note(self, device: Device, line: Line) -> None:
        id_, conv = line["id"], line["conv"]
        if id_ > device.last_seen.get(conv, ""):
            device.last_seen[conv] = id_
        if line["sender"] != device.user.name:
            device.unread.setdefault(conv, []).append(id_)

    def _find_late(self, device: Device, message: Message, line: Line) -> None:
        waited_s = (line["t"] - max(message.stored_t, device.connected_t)) / 1000
        what = f"{device.name} was connected and got {short(line['id'])} only after {waited_s:.1f} s"
        self._findings.add("late", line["t"], what, line["id"])

    def _judge_entitled(self, device: Device, message: Message, sender: User, line: Line) -> None:
        id_, t, user = line["id"], line["t"], device.user
        if line["sender"] != sender.name or line["conv"] != message.conv:
            what = f"{device.name} is given {short(id_)} as from {short(line['sender'])} "
            what += f"in {short(line['conv'])}, but it is from {short(sender.name)} in {short(message.conv)}"
            self._findings.add("misdelivery", t, what, id_)
        elif message.sent_t >= device.gone_t + self._limits.block_grace_ms:
            what = f"{device.name} applies {short(id_)}, sent after it had been unlinked"
            self._findings.add("misdelivery", t, what, id_)
        elif user is sender:
            return
        elif message.kind == "hide" or user is not (message.to or user):
            what = f"{device.name} applies {short(id_)}, which was sent to "
            what += (
                "its sender's own devices" if message.kind == "hide" or message.to is None else short(message.to.name)
            )
            self._findings.add("misdelivery", t, what, id_)
        elif message.to is None:
            self._look_at_member(device, message, line)
        elif self.blocks:
            accepted_by = min(message.stored_t, t)
            if self.blocks.must_bite(user, sender, message.sent_t, accepted_by):
                self._suspects.append(_Suspect(device, sender, id_, t, message.sent_t, accepted_by))

    def _look_at_member(self, device: Device, message: Message, line: Line) -> None:
        group = self._world.group(message.conv)
        is_quick = not message.target and group.is_steady(device.user, min(message.stored_t, line["t"]))
        if group.is_told and not is_quick:
            self._strangers.append(_Stranger(device, message, line["id"], line["t"], _written_t(line)))

    def _judge_stranger(self, stranger: _Stranger) -> None:
        device, message, id_, t, written_t = stranger
        group, user = self._world.group(message.conv), device.user
        what = f"{device.name} applies {short(id_)}, "
        # What was done to a message is also for those who saw it and have come back before it was written for them.
        if not group.may_have(user, message, t if message.target else min(message.stored_t, t)):
            what += f"though {short(user.name)} is no member of {short(group.name)}"
        elif group.has_left(user, written_t):
            what += f"written for {short(user.name)} after it had left {short(group.name)}"
        elif not self._may_see_original(user, message):
            what += f"about {short(message.target)}, which {short(user.name)} could not see"
        else:
            return
        self._findings.add("misdelivery", t, what, id_, concern=Concern((user.name,), group.name))

    def _may_see_original(self, user: User, message: Message) -> bool:
        original = self._world.original(message)
        if original is None or original.sender is None or original.sender.user is user:
            return True
        return self._world.group(original.conv).may_have(user, original, original.stored_t)


def _written_t(line: Line) -> float:
    """Returns the server's time in the position of an event, a UUIDv7 like a message's id."""
    position = line["pos"]
    return float(int(position[:12], 16)) if line["how"] != "history" and len(position) == _POSITION_DIGITS else 0.0
