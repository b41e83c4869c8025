"""Time, randomness and a recorder that a test owns, and a core on a store with a model of an edge before it."""

import random
from typing import Any

from chappe.api.edge.v1.client_frame_pb2 import SignedHello
from chappe.client.budget import UNLIMITED, FrameRate
from chappe.client.changes import Change, MessageArrived, SendRefused, Sent
from chappe.client.destination import Destination
from chappe.client.device import signed_hello
from chappe.client.frames import message_action, read_action
from chappe.client.outgoing import Outgoing
from chappe.client.protocol import ClientProtocol
from chappe.client.recorder import Recorder
from chappe.client.seams import Seams
from chappe.client.store import DeviceStore
from chappe.client.store_memory import LeanStore
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER, ModelEdge


class ToldClock:
    """A clock that moves when it is told to; waiting moves it."""

    def __init__(self, wall_ms: int = 1_790_000_000_000) -> None:
        self.wall = float(wall_ms)
        self.now_s = 1000.0
        self.waits: list[float] = []

    def wall_ms(self) -> int:
        return int(self.wall)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.waits.append(delay_s)
        self.pass_s(delay_s)

    def pass_s(self, delay_s: float) -> None:
        self.wall += delay_s * 1000
        self.now_s += delay_s


class Dice:
    """Randomness from a seed; jitter takes the whole of what it may."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def uniform(self, low: float, high: float) -> float:
        return high


class Notes:
    """A recorder that keeps what it is told, by name of the line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*args: object, **fields: object) -> None:
            self.lines.append((name, (*args, *fields.values())))

        return note

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [args for line, args in self.lines if line == name]


class Desk:
    """One device at work: a core, its store, an edge, and everything that its application was shown."""

    def __init__(
        self,
        store: DeviceStore | None = None,
        edge: ModelEdge | None = None,
        recorder: Recorder | None = None,
        rate: FrameRate = UNLIMITED,
    ) -> None:
        self.rate = rate
        self.clock = ToldClock()
        self.dice = Dice()
        self.store = store or LeanStore()
        self.edge = edge or ModelEdge()
        self.recorder = recorder
        self.shown: list[Change] = []
        self.is_connected = False
        self.start()

    def start(self) -> None:
        """Starts a core on what the store holds; what an earlier one had not stored is gone."""
        seams = Seams(self.clock, self.dice)
        self.core = ClientProtocol(ME, DEVICE, self.store.load(), seams, self.recorder, self.rate)
        self.is_connected = False
        self.edge.frames.clear()

    def connect(self) -> None:
        hello = signed_hello(SignedHello(), cursor=self.core.cursor, receive_window=0, user_agent="test")
        self.edge.frames.clear()
        self.core.connected(hello, "edge:1", self.clock.now_s)
        self.is_connected = True
        self.flush()

    def drop(self) -> None:
        """Ends the connection; what was on its way in both directions is lost."""
        self.core.disconnected()
        self.edge.frames.clear()
        self.is_connected = False
        self.flush()

    def say(self, content: bytes = b"hello") -> Outgoing:
        outgoing = Outgoing("message", PEER, CONVERSATION, message_action(PEER, 1, content))
        self.core.outbox.add(outgoing)
        return outgoing

    def mark_read(self, upto: bytes) -> Outgoing:
        outgoing = Outgoing("read", PEER, CONVERSATION, read_action(Destination(CONVERSATION, PEER), upto))
        self.core.outbox.add(outgoing)
        return outgoing

    def commit(self) -> bool:
        """Stores one batch; returns whether there was one."""
        batch = self.core.take_batch(self.clock.now_s)
        if batch is None:
            return False
        self.core.committed(batch, self.store.commit(batch), self.clock.now_s)
        return True

    def flush(self) -> None:
        """Stores what there is, and hands frames to the edge and changes to the application."""
        while self.commit():
            pass
        frames, self.core.frames = self.core.frames, []
        for data in frames if self.is_connected else ():
            self.edge.take(data)
        self.show()

    def show(self) -> None:
        """Hands changes to the application."""
        self.shown += self.core.changes
        self.core.changes.clear()

    def receive(self, index: int = 0) -> None:
        """Receives one frame of the edge."""
        self.core.received(self.edge.frames.pop(index), self.clock.now_s)

    def settle(self) -> None:
        """Receives and sends until both sides have nothing more to say."""
        self.flush()
        while self.edge.frames:
            self.receive()
            self.flush()

    def of(self, kind: type) -> list[Any]:
        return [change for change in self.shown if isinstance(change, kind)]

    def arrived(self) -> list[bytes]:
        return [change.message.message_id for change in self.of(MessageArrived)]

    def sent(self) -> list[Outgoing]:
        return [change.outgoing for change in self.of(Sent)]

    def refused(self) -> list[SendRefused]:
        return self.of(SendRefused)
