"""Builds histories by hand, for tests of the checker."""

from typing import Any, Self, cast

from chappe.testing import Guarantee, Line, Report, check_lines

NAMES = {name: name.encode().hex().ljust(32, "0") for name in ("alice", "bob", "carol", "dave")}
START_MS = 1_790_000_000_000
CONV = "c" * 32
GROUP = "9" * 32


def message_id(number: int, ms: int | None = None) -> str:
    return f"{START_MS + number * 10 if ms is None else ms:012x}7{number:03x}8{number:015x}"


def device(name: str) -> str:
    user, _, number = name.partition("/")
    return f"{NAMES.get(user, user)}/{number}"


class Scene:
    """Builds a history line by line, a millisecond apart."""

    def __init__(self, *devices: str) -> None:
        self.lines: list[Line] = []
        self.t = float(START_MS)
        for name in devices or ("alice/1", "bob/1"):
            self.add(name, "device", device=device(name))

    def add(self, who: str, op: str, **fields: Any) -> Self:
        self.t += 1
        self.lines.append(cast("Line", {"t": self.t, "actor": device(who), "op": op, **fields}))
        return self

    def later(self, ms: float) -> Self:
        self.t += ms
        return self

    def send(self, who: str, number: int, to: str = "bob", **fields: Any) -> Self:
        peer = NAMES[to] if to else ""
        first = {"id": message_id(number), "conv": CONV, "to": peer, "kind": "message", "attempt": 1}
        return self.add(who, "send", **{**first, **fields})

    def stored(self, who: str, number: int, accepted_ms: int = START_MS) -> Self:
        return self.add(who, "stored", id=message_id(number), accepted_ms=accepted_ms, duplicate=False)

    def refused(self, who: str, number: int, *, reason: str = "STALE", final: bool = True) -> Self:
        return self.add(who, "refused", id=message_id(number), reason=reason, final=final)

    def apply(self, who: str, number: int, sender: str = "alice", **fields: Any) -> Self:
        id_ = message_id(number)
        event = {"id": id_, "conv": CONV, "sender": NAMES[sender], "ms": int(id_[:12], 16), "pos": id_}
        return self.add(who, "apply", **{**event, "kind": "message", "how": "push", **fields})

    def ack(self, who: str, *numbers: int) -> Self:
        return self.add(who, "ack", ids=[message_id(number) for number in numbers])

    def tick(self, who: str, number: int, state: str = "delivered", by: str = "bob") -> Self:
        return self.add(who, "tick", id=message_id(number), state=state, by=NAMES[by])

    def read(self, who: str, *numbers: int) -> Self:
        return self.add(who, "read", conv=CONV, ids=[message_id(number) for number in numbers])

    def accepted(self, number: int) -> Self:
        return self.send("alice/1", number).stored("alice/1", number)

    def delivered(self, number: int) -> Self:
        return self.accepted(number).apply("bob/1", number).ack("bob/1", number).tick("alice/1", number)

    def join(self, who: str, *users: str, **fields: Any) -> Self:
        """Says that users are members of the group from now on; it was asked a moment ago."""
        return self.add(who, "join", **self._change(users, fields))

    def leave(self, who: str, *users: str, **fields: Any) -> Self:
        """Says that users are members no more."""
        return self.add(who, "leave", **self._change(users, fields))

    def learn(self, who: str, version: int, change: str = "added", *users: str) -> Self:
        """Says that a device was told of a change."""
        return self.add(who, "learn", conv=GROUP, version=version, change=change, members=[NAMES[u] for u in users])

    def say(self, who: str, number: int, **fields: Any) -> Self:
        """Sends to the group, and is told that it is stored."""
        return self.send(who, number, **{"conv": GROUP, "to": "", **fields}).stored(who, number)

    def get(self, who: str, number: int, sender: str = "alice", **fields: Any) -> Self:
        """Applies and acknowledges something of the group."""
        return self.apply(who, number, sender, conv=GROUP, **fields).ack(who, number)

    def tally(self, who: str, number: int, delivered: int, read: int = 0, of: int = 2) -> Self:
        return self.add(who, "tally", id=message_id(number), delivered=delivered, read=read, of=of)

    def _change(self, users: tuple[str, ...], fields: dict[str, Any]) -> dict[str, Any]:
        names = [NAMES[user] for user in users]
        who = {"whom": names[0]} if len(names) == 1 else {"members": names}
        return {"conv": GROUP, "at": self.t + 0.5, **who, **fields}

    def end(self, **fields: Any) -> Self:
        return self.add("alice/1", "end", **fields)

    def judge(self) -> Report:
        return check_lines(self.lines)

    def broken(self) -> dict[Guarantee, int]:
        return dict(self.judge().counts)
