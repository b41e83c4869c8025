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
RETRY_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


async def compare_clocks(store: MessageStore, ledger_clock: LedgerClock, clock: Clock) -> None:
    """Compares this process's clock with the store's every 10 s, and every second while it is not trusted."""
    while True:
        interval_s = COMPARE_INTERVAL_S
        try:
            ledger_clock.compare(await store.clock_ms())
            ledger_clock.check()
        except ChappeError as error:
            _log.warning("the clock could not be compared, or cannot be trusted: %s", error.message)
            interval_s = RETRY_INTERVAL_S
        await clock.sleep(interval_s)
