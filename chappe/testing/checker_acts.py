"""Judges that edits, reactions and what was taken back end up the same everywhere.

Of the edits of one message the one with the greatest id stands, and so it is with the reactions of one user to it. What
is taken back stays so, whatever comes of its edits and reactions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from chappe.testing.checker_here import Here, Told
from chappe.testing.checker_report import short
from chappe.testing.checker_spans import Blocks
from chappe.testing.checker_state import Device, Message, User
from chappe.testing.checker_world import World

_Place = tuple[str, str, User | None]
"""What has one content: the text of a message, or a user's reaction to it."""


class Acts:
    """Looks at all edits and reactions at each end."""

    def __init__(self, world: World, told: Told, blocks: Blocks) -> None:
        self._world = world
        self._told = told
        self._blocks = blocks

    def end(self, here: Here) -> None:
        """Judges what devices show in the places that were changed."""
        places: defaultdict[_Place, list[str]] = defaultdict(list)
        gone: set[str] = set()
        for id_, message in self._world.messages.items():
            if message.sender is None or not message.target:
                continue
            if message.kind == "revoke" and (message.is_stored or message.applied):
                gone.add(message.target)
            elif message.kind in {"edit", "reaction"}:
                reactor = message.sender.user if message.kind == "reaction" else None
                places[message.kind, message.target, reactor].append(id_)
        for (kind, target, _), ids in places.items():
            if target not in gone:
                self._judge_place(here, kind, sorted(ids))

    def _judge_place(self, here: Here, kind: str, ids: list[str]) -> None:
        shown = self._shown(ids)
        stored = [id_ for id_ in ids if self._world.messages[id_].is_stored]
        if stored:
            self._judge_last(here, kind, stored[-1], shown)
        for user in {device.user for device in shown}:
            last = max(shown[device] for device in user.devices if device in shown)
            for device in here.present(user):
                is_due = device.since <= self._world.messages[last].sent_t
                if is_due and device is not self._world.messages[last].sender and shown.get(device, "") < last:
                    what = f"{device.name} does not show the {kind} {short(last)}, which another device shows"
                    self._told.once("convergence", here.t, what, last)

    def _judge_last(self, here: Here, kind: str, last: str, shown: Mapping[Device, str]) -> None:
        message = self._world.messages[last]
        for user in self._entitled(message):
            for device in here.lacking(user, message):
                if device is not message.sender and shown.get(device, "") < last:
                    instead = f"but still {short(shown[device])}" if device in shown else "nor any other"
                    what = f"{device.name} does not show the {kind} {short(last)}, {instead}"
                    self._told.once("convergence", here.t, what, last)

    def _entitled(self, message: Message) -> Iterable[User]:
        sender, original = message.sender, self._world.original(message)
        if sender is None:
            return ()
        users = {sender.user}
        if message.to is None:
            group = self._world.group(message.conv)
            saw = group.audience(original).certain if original is not None and original.is_stored else ()
            users.update(set(group.audience(message).certain).intersection(saw))
        elif not self._blocks.may_withhold(message, original):
            users.add(message.to)
        return users

    def _shown(self, ids: list[str]) -> dict[Device, str]:
        """Returns the last of some ids, in their order, that each device has applied."""
        return {device: id_ for id_ in ids for device in self._world.messages[id_].applied}
