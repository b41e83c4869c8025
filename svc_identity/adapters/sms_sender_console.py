"""Codes on standard error, for systems that reach no phones."""

import sys
from typing import TextIO

from svc_identity.model import Phone


class ConsoleSmsSender:
    """Prints codes; for development only, because whoever reads the output can take over any number."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stderr

    async def send_code(self, phone: Phone, code: str) -> None:
        """Prints the code."""
        self._output.write(f"code for {phone}: {code}\n")
        self._output.flush()
