"""Tells senders, once in a second, what has become of their messages to groups."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_message.service.tell import Telling

TELL_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


async def tell_for_ever(telling: Telling, clock: Clock) -> None:
    """Has its turn every second, whatever became of the one before."""
    while True:
        await clock.sleep(TELL_INTERVAL_S)
        for tell in (telling.tell_counts, telling.tell_news):
            try:
                await tell()
            except ChappeError as error:
                _log.warning("senders could not be told of receipts: %s", error)
