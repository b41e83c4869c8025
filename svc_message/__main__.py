"""Runs the ledger: `python -m svc_message`, and `python -m svc_message migrate` to bring its schema up to date."""

import asyncio
import os
import sys

from chappe.runtime import config, migrations, process
from svc_message.app import SCHEMA, build
from svc_message.config import Config


def main() -> int:
    """Returns the exit code."""
    if sys.argv[1:] != ["migrate"]:
        return process.run("message", Config, build, sys.argv[1:], os.environ)
    dsn = config.load(Config, "message", os.environ).store_dsn.reveal()
    for name in asyncio.run(migrations.migrate(dsn, SCHEMA)):
        sys.stdout.write(f"applied {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
