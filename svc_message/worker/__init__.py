"""Background work of the ledger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_message.ports import MessageStore
    from svc_message.protocol import LedgerClock

COMPARE_INTERVAL_S = 10.0
LOOK_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


async def compare(store: MessageStore, ledger_clock: LedgerClock, clock: Clock) -> None:
    """Compares this process's clock with the store's once; raises `UnavailableError`."""
    asked_s = clock.monotonic_s()
    store_ms = await store.clock_ms()
    ledger_clock.compare(store_ms, round_trip_s=clock.monotonic_s() - asked_s)


async def check_clock(store: MessageStore, ledger_clock: LedgerClock, clock: Clock) -> None:
    """Returns when the clock is trusted, after one more look at the store's where it was not.

    Raises:
        ClockUntrustedError: It is off; says by how much, and what to do.
        UnavailableError: The store does not say.
    """
    if not ledger_clock.is_trusted:
        await compare(store, ledger_clock, clock)
    ledger_clock.check()


async def compare_clocks(store: MessageStore, ledger_clock: LedgerClock, clock: Clock) -> None:
    """Compares this process's clock with the store's every 10 s, and every second while it is not trusted."""
    due_s = clock.monotonic_s()
    while True:
        try:
            if clock.monotonic_s() >= due_s or not ledger_clock.is_trusted:
                await compare(store, ledger_clock, clock)
                due_s = clock.monotonic_s() + COMPARE_INTERVAL_S
            ledger_clock.check()
        except ChappeError as error:
            _log.warning("the clock could not be compared, or cannot be trusted: %s", error)
        await clock.sleep(LOOK_INTERVAL_S)
