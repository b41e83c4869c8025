"""Judges the ticks and tallies that devices show once all is quiet: nothing that came further is left out."""

from chappe.testing.checker_here import Here, Told
from chappe.testing.checker_report import short
from chappe.testing.checker_state import Device, Message, Tally, User
from chappe.testing.checker_ticks import DELIVERED, READ, delivered_to, is_delivered
from chappe.testing.checker_world import World

_STATES = ("nothing", "delivered", "read")
_NOTHING = Tally(0, 0)


class Counts:
    """Looks at each message at each end."""

    def __init__(self, world: World, told: Told) -> None:
        self._world = world
        self._told = told

    def judge(self, here: Here, id_: str, message: Message, sender: Device) -> None:
        """Judges what the sender's devices show of one message."""
        present = here.present(sender.user)
        own = [device for device in present if device is sender or device.since <= message.sent_t]
        if not own:
            return
        if message.to is None and self._world.group(message.conv).is_told:
            self._judge_tallies(here, id_, message, own)
            self._judge_recipients(here, id_, message)
            return
        peers = {message.to} if message.to is not None else {by for _, by in message.ticks or ()}
        for by in peers.difference({sender.user}):
            self._judge_ticks(here, id_, message, by, own)

    def _judge_ticks(self, here: Here, id_: str, message: Message, by: User, own: list[Device]) -> None:
        ticks = message.ticks or {}
        due = READ if by in _readers(here, message) else DELIVERED if is_delivered(message, by, here.away) else 0
        levels = [ticks.get((device, by), 0) for device in own]
        if max(levels) != min(levels):
            high, low = own[levels.index(max(levels))], own[levels.index(min(levels))]
            what = f"{high.name} shows {short(id_)} as {_STATES[max(levels)]}, {low.name} as {_STATES[min(levels)]}"
            self._told.once("convergence", here.t, what, id_)
        elif due > levels[0]:
            what = f"{short(id_)} is {_STATES[due]}, but {own[0].name} shows {_STATES[levels[0]]}"
            self._told.once("convergence", here.t, what, id_)

    def _judge_tallies(self, here: Here, id_: str, message: Message, own: list[Device]) -> None:
        sender = own[0].user
        readers = _readers(here, message) - {sender}
        due = Tally(len((delivered_to(message, here.away) | readers) - {sender}), len(readers))
        for device in own:
            shown = (message.tallies or {}).get(device, _NOTHING)
            if shown.delivered < due.delivered or shown.read < due.read:
                what = f"{short(id_)} is delivered to {due.delivered} and read by {due.read}, "
                what += f"but {device.name} shows {shown.delivered} and {shown.read}"
                self._told.once("convergence", here.t, what, id_)

    def _judge_recipients(self, here: Here, id_: str, message: Message) -> None:
        audience = self._world.group(message.conv).audience(message)
        least, most = audience.least - 1, audience.most - 1
        if message.recipients is not None and not least <= message.recipients <= most:
            others = f"{least}" if least == most else f"{least} to {most}"
            what = f"{short(id_)} is shown as sent to {message.recipients} others, but the group had {others}"
            self._told.once("tick", here.t, what, id_)


def _readers(here: Here, message: Message) -> set[User]:
    return {device.user for device in message.readers if device not in here.away}
