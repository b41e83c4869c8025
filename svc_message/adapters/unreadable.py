"""Passes over what this program cannot read, so that one row never keeps from anybody what stands beside it.

A row may have been spoilt, or written by a later program. Whoever reads a batch of many people's rows answers all but
that one, and counts it.
"""

import logging
import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from chappe.runtime.clock import Clock, SystemClock

SILENCE_S: Final = 60.0
"""A row is passed over whenever it is read, and the log says so no more often than this."""

_From = TypeVar("_From")
_To = TypeVar("_To")
# What decoders raise on bytes that are too few or too many, on numbers that name nothing, on cells that are missing.
_ERRORS: Final = (struct.error, ValueError, TypeError, LookupError, DecodeError)

_log = logging.getLogger(__name__)


class Unreadable:
    """Counts the rows that were passed over, and says so in the log once in a while."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Has met none.

        Args:
            clock: By which the log has its rest.
        """
        self._clock = clock or SystemClock()
        self._quiet_until_s = 0.0
        self.rows = 0
        """Each as often as it was met."""

    def each(
        self,
        decode: Callable[[_From], _To],
        rows: Iterable[_From],
        instead: Callable[[_From], _To] | None = None,
    ) -> list[_To]:
        """Decodes rows, in order.

        Args:
            decode: Raises what decoders raise when it cannot.
            rows: They, which are gone through twice when one cannot be read.
            instead: What stands in the place of a row that cannot be read; without it nothing does.
        """
        wanted = list(rows)
        try:
            return [decode(row) for row in wanted]
        except _ERRORS:
            return self._those_that_can_be(decode, wanted, instead)

    def _those_that_can_be(
        self, decode: Callable[[_From], _To], rows: list[_From], instead: Callable[[_From], _To] | None
    ) -> list[_To]:
        found: list[_To] = []
        for row in rows:
            try:
                found.append(decode(row))
            except _ERRORS as error:
                self._pass_over(error)
                if instead is not None:
                    found.append(instead(row))
        return found

    def _pass_over(self, error: Exception) -> None:
        self.rows += 1
        if self._clock.monotonic_s() >= self._quiet_until_s:
            self._quiet_until_s = self._clock.monotonic_s() + SILENCE_S
            why = f"{type(error).__name__}: {error}"
            _log.warning("a row could not be read and was passed over, the %d. time: %s", self.rows, why)
