"""Judges what must be true once all is quiet: everything has arrived, and devices agree."""

from collections.abc import Iterable, Sequence

from chappe.testing.checker_acts import Acts
from chappe.testing.checker_counts import Counts
from chappe.testing.checker_delivery import Delivery
from chappe.testing.checker_groups import Groups
from chappe.testing.checker_here import Here, Told
from chappe.testing.checker_reads import Reads
from chappe.testing.checker_report import Concern, short
from chappe.testing.checker_state import Device, Findings, Message, User
from chappe.testing.checker_world import World
from chappe.testing.history import Line

# A read is a send too, but its peer gets ticks of it instead of an event.
# An edit or a reaction in whose place another one stands need not arrive any more; `Acts` looks after those.
_ARRIVING_KINDS = frozenset({"message", "revoke", "hide"})
_OF_MEMBERS = frozenset({"message", "edit", "revoke", "reaction"})
"""What only members do in a group: whoever has left still says what it has read, and hides what it has."""


class Quiet:
    """Follows `device`, `gone`, `connect`, `disconnect` and `end`."""

    def __init__(self, world: World, findings: Findings, delivery: Delivery, groups: Groups) -> None:
        self.ends = 0
        self.unjudged = 0
        self._world = world
        self._blocks = delivery.blocks
        self._groups = groups
        self._told = Told(findings)
        self._acts = Acts(world, self._told, delivery.blocks)
        self._counts = Counts(world, self._told)
        self.reads = Reads(world, self._told)
        self._here = Here(world, 0.0, ())

    def device(self, line: Line) -> None:
        """Entitles a device to what is sent from now on."""
        device = self._world.device(line["device"])
        device.since = min(device.since, line["t"])

    def gone(self, line: Line) -> None:
        """Expects nothing more of a device."""
        device = self._world.device(line["device"])
        device.gone_t = min(device.gone_t, line["t"])

    def connect(self, line: Line) -> None:
        """Entitles a device that nobody declared."""
        device = self._world.device(line["actor"])
        device.since = min(device.since, line["t"])
        device.connected_t = line["t"]

    def disconnect(self, line: Line) -> None:
        """Expects nothing of a device until it is connected again."""
        self._world.device(line["actor"]).connected_t = float("inf")

    def end(self, line: Line) -> None:
        """Judges all messages that were acknowledged before."""
        self._here = Here(self._world, line["t"], line.get("absent", ()))
        self.ends += 1
        self.unjudged = 0
        has_ticks = line.get("ticks", True)
        for id_, message in self._world.messages.items():
            if not message.is_stored or message.sender is None:
                continue
            if message.to is None and message.kind in _OF_MEMBERS:
                self._judge_membership(id_, message, message.sender)
            if message.kind in _ARRIVING_KINDS:
                self._judge_arrival(id_, message, message.sender)
                if has_ticks and message.kind == "message":
                    self._counts.judge(self._here, id_, message, message.sender)
        self._acts.end(self._here)
        if line.get("reads", False):
            self.reads.end(self._here)
        if line.get("learns", True):
            self._groups.end(self._here, self._told)

    def _judge_membership(self, id_: str, message: Message, sender: Device) -> None:
        group = self._world.group(message.conv)
        if group.is_told and not group.may_have(sender.user, message, message.stored_t):
            done = "" if message.kind == "message" else f"the {message.kind} "
            what = f"{done}{short(id_)} was accepted, though {sender.name} is no member of {short(group.name)}"
            self._told.once("membership", self._here.t, what, id_, Concern((sender.user.name,), group.name))

    def _judge_arrival(self, id_: str, message: Message, sender: Device) -> None:
        for device in self._here.lacking(sender.user, message):
            if device is not sender:
                self._lose(id_, device)
        if message.kind == "hide":
            return
        if message.to is None:
            self._judge_group_arrival(id_, message, sender)
        elif message.to is not sender.user:
            self._judge_peer_arrival(id_, message, message.to)

    def _judge_peer_arrival(self, id_: str, message: Message, to: User) -> None:
        peers = self._here.present(to)
        self.unjudged += not (peers or self._here.is_known(to))
        missing = list(self._here.lacking(to, message))
        if missing and self._blocks.may_withhold(message, self._world.original(message)):
            self._agree(id_, message, to, "sent about a block")
            return
        for device in missing:
            self._lose(id_, device)

    def _judge_group_arrival(self, id_: str, message: Message, sender: Device) -> None:
        group = self._world.group(message.conv)
        self.unjudged += not group.is_told
        if not group.is_told:
            return
        certain, unsure = group.audience(message)[:2]
        for user in self._seeing(message, certain):
            if user is not sender.user:
                for device in self._here.lacking(user, message):
                    self._lose(id_, device, group.name)
        for user in unsure:
            if user is not sender.user:
                self._agree(id_, message, user, "sent about a change of its memberships")

    def _seeing(self, message: Message, users: Sequence[User]) -> Iterable[User]:
        """Returns those of some users who certainly could see what a message is about."""
        original = self._world.original(message)
        if original is None:
            return users
        saw = self._world.group(message.conv).audience(original).certain if original.is_stored else ()
        return set(users).intersection(saw)

    def _agree(self, id_: str, message: Message, user: User, why: str) -> None:
        """Finds fault when one of a user's devices has what another one lacks."""
        missing = list(self._here.lacking(user, message))
        shown = [device for device in message.applied if device.user is user]
        if missing and shown:
            self._diverge(id_, f"{shown[0].name} has {short(id_)}, {why}, and {missing[0].name} has not")

    def _lose(self, id_: str, device: Device, group: str = "") -> None:
        what = f"{device.name} never applied {short(id_)}"
        self._told.once("loss", self._here.t, what, id_, Concern((device.user.name,) if group else (), group))

    def _diverge(self, id_: str, what: str) -> None:
        self._told.once("convergence", self._here.t, what, id_)
