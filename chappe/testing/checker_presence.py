"""Judges what devices show of the presence of others: true in time, and to nobody whom it is kept from.

That is all: what is shown as unknown promises nothing, and is never wrong.
"""

from collections import defaultdict
from typing import Final, NamedTuple

from chappe.testing.checker_report import Concern, short
from chappe.testing.checker_spans import Blocks
from chappe.testing.checker_state import NEVER, Device, Findings, Limits, User
from chappe.testing.checker_world import World
from chappe.testing.history import Line

_EVERYBODY: Final = User("")


class _Shown(NamedTuple):
    """What a device shows of somebody."""

    viewer: Device
    whom: User
    state: str
    t: float


class Presence:
    """Follows `presence`, `conceal`, `reveal`, and who is connected when."""

    def __init__(self, world: World, findings: Findings, blocks: Blocks, limits: Limits) -> None:
        self._world = world
        self._findings = findings
        self._limits = limits
        self._blocks = blocks
        self._concealed = Blocks(limits.block_grace_ms)
        self._since: dict[Device, float] = {}
        """Since when the devices that are connected are."""
        self._left: dict[User, float] = {}
        """When the last device of a user went; it is not there while one is connected."""
        self._shown: defaultdict[Device, dict[User, _Shown]] = defaultdict(dict)
        self._suspects: list[_Shown] = []
        """Shown to somebody from whom it may have been kept, which later lines tell."""
        self._called_offline: defaultdict[Device, list[_Shown]] = defaultdict(list)
        """By a connected device, who was shown as offline meanwhile: a lie, once the device hears something after it.

        Otherwise its session may have ended without its knowing, or it was killed.
        """

    def connect(self, line: Line) -> None:
        """Takes note of a session."""
        device = self._world.device(line["actor"])
        self._since[device] = line["t"]
        self._left.pop(device.user, None)
        self._called_offline.pop(device, None)

    def disconnect(self, line: Line) -> None:
        """Takes note of the end of a session; what its device showed is shown no more."""
        device = self._world.device(line["actor"])
        self._since.pop(device, None)
        if not any(other in self._since for other in device.user.devices):
            self._left[device.user] = line["t"]
        self._shown.pop(device, None)
        self._confirm(device, device.heard_t)

    def presence(self, line: Line) -> None:
        """Judges what a device begins to show of somebody."""
        viewer, whom = self._world.device(line["actor"]), self._world.user(line["whom"])
        earlier = self._shown[viewer].get(whom)
        if earlier is not None and earlier.state != line["state"]:
            self._judge(earlier, line["t"])
        shown = self._shown[viewer][whom] = _Shown(viewer, whom, line["state"], line["t"])
        if shown.state != "unknown":
            self._suspects.append(shown)
            self._judge(shown, line["t"])

    def conceal(self, line: Line) -> None:
        """Keeps a user's presence from somebody, or from everybody; who does the latter sees that of nobody."""
        by, t = self._world.user(line["actor"].partition("/")[0]), line["t"]
        self._concealed.block(by, self._whom(line), line.get("at", t), t)

    def reveal(self, line: Line) -> None:
        """Keeps it no more."""
        by, t = self._world.user(line["actor"].partition("/")[0]), line["t"]
        self._concealed.lift(by, self._whom(line), line.get("at", t), t)

    def end(self, line: Line) -> None:
        """Judges what is shown still."""
        away = frozenset(line.get("absent", ()))
        for shown in [shown for standing in self._shown.values() for shown in standing.values()]:
            if shown.viewer.name in away or shown.state == "unknown":
                continue
            self._suspects.append(shown._replace(t=line["t"]))
            self._judge(shown, line["t"])
        for device in [device for device in self._called_offline if device.name not in away]:
            self._confirm(device, line["t"])

    def finish(self) -> None:
        """Judges what was shown to whom, now that it is known how long it was kept from them."""
        told: set[tuple[Device, User]] = set()
        for viewer, whom, state, t in self._suspects:
            if (viewer, whom) not in told and self._is_kept(viewer.user, whom, t):
                told.add((viewer, whom))
                why = f"which {short(whom.name)} keeps from {short(viewer.user.name)}"
                self._add(t, f"{viewer.name} shows {short(whom.name)} as {state}, {why}", viewer, whom)

    def _whom(self, line: Line) -> User:
        return self._world.user(line["whom"]) if line.get("whom") else _EVERYBODY

    def _judge(self, shown: _Shown, t: float) -> None:
        """Judges what is shown until a time: who comes or goes may be shown as before for a while."""
        if shown.state == "online":
            self._judge_online(shown, t)
        elif shown.state == "offline":
            self._judge_offline(shown, t)

    def _judge_online(self, shown: _Shown, t: float) -> None:
        left = self._left.get(shown.whom, NEVER)
        if left + self._limits.presence_ms < t:
            what = f"{shown.viewer.name} shows {short(shown.whom.name)} as online, "
            what += f"but none of its devices was connected for {(t - left) / 1000:.1f} s"
            self._add(t, what, shown.viewer, shown.whom)

    def _judge_offline(self, shown: _Shown, t: float) -> None:
        for device in shown.whom.devices:
            wrong_t = max(shown.t, self._since.get(device, NEVER) + self._limits.presence_ms)
            calls = self._called_offline.get(device, ())
            if wrong_t <= t and not any(shown.viewer is earlier.viewer for earlier in calls):
                self._called_offline[device].append(shown._replace(t=wrong_t))

    def _confirm(self, device: Device, t: float) -> None:
        """Finds fault with those who called somebody offline while this device was connected, as it was at a time."""
        for shown in self._called_offline.pop(device, ()):
            if shown.t + self._limits.parting_ms >= t:
                continue
            what = f"{shown.viewer.name} shows {short(shown.whom.name)} as offline, but {device.name} was connected"
            self._add(shown.t, what, shown.viewer, shown.whom)

    def _is_kept(self, viewer: User, whom: User, t: float) -> bool:
        kept = ((whom, viewer), (whom, _EVERYBODY), (viewer, _EVERYBODY))
        blocked = ((whom, viewer), (viewer, whom))
        return viewer is not whom and (
            any(self._concealed.must_bite(*pair, t, t) for pair in kept)
            or any(self._blocks.must_bite(*pair, t, t) for pair in blocked)
        )

    def _add(self, t: float, what: str, viewer: Device, whom: User) -> None:
        self._findings.add("presence", t, what, concern=Concern((viewer.user.name, whom.name)))
