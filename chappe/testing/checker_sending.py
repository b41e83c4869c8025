"""Judges the sending side: ids in order, and retries that make one message or one final no."""

from typing import NamedTuple

from chappe.testing.checker_report import Concern, short
from chappe.testing.checker_state import Device, Findings, Limits, Message
from chappe.testing.checker_world import World
from chappe.testing.history import Line

_NO_MEMBER = "NOT_IN_CONVERSATION"
_SKEW = "CLOCK_SKEW"


class _TurnedAway(NamedTuple):
    """A message that was refused because its sender would be no member."""

    message: Message
    sender: Device
    id: str
    t: float


class Sending:
    """Follows `send`, `stored` and `refused`."""

    def __init__(self, world: World, findings: Findings, limits: Limits) -> None:
        self.sent = 0
        self.acknowledged = 0
        self._world = world
        self._findings = findings
        self._clock_lead_ms = limits.clock_lead_ms
        self._convs: dict[str, str] = {}
        self._turned_away: list[_TurnedAway] = []

    def send(self, line: Line) -> None:
        """Takes note of a message, and of its place; a retry says nothing new."""
        device = self._world.device(line["actor"])
        message = self._world.messages[line["id"]]
        if message.sender is None:
            self.sent += 1
            # Who sends exists, declared or not.
            device.since = min(device.since, line["t"])
            message.sender = device
            message.conv = self._convs.setdefault(line["conv"], line["conv"])
            message.to = self._world.user(line["to"]) if line["to"] else None
            message.kind = line["kind"]
            message.target = line.get("target", "")
            message.version = line.get("version", 0)
            message.sent_t = line["t"]
            self._judge_place(device, line)
            if "draft" in line:
                self._judge_draft(device, line["draft"], line)
        elif message.sender is not device:
            what = f"{device.name} sends {short(line['id'])}, which is an id of {message.sender.name}"
            self._findings.add("retry", line["t"], what, line["id"])
        elif line["attempt"] == 1:
            # Services write a first attempt without looking whether it is there.
            what = f"{device.name} sends {short(line['id'])} again and calls it the first attempt"
            self._findings.add("retry", line["t"], what, line["id"])

    def stored(self, line: Line) -> None:
        """Compares a SendAck with what was said before."""
        id_, t = line["id"], line["t"]
        message = self._world.messages[id_]
        if message.sender is not self._world.device(line["actor"]):
            self._findings.add("retry", t, f"{short(id_)} is acknowledged to a device that never sent it", id_)
        elif message.is_refused:
            self._findings.add("retry", t, f"{short(id_)} is stored after it was refused for good", id_)
        elif not message.is_stored:
            self.acknowledged += 1
            message.stored_t = t
            message.accepted_ms = line["accepted_ms"]
        elif message.accepted_ms != line["accepted_ms"]:
            what = f"{short(id_)} is acknowledged twice, accepted at {message.accepted_ms} and "
            self._findings.add("retry", t, what + f"at {line['accepted_ms']}", id_)

    def refused(self, line: Line) -> None:
        """Holds a final no against what was said and shown before."""
        id_ = line["id"]
        message, sender = self._world.messages[id_], self._world.device(line["actor"])
        if message.sender is not sender:
            what = f"{short(id_)} is refused to a device that never sent it"
            self._findings.add("retry", line["t"], what, id_)
            return
        if not line["final"] or message.is_refused:
            return
        message.is_refused = True
        if line["reason"] == _SKEW:
            # Its clock was put right, and nothing has an id of the time before that.
            sender.last_sent = ""
        if line["reason"] == _NO_MEMBER and message.to is None:
            self._turned_away.append(_TurnedAway(message, sender, id_, line["t"]))
        if message.is_stored:
            self._findings.add("retry", line["t"], f"{short(id_)} is refused for good after it was stored", id_)
        elif others := [device for device in message.applied if device is not sender]:
            what = f"{short(id_)} is refused for good after {others[0].name} applied it"
            self._findings.add("retry", line["t"], what, id_)

    def finish(self) -> None:
        """Judges what could not be judged before all memberships were told."""
        for message, sender, id_, t in self._turned_away:
            if self._world.group(message.conv).must_take(sender.user, message.sent_t, t):
                what = f"{sender.name} is told that it is no member of {short(message.conv)}, which it is"
                self._findings.add("membership", t, what, id_, concern=Concern((sender.user.name,), message.conv))

    def _judge_place(self, device: Device, line: Line) -> None:
        id_, t = line["id"], line["t"]
        if line["attempt"] > 1:
            # Loaded from disk by a process that does not know when it was minted.
            return
        if id_ <= device.last_sent:
            what = f"{device.name} sends {short(id_)} after {short(device.last_sent)}, but it sorts before"
            self._findings.add("order", t, what, device.last_sent, id_)
        device.last_sent = max(id_, device.last_sent)
        seen = device.last_seen.get(line["conv"], "")
        if line["kind"] == "message" and id_ <= seen and int(seen[:12], 16) - t <= self._clock_lead_ms:
            what = f"{device.name} had applied {short(seen)} when it sent {short(id_)}, which sorts before"
            self._findings.add("order", t, what, seen, id_)

    def _judge_draft(self, device: Device, draft: str, line: Line) -> None:
        before = device.drafts.get(draft)
        device.drafts[draft] = line["id"]
        if before is not None and not self._world.messages[before].is_refused:
            what = f"{device.name} sends {short(before)} again as {short(line['id'])}, "
            what += "though the first was never refused for good"
            self._findings.add("retry", line["t"], what, before, line["id"])
