"""Remembers the rows of messages that this process has just made, until something is first written on them.

Almost every message is received within a second, and mostly by way of the process that stored it. What stands on its
recipient's row then is known, and a read of it would cost the node more than the writes that follow.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Final

from svc_message.adapters.ledger_cassandra.cells import Header
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey

KEPT: Final = 50_000
KEPT_MS: Final = 60_000


class Recent:
    """The recipients' rows of young direct messages, each given out once.

    Another process may have raised the same row meanwhile, for another device of the recipient. Then a receipt is told
    twice, and of two times of delivery the later stands; nothing is lowered, for each state has a cell of its own.
    """

    def __init__(self) -> None:
        self._stored: dict[CopyKey, Header] = {}

    def keep(self, stored: Mapping[CopyKey, Header]) -> None:
        """Remembers rows that are durable, by the first attempt."""
        self._stored.update(stored)
        for key in list(islice(self._stored, max(len(self._stored) - KEPT, 0))):
            del self._stored[key]

    def take(self, key: CopyKey, now_ms: int) -> Copy | None:
        """Returns a row as it was stored and forgets it; None when it is not known, or not young any more."""
        header = self._stored.pop(key, None)
        if header is None or now_ms - header.accepted_ms > KEPT_MS:
            return None
        return Copy(key.message_id, header)
