"""The network of a simulation: everything arrives late, in order on each way, or not at all."""

import random
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Process, VirtualLoop

SHORTEST_S = 0.0002
ROUGH = 0.03
"""How much of what is sent meets a queue on its way."""
LONGEST_S = 0.3
RESET_S = 0.05
"""Within this time a process hears that another has died, mostly."""
KEEPALIVE_S = 25.0
"""Within this time it hears in any case."""


class Network:
    """Delays, and who cannot reach whom for a while."""

    def __init__(self, loop: VirtualLoop, seed: str, slowness: float = 1.0) -> None:
        self.loop = loop
        self._slowness = slowness
        self._seed = seed
        # Each way has lots of its own, so that what is left out of a plan changes little elsewhere.
        self._lots: dict[str, random.Random] = {}
        self.is_healed = False
        """Nothing is lost any more."""
        self._blocked_until_s: dict[frozenset[str], float] = {}
        self._ways: dict[Way, None] = {}

    def lots_of(self, name: str) -> random.Random:
        """Returns the lots of a part of the network."""
        found = self._lots.get(name)
        if found is None:
            found = self._lots[name] = random.Random(f"{self._seed} network {name}")
        return found

    def way(self, sender: Process, receiver: Process) -> "Way":
        """Returns a new way from one process to another."""
        way = Way(self, sender, receiver)
        self._ways[way] = None
        return way

    def forget(self, way: "Way") -> None:
        """Takes note that a way is used no more."""
        self._ways.pop(way, None)

    def arrival_s(self, names: frozenset[str], lots: random.Random) -> float:
        """Returns when what is sent now arrives."""
        draw = lots.random()
        delay_s = (SHORTEST_S + draw / 1000) * self._slowness if draw >= ROUGH else draw / ROUGH * LONGEST_S
        return max(self.loop.time() + delay_s, self._blocked_until_s.get(names, 0.0))

    def block(self, one: str, other: str, seconds: float) -> None:
        """Holds up everything between two processes for a while."""
        self._blocked_until_s[frozenset((one, other))] = self.loop.time() + seconds

    def reset(self, one: str, other: str) -> None:
        """Breaks every connection between two processes; what is on its way is lost."""
        names = frozenset((one, other))
        for way in list(self._ways):
            if way.names == names:
                way.break_()

    def heal(self) -> None:
        """Lets everybody reach everybody from now on."""
        self.is_healed = True
        self._blocked_until_s.clear()


def silence_s(lots: random.Random) -> float:
    """Returns how long it takes to hear of a death."""
    if lots.random() < 0.1:
        return lots.uniform(RESET_S, KEEPALIVE_S)
    return lots.uniform(0.0, RESET_S)


class Way:
    """One direction of a connection: what is sent arrives in order, or the connection breaks."""

    def __init__(self, network: Network, sender: Process, receiver: Process) -> None:
        self.names = frozenset((sender.name, receiver.name))
        self.on_break: Callable[[], None] = _nothing
        """Told in the receiver's process that nothing will come any more."""
        self.lots = network.lots_of(f"{sender.name} {receiver.name}")
        self._network = network
        self._receiver = receiver
        self._last_s = 0.0
        self._is_broken = False
        sender.on_death.append(self._sender_died)
        self._sender = sender

    def send(self, deliver: Callable[..., Any], *args: Any) -> None:
        """Calls a function in the receiver's process, when it arrives."""
        if not self._is_broken:
            loop = self._network.loop
            self._last_s = max(self._last_s, self._network.arrival_s(self.names, self.lots))
            loop.call_at(self._last_s, self._arrive, deliver, args, context=self._receiver.context)

    def close(self) -> None:
        """Ends the way: what is on it still arrives."""
        self._network.forget(self)
        if self._sender_died in self._sender.on_death:
            self._sender.on_death.remove(self._sender_died)

    def break_(self) -> None:
        """Loses what is on the way, and lets the receiver know."""
        if not self._is_broken:
            self._is_broken = True
            self.close()
            self._network.loop.call_soon(self.on_break, context=self._receiver.context)

    def _arrive(self, deliver: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if not self._is_broken:
            deliver(*args)

    def _sender_died(self) -> None:
        """Loses what the sender had not got out, or not, and lets the receiver know some time later."""
        loop = self._network.loop
        heard_s = silence_s(self.lots)
        if self.lots.random() < 0.5:
            self._is_broken = True
            self._network.forget(self)
            loop.call_later(heard_s, self.on_break, context=self._receiver.context)
        else:
            self._last_s = max(self._last_s, loop.time() + heard_s)
            loop.call_at(self._last_s, self.break_, context=self._receiver.context)


def _nothing() -> None:
    """Stands in until somebody listens."""
