"""How a command ends whose change no server has answered in time: the outbox has it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click

from chappe.cli.terminal import WAITING, Terminal
from chappe.client import WaitsInOutboxError


@contextmanager
def ending_in_outbox(terminal: Terminal, timeout_s: float, **fields: Any) -> Generator[None]:
    """Says of what was not answered in time that it waits in the outbox.

    Args:
        terminal: Where to say it.
        timeout_s: How long an answer was waited for.
        fields: What waits, for programs.

    Raises:
        Exit: It waits.
    """
    try:
        yield
    except WaitsInOutboxError:
        terminal.show(
            f"waits in the outbox: no server has answered in {timeout_s:g} s; the next command of the profile "
            f"{terminal.profile} that connects sends it",
            event="waiting",
            **fields,
        )
        raise click.exceptions.Exit(WAITING) from None
