"""Remembers which items on their way to the ledger carry drawn messages, until they are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.api.type.v1 import stream_pb2
from svc_edge.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from chappe.runtime.tracing import Root, Sampled


class LedgerTraces:
    """The drawn items that have no answer, by their numbers; both tables are empty nearly always."""

    def __init__(self) -> None:
        self.sends: dict[int, Root] = {}
        self.acks: dict[int, Sequence[Sampled]] = {}

    def send_links(self, item_ids: Sequence[int]) -> list[stream_pb2.TraceLink]:
        """Returns the links of the drawn Sends in a batch."""
        if not self.sends:
            return []
        roots = self.sends
        return [roots[item_id].sampled.link(index) for index, item_id in enumerate(item_ids) if item_id in roots]

    def ack_links(self, item_ids: Sequence[int]) -> list[stream_pb2.TraceLink]:
        """Returns the links of the acknowledgements in a batch that are of drawn messages."""
        if not self.acks:
            return []
        acks = self.acks
        return [
            sampled.link(index)
            for index, item_id in enumerate(item_ids)
            if item_id in acks
            for sampled in acks[item_id]
        ]

    def answered(self, item_ids: Sequence[int], verdicts: Sequence[int], but: Collection[int] = ()) -> None:
        """Ends the traces of Sends that were answered; those of some of them go on."""
        if self.sends:
            for item_id, verdict in zip(item_ids, verdicts, strict=True):
                root = None if item_id in but else self.sends.pop(item_id, None)
                if root is not None:
                    root.end(verdict=Verdict(verdict).name.lower())

    def confirmed(self, item_ids: Sequence[int]) -> None:
        """Forgets acknowledgements that were answered."""
        if self.acks:
            for item_id in item_ids:
                self.acks.pop(item_id, None)
