"""Calls over the edge's bridge: which are open, and what came of them."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chappe.api.edge.v1 import server_frame_pb2
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError
from chappe.client.frames import call_frame
from chappe.client.outbox import reason_name

MOST_OPEN = 8
"""So many calls an edge lets a connection have under way; it refuses others."""


class Outcome(NamedTuple):
    """What came of a call: the serialised response, or why there is none."""

    payload: bytes
    error: ChappeClientError | None


class Calls:
    """The calls that have no answer yet."""

    def __init__(self) -> None:
        self._open: dict[int, Callable[[Outcome], None]] = {}
        self._waiting: deque[tuple[str, bytes, Callable[[Outcome], None]]] = deque()
        self._last_id = 0

    @property
    def are_waiting(self) -> bool:
        """Whether there are calls that could leave and have not."""
        return bool(self._waiting) and len(self._open) < MOST_OPEN

    def ask(self, method: str, payload: bytes, answer: Callable[[Outcome], None]) -> None:
        """Takes a new call, which leaves when there is room; `answer` is called once."""
        self._waiting.append((method, payload, answer))

    def pump(self, frames: list[bytes], room: int) -> int:
        """Begins the calls for which there is room, and returns how many."""
        begun = min(len(self._waiting), max(room, 0), max(MOST_OPEN - len(self._open), 0))
        frames += [self.begin(*self._waiting.popleft()) for _ in range(begun)]
        return begun

    def begin(self, method: str, payload: bytes, answer: Callable[[Outcome], None]) -> bytes:
        """Returns the frame of a new call; `answer` is called once."""
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        self._open[self._last_id] = answer
        return call_frame(self._last_id, method, payload)

    def resolve(self, result: server_frame_pb2.CallResult) -> None:
        """Takes an answer; one that nobody waits for is passed over."""
        answer = self._open.pop(result.id, None)
        if answer is None:
            return
        if result.WhichOneof("outcome") == "error":
            error = result.error
            refusal = RefusedError(reason_name(error.reason), error.detail, retry_after_ms=error.retry_after_ms)
            answer(Outcome(b"", refusal))
        else:
            answer(Outcome(result.payload, None))

    def fail(self, why: str) -> None:
        """Ends every open call: its answer can no longer come."""
        self.fail_with(NotConnectedError(why))

    def fail_with(self, error: ChappeClientError) -> None:
        """Ends every open call with this error."""
        answers = [*self._open.values(), *(answer for _, _, answer in self._waiting)]
        self._open.clear()
        self._waiting.clear()
        for answer in answers:
            answer(Outcome(b"", error))
