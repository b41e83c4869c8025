"""Codes in memory, for tests."""

from chappe.runtime.errors import UnavailableError
from svc_identity.model import Phone


class MemorySmsSender:
    """Remembers the codes that it was given; a network of phones that never fails unless told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[Phone, str]] = []
        self.is_down = False

    async def send_code(self, phone: Phone, code: str) -> None:
        """Remembers the code."""
        if self.is_down:
            raise UnavailableError("SMS", "the network of phones does not answer")
        self.sent.append((phone, code))
