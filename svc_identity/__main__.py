"""Runs the directory: `python -m svc_identity`; with `migrate` or `rotate-keys` it does that and ends."""

import asyncio
import os
import sys

from chappe.runtime import config, migrations, process
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ConfigError
from chappe.runtime.errors import ChappeError
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.session_store_postgres import PostgresSessionStore
from svc_identity.app import SCHEMA, build
from svc_identity.config import Config
from svc_identity.service.session import SessionRules


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    commands = {"migrate": _migrate, "rotate-keys": _rotate_keys}
    if len(argv) != 1 or argv[0] not in commands:
        return process.run("identity", Config, build, argv, os.environ)
    try:
        loaded = config.load(Config, "identity", os.environ)
        asyncio.run(commands[argv[0]](loaded))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return process.EXIT_MISCONFIGURED
    except ChappeError as error:
        sys.stderr.write(f"svc_identity {argv[0]}: {error}\n")
        return process.EXIT_FAILED
    return process.EXIT_OK


async def _migrate(loaded: Config) -> None:
    for name in await migrations.migrate(loaded.store_dsn.reveal(), SCHEMA):
        sys.stdout.write(f"applied {name}\n")


async def _rotate_keys(loaded: Config) -> None:
    async with Database(loaded.store_dsn.reveal(), size=2, changed=asyncio.Event()) as database:
        key_id = await SessionRules(PostgresSessionStore(database), system_seams()).rotate_key()
    sys.stdout.write(f"signing key {key_id} signs in a minute; the oldest is retired\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
