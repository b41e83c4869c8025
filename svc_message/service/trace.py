"""Answers operators who ask what became of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_message.errors import MessageNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.trace import MessageTrace, TraceQuery
    from svc_message.ports import TraceStore


class TraceReading:
    """Looks a message up in every book that may hold it."""

    def __init__(self, stores: Sequence[TraceStore]) -> None:
        """Prepares.

        Args:
            stores: One for each kind of conversation; the first that knows the message answers.
        """
        self._stores = stores

    async def read(self, query: TraceQuery) -> MessageTrace:
        """Returns what the ledger knows of a message; raises `MessageNotFoundError`."""
        for store in self._stores:
            found = await store.read_trace(query)
            if found is not None:
                return found
        raise MessageNotFoundError
