"""What can be done to a running system, one fault each: how it begins, how long it lasts, how it ends."""

import itertools
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from chappe.cli.launcher import SERVICES
from tests.nemesis.failover import ValkeyPair
from tests.nemesis.wire import Wire
from tests.nemesis.wiring import Cable, Wiring
from tests.system.ledger import frozen_postgres

Step = Callable[[], Awaitable[object]]

DEAD_S: Final = 2.0
FROZEN_S: Final = 8.0
"""Longer than a position may be old when its write is relied on, shorter than a stream waits for a sign of life."""
OUTAGE_S: Final = 4.5
"""Long enough for a client to be refused twice."""
HURT_S: Final = 5.0
"""How long a wire is bad."""
SILENT_S: Final = 28.0
"""Longer than a stream waits for a sign of life: 20 s until it asks, 5 s for the answer."""
DELAY_S: Final = 0.15
STEPS_S: Final = (-30.0, -2.0, 2.0, 30.0)


class Fault(NamedTuple):
    """One fault and its recovery."""

    kind: str
    """Of the schedule's sorts: each is taken in turn."""
    name: str
    hold_s: float
    """How long it lasts once it has begun."""
    begin: Step
    end: Step
    is_spared: bool = False
    """Whether there is another one of what was hurt, so that sending goes on."""


async def nothing() -> None:
    """Ends what is over when it has begun."""


def catalogue(wiring: Wiring, pair: ValkeyPair, lots: random.Random) -> list[Fault]:
    """Returns everything that can be done to a system; a seed decides the details.

    Args:
        wiring: The system.
        pair: Its registry.
        lots: Which replica, which way a clock steps, and the like.
    """
    return [
        *_kills(wiring, lots),
        *_freezes(wiring, lots),
        *_clocks(wiring, lots),
        *_stores(wiring, pair),
        *_networks(wiring, lots),
        *_rolls(wiring),
    ]


def _kills(wiring: Wiring, lots: random.Random) -> Iterator[Fault]:
    mesh = wiring.mesh
    for service in SERVICES:
        number = lots.randrange(mesh.plan.count(service))
        yield Fault(
            "kill",
            f"kill -9 svc_{service}-{number}",
            DEAD_S,
            _step(mesh.kill, service, number),
            _step(mesh.restart, service, number),
            is_spared=True,
        )


def _freezes(wiring: Wiring, lots: random.Random) -> Iterator[Fault]:
    mesh = wiring.mesh
    for service in SERVICES:
        number = lots.randrange(mesh.plan.count(service))
        yield Fault(
            "freeze",
            f"SIGSTOP svc_{service}-{number}",
            FROZEN_S,
            _step(mesh.kill, service, number, signal.SIGSTOP),
            _step(mesh.kill, service, number, signal.SIGCONT),
        )


def _clocks(wiring: Wiring, lots: random.Random) -> Iterator[Fault]:
    # The ledger is the one whose clock counts: it is hurt each way.
    steps = [*(("message", step_s) for step_s in STEPS_S), *((other, lots.choice(STEPS_S)) for other in SERVICES)]
    for service, step_s in steps:
        number = lots.randrange(wiring.plan.count(service))

        async def set_clock(offset_s: float, service: str = service, number: int = number) -> None:
            wiring.set_clock(service, number, offset_s)

        name = f"the clock of svc_{service}-{number} steps by {step_s:+g} s"
        yield Fault("clock", name, HURT_S, _step(set_clock, step_s), _step(set_clock, 0.0))


def _stores(wiring: Wiring, pair: ValkeyPair) -> Iterator[Fault]:
    mesh, postgres = wiring.mesh, wiring.mesh.foundation.postgres
    ice = AsyncExitStack()
    yield Fault("store", "kill -9 postgres", OUTAGE_S, _step(mesh.kill, "postgres"), _step(mesh.restart, "postgres"))
    yield Fault("store", "restart postgres", 0.0, _step(postgres.stop), _step(postgres.start))
    yield Fault(
        "store", "SIGSTOP postgres", FROZEN_S, lambda: ice.enter_async_context(frozen_postgres(mesh)), ice.aclose
    )
    yield Fault("store", "kill -9 valkey", OUTAGE_S, pair.kill, pair.start, is_spared=True)
    yield Fault("store", "flush valkey", 0.0, pair.flush, nothing, is_spared=True)

    async def fail_over() -> None:
        await pair.promote()
        await pair.follow()

    yield Fault("store", "valkey's replica takes over", DEAD_S, pair.part, fail_over, is_spared=True)


def _networks(wiring: Wiring, lots: random.Random) -> Iterator[Fault]:
    harms: dict[str, Callable[[Wire], object]] = {
        "delays": lambda wire: wire.delay(DELAY_S),
        "drops": lambda wire: wire.drop(lots.getrandbits(32)),
        "is parted": Wire.darken,
        "loses answers": Wire.mute,
        "is half open": Wire.forget,
    }
    for cable, (harm, hurt) in itertools.product(wiring.cables.values(), harms.items()):
        if lots.random() < 0.5:
            yield _network("network", f"{cable.name} {harm}", HURT_S, cable, hurt)
        else:
            yield _network("network", f"one of {cable.name} {harm}", HURT_S, _one(cable, lots), hurt)
    for cable in wiring.cables.values():
        harm = lots.choice(["is parted", "loses answers", "is half open"])
        # Of several, one: a cable that is gone altogether for so long is an outage that nobody survives unharmed.
        yield _network("silence", f"one of {cable.name} {harm} for long", SILENT_S, _one(cable, lots), harms[harm])


def _one(cable: Cable, lots: random.Random) -> Cable:
    return Cable(cable.name, (lots.choice(cable.wires),))


def _network(kind: str, name: str, hold_s: float, cable: Cable, hurt: Callable[[Wire], object]) -> Fault:
    async def begin() -> None:
        for wire in cable.wires:
            hurt(wire)

    async def end() -> None:
        for wire in cable.wires:
            await wire.mend()

    return Fault(kind, name, hold_s, begin, end)


def _rolls(wiring: Wiring) -> Iterator[Fault]:
    mesh = wiring.mesh

    async def roll(services: tuple[str, ...]) -> None:
        for service in services:
            for number in range(mesh.plan.count(service)):
                await mesh.restart(service, number)

    for service in SERVICES:
        yield Fault("roll", f"rolling restart of svc_{service}", 0.0, _step(roll, (service,)), nothing, is_spared=True)


def _step(call: Callable[..., Awaitable[object]], *arguments: object) -> Step:
    return lambda: call(*arguments)
