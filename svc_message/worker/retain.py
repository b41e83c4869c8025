"""Runs the retention of the ledger while it serves, so that nothing that has disappeared stays for long."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_message.service.retain import Retaining

_log = logging.getLogger(__name__)


async def retain(retaining: Retaining, clock: Clock, interval_s: float) -> None:
    """Makes a step again and again; a store that does not answer is asked again after the same time."""
    while True:
        await clock.sleep(interval_s)
        try:
            await retaining.step()
        except ChappeError as error:
            _log.warning("what has disappeared could not be removed: %s", error)
