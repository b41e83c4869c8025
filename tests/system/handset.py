"""One device of a crowd: a client, its store, its history and what it expects."""

from collections.abc import Sequence
from pathlib import Path

from chappe.client.changes import MessageArrived, SendRefused, Sent, TickRaised
from chappe.client.device import Device
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.seams import Seams, SystemClock, SystemRandomness
from chappe.client.store_memory import LeanStore
from chappe.testing import HistoryWriter, actor_of
from tests.system.books import Books, Due

LONGEST_PAUSE_S = 0.5


class Impatient(SystemRandomness):
    """Draws short pauses, so that a test does not wait for a client that waits."""

    def uniform(self, low: float, high: float) -> float:
        """Returns a number of the lower end of the range."""
        return super().uniform(low, min(high, LONGEST_PAUSE_S))


class Handset:
    """A device that can be switched off and on again, at any edge; what it had stored it keeps."""

    def __init__(self, device: Device, folder: Path, books: Books) -> None:
        self.device = device
        self.actor = actor_of(device.user_id, device.device_id)
        self.history = HistoryWriter(folder / f"{self.actor.replace('/', '-')}.jsonl", self.actor, flush_lines=1)
        self.history.note("device", device=self.actor)
        self.store = LeanStore()
        self.client: LeanClient | None = None
        self.sessions = 0
        """How many sessions got as far as CaughtUp."""
        self.received = 0
        self._books = books
        self._unread: dict[bytes, list[bytes]] = {}
        self._dues: dict[int, Due | list[bytes]] = {}

    @property
    def user_id(self) -> bytes:
        """Whose device it is."""
        return self.device.user_id

    @property
    def is_on(self) -> bool:
        """Whether it is switched on."""
        return self.client is not None

    @property
    def pending(self) -> int:
        """How many of its sends have no answer."""
        return 0 if self.client is None else self.client.pending

    async def switch_on(self, addresses: Sequence[str]) -> None:
        """Connects, and returns once the log has been read to its end."""
        callbacks = Callbacks(
            message=self._arrived,
            tick=self._ticked,
            sent=self._sent,
            refused=self._refused,
            caught_up=self._caught_up,
        )
        parts = LeanParts(store=self.store, recorder=self.history, seams=Seams(SystemClock(), Impatient()))
        self.client = LeanClient(self.device, addresses, callbacks, parts)
        await self.client.start()

    async def switch_off(self) -> None:
        """Ends the client; its store stays."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    async def close(self) -> None:
        """Ends the client and its history."""
        await self.switch_off()
        self.history.close()

    def send(self, peer_id: bytes, due: Due, content: bytes) -> None:
        """Sends a message that owes so much once it is acknowledged."""
        if self.client is not None:
            self._dues[self.client.send(peer_id, content).draft] = due

    def read_some(self) -> None:
        """Reads all that came from one peer, if any did."""
        if self.client is not None and self._unread:
            peer_id, message_ids = self._unread.popitem()
            self._dues[self.client.mark_read(peer_id, max(message_ids)).draft] = message_ids

    def _arrived(self, change: MessageArrived) -> None:
        self.received += 1
        message = change.message
        self._books.applied(message.message_id, self.actor)
        if message.sender_user_id != self.user_id:
            self._unread.setdefault(message.sender_user_id, []).append(message.message_id)

    def _ticked(self, change: TickRaised) -> None:
        self._books.ticked(change.message_id, self.actor, change.state)

    def _sent(self, change: Sent) -> None:
        due = self._dues.pop(change.outgoing.draft)
        if isinstance(due, Due):
            self._books.stored(change.outgoing.message_id, due)
        else:
            self._books.read(due)

    def _refused(self, change: SendRefused) -> None:
        self._books.refusals[change.reason] += 1

    def _caught_up(self, _change: object) -> None:
        self.sessions += 1
