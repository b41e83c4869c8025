"""Writes and reads delivery histories: what every device did and saw, one JSON object per line.

Every line has `t` (wall clock in milliseconds, microseconds as the fraction), `actor` (`user/device`: the
user id as 32 lower-case hex digits and the device number) and `op`. Ids are lower-case hex.
A `?` marks a field that may be left out. Unknown fields are ignored, unknown ops are an error.

| op | fields | the actor says |
|---|---|---|
| `device` | `device` | this device exists and is entitled to what is sent from now on |
| `gone` | `device` | this device was unlinked and is entitled to nothing more |
| `connect` | `session`, `edge` | my session is welcomed by this edge |
| `disconnect` | `session`, `edge` | my session has ended |
| `send` | `id`, `conv`, `to`, `kind`, `attempt`, `draft`?, `target`?, `version`? | I hand this to my edge |
| `stored` | `id`, `accepted_ms`, `duplicate` | SendAck: it is stored |
| `refused` | `id`, `reason`, `final` | SendNack: never (`final`), or try again |
| `apply` | `id`, `conv`, `sender`, `ms`, `pos`, `kind`, `how`, `target`? | my application was given this event |
| `ack` | `ids` | these are on my disk |
| `read` | `conv`, `ids`? or `upto`? | my user has read these, or all up to this id |
| `elsewhere` | `conv`, `upto` | my application was told that my user has read this far on another device |
| `tick` | `id`, `state`, `by`? | I show this state for a message of my own user |
| `tally` | `id`, `delivered`, `read`, `of` | I show how many of its recipients have and have read my user's message |
| `presence` | `whom`, `state` | I show this user as online, offline or unknown from now on |
| `conceal` | `whom`?, `at`? | my user's presence is kept from this user, or from everybody: the call has returned |
| `reveal` | `whom`?, `at`? | it is kept no more |
| `shown` | `conv`, `ids` | I display these messages in this order, oldest first |
| `block` | `whom`, `at`? | a block of this user has returned; `at` is when its call was begun |
| `unblock` | `whom`, `at`? | a block of this user has been lifted; `at` is when its call was begun |
| `join` | `conv`, `whom` or `members`, `at`?, `version`? | these are members of a group: the call has returned |
| `leave` | `conv`, `whom` or `members`, `at`?, `version`? | these are no members any more, removed or gone |
| `learn` | `conv`, `version`, `change`, `members`? | my application was told of this change of a group |
| `down` | `whom` | this process or node has died or hangs, and another of its kind goes on |
| `up` | `whom` | it serves again |
| `end` | `absent`?, `ticks`?, `learns`?, `reads`? | all is quiet: what was acknowledged must have arrived by now |

Lines that cause something (`send`, `ack`, `read`) are written once it cannot be forgotten (it is in the
outbox, on the disk) and before the bytes leave the device.
`to` is the peer's user id, or empty in a group. `kind` is message, edit, revoke, reaction, read, or hide: a revoke
for the user's own devices alone. `target` is the message that an edit, a revoke, a reaction or a hide is about.
`draft` names the outbox entry, so that a message sent again under a new id is known as the same one.
`ms` is the time by which the device sorts the message, `how` is push, sync or history. `pos` is the position in the
inbox, empty by history; it begins with the server's time, like an id.
`state` is delivered or read; `by` is who has it, by default the peer.
What is shown of a presence ends with the session.
A device that was never declared counts from its first `connect` or `send`.

A group is known by its memberships: tell of everybody, whoever created it too, or its messages are not judged.
`at` is when the call was begun, before its first attempt; between it and the line nobody knows what is true.
`version` is that of the group after the change, and in a `send` the newest one that the device knows.
`change` is created, added, joined, removed, left, role or updated; `members` are those whom the event names.

`absent` lists devices that cannot have caught up (switched off); all others must have, connected or not.
`ticks` is false when senders do not write their ticks and tallies down, so that a missing one says nothing;
`learns` is false when devices do not write down what they learn of groups; `reads` is true when they do `elsewhere`.

Files of one run come from one host, or from hosts whose clocks agree better than a message travels.
"""

import contextlib
import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from math import fsum
from operator import gt, itemgetter
from os import SEEK_END
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, NotRequired, Self, TypedDict

Kind = Literal["message", "edit", "revoke", "reaction", "read", "hide"]
How = Literal["push", "sync", "history"]
TickState = Literal["delivered", "read"]
PresenceState = Literal["online", "offline", "unknown"]


class HistoryError(ValueError):
    """Says which line of a history cannot be understood, and why."""


class Line(TypedDict):
    """One line; which of the fields are there depends on `op`, as the table above says."""

    t: float
    actor: str
    op: str
    id: str
    conv: str
    to: str
    kind: str
    attempt: int
    sender: str
    ms: int
    pos: str
    how: str
    accepted_ms: int
    duplicate: bool
    reason: str
    final: bool
    state: TickState | PresenceState
    whom: str
    device: str
    session: str
    edge: str
    change: str
    delivered: int
    read: int
    of: int
    draft: NotRequired[str]
    by: NotRequired[str]
    ids: NotRequired[list[str]]
    upto: NotRequired[str]
    at: NotRequired[float]
    absent: NotRequired[list[str]]
    ticks: NotRequired[bool]
    learns: NotRequired[bool]
    reads: NotRequired[bool]
    target: NotRequired[str]
    version: NotRequired[int]
    members: NotRequired[list[str]]


class Action(NamedTuple):
    """What a device sends: raw 16-byte ids; `to` is empty in a group."""

    id: bytes
    conv: bytes
    to: bytes
    kind: Kind = "message"
    draft: str = ""
    """The outbox entry, when the writer can name it."""
    target: bytes = b""
    """The message that the action is about, unless it is one itself."""
    version: int = 0
    """In a group, the newest version of it that the device knows; 0 for none."""


class Event(NamedTuple):
    """What a device applied: raw 16-byte ids, and the time in milliseconds by which it is sorted."""

    id: bytes
    conv: bytes
    sender: bytes
    pos: bytes
    ms: int
    kind: Kind
    target: bytes = b""
    """The message that the event is about, unless it is one itself."""


def actor_of(user: bytes, device: int) -> str:
    """Returns how histories name a device."""
    return f"{user.hex()}/{device}"


class HistoryWriter:
    """Writes the history of one actor; about a microsecond per line.

    Lines reach the operating system every `flush_lines` lines and on close; a process that is going to be
    killed takes `flush_lines=1`, or the checker misses what it did last. A file that exists is continued,
    less a last line that a kill has torn. Time never runs backwards within one writer.
    """

    def __init__(
        self,
        path: Path | str,
        actor: str,
        *,
        flush_lines: int = 256,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        _drop_torn_line(Path(path))
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - close() closes it
        self._head = f'"actor":{json.dumps(actor)},"op":"'
        self._lines: list[str] = []
        self._flush_lines = flush_lines
        self._clock_ns = clock_ns
        self._last_us = 0

    def send(self, action: Action, attempt: int = 1) -> None:
        """Says that an action is handed to the edge; call it before the bytes leave."""
        more = f',"draft":{json.dumps(action.draft)}' if action.draft else ""
        if action.target:
            more += f',"target":"{action.target.hex()}"'
        if action.version:
            more += f',"version":{action.version}'
        self._put(
            f'send","id":"{action.id.hex()}","conv":"{action.conv.hex()}","to":"{action.to.hex()}"'
            f',"kind":"{action.kind}","attempt":{attempt}{more}'
        )

    def stored(self, id_: bytes, accepted_ms: int, *, is_duplicate: bool = False) -> None:
        """Says that a SendAck has come."""
        duplicate = "true" if is_duplicate else "false"
        self._put(f'stored","id":"{id_.hex()}","accepted_ms":{accepted_ms},"duplicate":{duplicate}')

    def refused(self, id_: bytes, reason: str, *, is_final: bool) -> None:
        """Says that a SendNack has come; final means that this id is never sent again."""
        final = "true" if is_final else "false"
        self._put(f'refused","id":"{id_.hex()}","reason":{json.dumps(reason)},"final":{final}')

    def apply(self, event: Event, how: How) -> None:
        """Says that the application was given an event."""
        target = f',"target":"{event.target.hex()}"' if event.target else ""
        self._put(
            f'apply","id":"{event.id.hex()}","conv":"{event.conv.hex()}","sender":"{event.sender.hex()}"'
            f',"ms":{event.ms},"pos":"{event.pos.hex()}","kind":"{event.kind}","how":"{how}"{target}'
        )

    def ack(self, ids: Iterable[bytes]) -> None:
        """Says that events are on the device's disk; call it before the ack leaves."""
        self._put(f'ack","ids":[{_quoted(ids)}]')

    def read(self, conv: bytes, ids: Iterable[bytes]) -> None:
        """Says that the user has read these messages; call it before the receipt leaves."""
        self._put(f'read","conv":"{conv.hex()}","ids":[{_quoted(ids)}]')

    def read_upto(self, conv: bytes, upto: bytes) -> None:
        """Says that the user has read a conversation up to this id."""
        self._put(f'read","conv":"{conv.hex()}","upto":"{upto.hex()}"')

    def tick(self, id_: bytes, state: TickState, by: bytes) -> None:
        """Says that a state is shown for a message of one's own."""
        self._put(f'tick","id":"{id_.hex()}","state":"{state}","by":"{by.hex()}"')

    def note(self, op: str, **fields: object) -> None:
        """Writes any other line of the table (device, connect, block, join, tally, end); ids as hex."""
        rest = json.dumps(fields, separators=(",", ":"))[1:-1]
        self._put(f'{op}"' + ("," if rest else "") + rest)

    def flush(self) -> None:
        """Hands everything so far to the operating system, where a kill of the process cannot take it."""
        if self._lines:
            data = memoryview("".join(self._lines).encode())
            self._lines.clear()
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Flushes and closes the file; harmless when repeated."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, rest: str) -> None:
        now_us = self._last_us = max(self._clock_ns() // 1000, self._last_us)
        self._lines.append(f'{{"t":{now_us // 1000}.{now_us % 1000:03d},{self._head}{rest}}}\n')
        if len(self._lines) >= self._flush_lines:
            self.flush()


def read_history(paths: Sequence[Path | str]) -> Iterator[Line]:
    """Yields the lines of several files in order of `t`, reading each file once.

    A last line without its line end is what a killed process leaves, and is passed over.

    Raises:
        HistoryError: a line is not a JSON object with `t`, `actor` and `op`; the message says which.
    """
    return chain.from_iterable(read_batches(paths))


def read_batches(paths: Sequence[Path | str]) -> Iterator[list[Line]]:
    """Yields what `read_history` does, in batches of thousands of lines; what a fast reader wants.

    Raises:
        HistoryError: a line is not a JSON object with `t`, `actor` and `op`; the message says which.
    """
    sources = [_Source(Path(path), _block_size(len(paths))) for path in paths]
    while sources:
        for source in sources:
            source.fill()
        sources = [source for source in sources if source.times]
        if sources:
            # What is not read yet cannot be earlier than the last line read of its own file.
            bound = min(source.bound for source in sources)
            batch = list(chain.from_iterable(source.take(bound) for source in sources))
            yield sorted(batch, key=itemgetter("t")) if len(sources) > 1 else batch


def _block_size(files: int) -> int:
    return max(1 << 15, min(1 << 20, (1 << 25) // files))


class _Source:
    """Reads one file by blocks; opens it for each, so that thousands of files need no descriptors."""

    def __init__(self, path: Path, block: int) -> None:
        self.times: list[float] = []
        self._lines: list[Line] = []
        self._taken = 0
        self._path = path
        self._block = block
        self._offset = 0
        self._line_number = 1
        self._latest = float("-inf")
        self._is_read = False

    @property
    def bound(self) -> float:
        """The time below which nothing of this file is still unread."""
        return float("inf") if self._is_read else self.times[-1]

    def fill(self) -> None:
        """Reads on when nothing is left; no times afterwards means that the file has ended."""
        while not self.times and not self._is_read:
            data = self._read_block()
            self._lines = self._parse(data)
            self.times = self._order(data)
            self._line_number += data.count(b"\n")

    def take(self, bound: float) -> list[Line]:
        """Takes the lines up to and with this time."""
        start, self._taken = self._taken, bisect_right(self.times, bound, self._taken)
        taken = self._lines[start : self._taken]
        if self._taken == len(self.times):
            self.times, self._lines, self._taken = [], [], 0
        return taken

    def _read_block(self) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(self._block)
        self._is_read = len(data) < self._block
        whole, end, tail = data.rpartition(b"\n")
        if not (self._is_read and _is_object(tail)):
            data = whole + end
        if not data:
            self._block *= 2
        self._offset += len(data)
        return data

    def _parse(self, data: bytes) -> list[Line]:
        try:
            lines: list[Line] = json.loads(b"[" + data.strip().replace(b"\n", b",") + b"]")
        except ValueError:
            # Blank lines come here as well, and are no mistake.
            numbered = enumerate(data.split(b"\n"), self._line_number)
            return [self._parse_one(number, text) for number, text in numbered if text.strip()]
        return lines

    def _parse_one(self, number: int, text: bytes) -> Line:
        try:
            line: Line = json.loads(text)
            fsum([line["t"]])
        except (ValueError, TypeError, KeyError) as error:
            raise HistoryError(
                f"{self._path}:{number}: not a line of a history: {text[:120]!r}. Each line is one JSON"
                f' object with "t" (milliseconds), "actor" and "op"; see chappe.testing.history. ({error!r})'
            ) from error
        return line

    def _order(self, data: bytes) -> list[float]:
        try:
            times = [line["t"] for line in self._lines]
            fsum(times)
        except (KeyError, TypeError):
            for number, text in enumerate(data.split(b"\n"), self._line_number):
                if text.strip():
                    self._parse_one(number, text)
            raise
        if times and (times[0] < self._latest or any(map(gt, times, islice(times, 1, None)))):
            # A file tells its own order; a clock that was set back does not change it.
            times = list(accumulate(times, max, initial=self._latest))[1:]
            for line, time_ms in zip(self._lines, times, strict=True):
                line["t"] = time_ms
        self._latest = times[-1] if times else self._latest
        return times


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _drop_torn_line(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        size = file.seek(0, SEEK_END)
        while size > 0:
            start = max(0, size - 4096)
            file.seek(start)
            end = file.read(size - start).rfind(b"\n") + 1
            size = start + end
            if end:
                break
        file.truncate(size)


def _quoted(ids: Iterable[bytes]) -> str:
    return ",".join([f'"{id_.hex()}"' for id_ in ids])
