"""Runs a command of a service, like `python -m svc_message check`, beside the system that runs."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from chappe.cli.launcher.foundation import find_packages

_TIMEOUT_S: Final = 60.0


class Done(NamedTuple):
    """What a command said."""

    code: int
    """Its exit code."""
    output: str
    errors: str


async def run_command(service: str, arguments: list[str], settings: Mapping[str, str]) -> Done:
    """Runs a command to its end.

    Args:
        service: Its name, without the prefix.
        arguments: The command.
        settings: What it is told besides this process's environment, by whole names like CHAPPE_MESSAGE_LEDGER.

    Raises:
        LaunchError: The service is not in this checkout.
        TimeoutError: It did not end, and was killed.
    """
    module = f"svc_{service}"
    checkout = find_packages([module])[module].parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *arguments),
        env={**os.environ, "PYTHONPATH": str(checkout), **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, output.decode(), errors.decode().strip())
