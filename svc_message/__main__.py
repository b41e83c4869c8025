"""Runs the ledger: `python -m svc_message`; with `migrate` it brings the schema up to date and ends."""

import asyncio
import os
import sys

from chappe.runtime import config, migrations, process
from chappe.runtime.config import ConfigError
from chappe.runtime.errors import ChappeError
from svc_message.adapters.message_store_postgres import SCHEMA
from svc_message.app import build
from svc_message.config import Config


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    if argv != ["migrate"]:
        return process.run("message", Config, build, argv, os.environ)
    try:
        dsn = config.load(Config, "message", os.environ).store_dsn.reveal()
        for name in asyncio.run(migrations.migrate(dsn, SCHEMA)):
            sys.stdout.write(f"applied {name}\n")
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return process.EXIT_MISCONFIGURED
    except ChappeError as error:
        sys.stderr.write(f"svc_message migrate: {error}\n")
        return process.EXIT_FAILED
    return process.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
