"""What tests of systems built on Chappe need: delivery histories, and the checker that judges them."""

from chappe.testing.checker_report import Guarantee, Report, Violation
from chappe.testing.checker_state import Limits
from chappe.testing.checker_verdict import check, check_lines
from chappe.testing.history import (
    Action,
    Event,
    HistoryError,
    HistoryWriter,
    Line,
    actor_of,
    read_batches,
    read_history,
)

__all__ = [
    "Action",
    "Event",
    "Guarantee",
    "HistoryError",
    "HistoryWriter",
    "Limits",
    "Line",
    "Report",
    "Violation",
    "actor_of",
    "check",
    "check_lines",
    "read_batches",
    "read_history",
]
