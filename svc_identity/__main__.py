"""Runs the directory: `python -m svc_identity`; with a command it does that and ends.

`migrate` brings the schema up to date, `rotate-keys` makes a new key that signs access tokens, and `bot create` lets a
service speak as a user. `raise-epoch` belongs to a restore: whoever follows the changes then begins anew.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

from chappe.runtime import config, migrations, process
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ConfigError
from chappe.runtime.errors import ChappeError, InvalidFieldError
from chappe.runtime.pki import SpiffeIdError, parse_spiffe_id
from svc_identity.adapters.bot_store_postgres import PostgresBotStore
from svc_identity.adapters.change_log_postgres import PostgresChangeLog
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.session_store_postgres import PostgresSessionStore
from svc_identity.app import SCHEMA, build
from svc_identity.config import Config
from svc_identity.service.bot import BotRules
from svc_identity.service.session import SessionRules

Command = Callable[[Config, argparse.Namespace], Awaitable[None]]

HELP = {
    "migrate": "brings the schema up to date",
    "rotate-keys": "makes a new key that signs access tokens",
    "raise-epoch": "belongs to a restore: whoever follows the changes begins anew",
    "bot": "lets a service speak as a user",
}


def main(argv: list[str]) -> int:
    """Returns the exit code; a command that is misspelt ends the process with its usage."""
    commands: dict[str, Command] = {
        "migrate": _migrate,
        "rotate-keys": _rotate_keys,
        "raise-epoch": _raise_epoch,
        "bot": _create_bot,
    }
    if not argv or argv[0] not in commands:
        return process.run("identity", Config, build, argv, os.environ, HELP)
    arguments = _parser().parse_args(argv)
    try:
        loaded = config.load(Config, "identity", os.environ)
        asyncio.run(_run(commands[argv[0]], loaded, arguments))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return process.EXIT_MISCONFIGURED
    except ChappeError as error:
        sys.stderr.write(f"svc_identity {argv[0]}: {error}\n")
        return process.EXIT_FAILED
    return process.EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m svc_identity")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("migrate", help=HELP["migrate"])
    commands.add_parser("rotate-keys", help=HELP["rotate-keys"])
    commands.add_parser("raise-epoch", help=HELP["raise-epoch"])
    bots = commands.add_parser("bot", help=HELP["bot"]).add_subparsers(required=True)
    create = bots.add_parser("create", help="makes the user of a service; one that is there already is kept")
    create.add_argument("--name", required=True, help="what others see")
    create.add_argument("--spiffe-id", required=True, help="the SPIFFE id in the certificate of the service")
    create.add_argument("--json", action="store_true", help="print the user as JSON")
    return parser


async def _run(command: Command, loaded: Config, arguments: argparse.Namespace) -> None:
    await command(loaded, arguments)


async def _migrate(loaded: Config, _: argparse.Namespace) -> None:
    for name in await migrations.migrate(loaded.store_dsn.reveal(), SCHEMA):
        sys.stdout.write(f"applied {name}\n")


async def _rotate_keys(loaded: Config, _: argparse.Namespace) -> None:
    await migrations.check(loaded.store_dsn.reveal(), SCHEMA)
    async with Database(loaded.store_dsn.reveal(), size=2, changed=asyncio.Event()) as database:
        key_id = await SessionRules(PostgresSessionStore(database), system_seams()).rotate_key()
    sys.stdout.write(f"signing key {key_id} signs in a minute; the oldest is retired\n")


async def _raise_epoch(loaded: Config, _: argparse.Namespace) -> None:
    await migrations.check(loaded.store_dsn.reveal(), SCHEMA)
    async with Database(loaded.store_dsn.reveal(), size=2, changed=asyncio.Event()) as database:
        epoch = await PostgresChangeLog(database).raise_epoch()
    sys.stdout.write(f"the epoch is {epoch}; start all services anew, so that none keeps a copy of what was lost\n")


async def _create_bot(loaded: Config, arguments: argparse.Namespace) -> None:
    try:
        spiffe_id = str(parse_spiffe_id(arguments.spiffe_id, loaded.server.trust_domain))
    except SpiffeIdError as error:
        raise InvalidFieldError("spiffe-id", str(error)) from error
    await migrations.check(loaded.store_dsn.reveal(), SCHEMA)
    async with Database(loaded.store_dsn.reveal(), size=2, changed=asyncio.Event()) as database:
        bot = await BotRules(PostgresBotStore(database), system_seams()).create(spiffe_id, arguments.name)
    named = {"user_id": bot.user_id.hex(), "device_id": bot.device_id, "spiffe_id": spiffe_id}
    sys.stdout.write(json.dumps(named) if arguments.json else f"{spiffe_id} speaks as the user {bot.user_id.hex()}")
    sys.stdout.write("\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
