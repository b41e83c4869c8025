"""Judges who learns of the changes of groups: all members, and those whom a change is about."""

from collections import defaultdict
from typing import Literal

from chappe.testing.checker_here import Here, Told
from chappe.testing.checker_report import Concern, short
from chappe.testing.checker_spans import Change, Group
from chappe.testing.checker_state import NEVER, Device, User
from chappe.testing.checker_world import World
from chappe.testing.history import Line

_Way = Literal["in", "out"]

_WAYS: dict[str, _Way] = {"created": "in", "added": "in", "joined": "in", "removed": "out", "left": "out"}
_NAMED = 64
"""An event that names so many may be about others, too."""


class Groups:
    """Follows `join`, `leave` and `learn`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._learned: defaultdict[Group, dict[int, dict[Device, None]]] = defaultdict(dict)
        """By version, the devices that were told of it."""
        self._own: defaultdict[tuple[Group, Device, _Way], set[int]] = defaultdict(set)
        """The versions by which devices were told that their user came in, or went out."""

    def join(self, line: Line) -> None:
        """Takes note of memberships that have begun."""
        self._change(line, is_join=True)

    def leave(self, line: Line) -> None:
        """Takes note of memberships that have ended."""
        self._change(line, is_join=False)

    def learn(self, line: Line) -> None:
        """Takes note of what an application was told."""
        group, device = self._world.group(line["conv"]), self._world.device(line["actor"])
        version, names = line.get("version", 0), line.get("members", ())
        self._learned[group].setdefault(version, {})[device] = None
        way = _WAYS.get(line["change"])
        if way is not None and (device.user.name in names or len(names) >= _NAMED or line["change"] == "created"):
            self._own[group, device, way].add(version)

    def end(self, here: Here, told: Told) -> None:
        """Judges what everybody should have been told by now."""
        for group in self._world.groups.values():
            for user in group.users:
                for device in here.present(user):
                    self._judge_own(here, told, group, device)
            for version, devices in self._learned.get(group, {}).items():
                self._judge_version(here, told, group, version, devices)

    def _change(self, line: Line, *, is_join: bool) -> None:
        group, t = self._world.group(line["conv"]), line["t"]
        change = Change(line.get("version", 0), t, line.get("at", t), is_join)
        for name in line.get("members") or [line["whom"]]:
            group.change(self._world.user(name), change)

    def _judge_own(self, here: Here, told: Told, group: Group, device: Device) -> None:
        spans = [span for span in group.spans(device.user) if span.began >= device.since]
        came, went = len(spans), sum(span.left < NEVER for span in spans)
        knows_came, knows_went = (len(self._own.get((group, device, way), ())) for way in ("in", "out"))
        for what, due, known in (("joined", came, knows_came), ("left", went, knows_went)):
            if known < due:
                times = "" if due == 1 else f" for the {due}. time"
                said = f"{device.name} never learned that its user {what} {short(group.name)}{times}"
                told.once("membership", here.t, said, concern=Concern((device.user.name,), group.name))

    def _judge_version(self, here: Here, told: Told, group: Group, version: int, devices: dict[Device, None]) -> None:
        for user in group.users:
            for device in here.present(user) if self._was_there(group, user, version) else ():
                if device not in devices and device.since <= group.spans(user)[-1].began:
                    what = f"{device.name} never learned of version {version} of {short(group.name)}"
                    told.once("membership", here.t, what, concern=Concern((user.name,), group.name))

    def _was_there(self, group: Group, user: User, version: int) -> bool:
        """Whether a user was a member for certain when a group came to a version, and still is."""
        spans = group.spans(user)
        return bool(spans) and 0 < spans[-1].joined_version < version and spans[-1].leave_began == NEVER
