"""Runs the ledger: `python -m svc_message`; with a command it does that and ends.

`migrate` brings the schema up to date. `check` looks at the store as a start does, and changes nothing. `retain` lets
go of what is not kept for ever: messages that have disappeared and events older than 30 days; ledgers that run do so
too, a little at a time. `replay-parked` puts the entries of the journal that could not be decoded back, for the ledgers
that run now. `raise-epoch` belongs to a restore: devices then read again what they may have missed; ledgers learn of it
when they start.
"""

import asyncio
import os
import secrets
import sys

from chappe.runtime import config, migrations, process
from chappe.runtime.app import StartError
from chappe.runtime.clock import SystemClock
from chappe.runtime.config import ConfigError
from chappe.runtime.errors import ChappeError
from svc_message.adapters.message_store_postgres import SCHEMA
from svc_message.app import build, open_book
from svc_message.config import Config, Ledger
from svc_message.model.group import Shard
from svc_message.protocol import LedgerClock
from svc_message.service.retain import Retaining
from svc_message.worker import compare


async def migrate(config: Config) -> list[str]:
    """Applies what is missing; returns what to tell."""
    if config.ledger is Ledger.CASSANDRA:
        from svc_message.adapters.cassandra_keyspace import migrate_ledger  # noqa: PLC0415 - as in `open_book`

        return [f"applied {name}" for name in await migrate_ledger(config.cassandra)]
    return [f"applied {name}" for name in await migrations.migrate(config.store_dsn.reveal(), SCHEMA)]


async def check(config: Config) -> list[str]:
    """Looks whether the store is fit for the ledger; returns what to tell."""
    if config.ledger is Ledger.CASSANDRA:
        from svc_message.adapters.cassandra_keyspace import describe_ledger  # noqa: PLC0415 - as in `open_book`

        return [await describe_ledger(config.cassandra)]
    async with open_book(config, SystemClock()) as book:
        await book.messages.ready()
        clock = LedgerClock(SystemClock(), secrets.token_bytes(8))
        await compare(book.messages, clock, SystemClock())
        clock.check()
    return [f"PostgreSQL answers and is fit for the ledger: its schema is at {migrations.migrations(SCHEMA)[-1].name}"]


async def replay_parked(config: Config) -> list[str]:
    """Puts parked entries back into the journal, where a running ledger adopts them; returns what to tell."""
    async with open_book(config, SystemClock()) as book:
        count = await book.journal.replay(Shard(secrets.randbits(64)))
    return [f"replayed {count} entries"]


async def retain(config: Config) -> list[str]:
    """Makes one pass of the retention; returns what to tell."""
    async with open_book(config, SystemClock(), timeout_s=60) as book:
        clock = LedgerClock(SystemClock(), secrets.token_bytes(8))
        await compare(book.messages, clock, SystemClock())
        removed, woken, inboxes = await Retaining(book.retention, clock).everything()
    return [f"removed {removed} rows, brought {woken} conversations back, looked through {inboxes} inboxes"]


async def raise_epoch(config: Config) -> list[str]:
    """Begins a new epoch of a ledger that was restored; returns what to tell."""
    async with open_book(config, SystemClock()) as book:
        epoch = await book.raise_epoch()
    return [f"the epoch is {epoch}; ledgers learn of it when they start"]


COMMANDS = {
    "migrate": migrate,
    "check": check,
    "retain": retain,
    "replay-parked": replay_parked,
    "raise-epoch": raise_epoch,
}
HELP = {
    "migrate": "brings the schema up to date",
    "check": "looks whether the store is fit for the ledger, as a start does",
    "retain": "lets go once of what has disappeared, and of events older than 30 days",
    "replay-parked": "puts back entries of the journal that could not be read",
    "raise-epoch": "belongs to a restore: devices read again what they may have missed",
}


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    command = COMMANDS.get(argv[0]) if len(argv) == 1 else None
    if command is None:
        return process.run("message", Config, build, argv, os.environ, HELP)
    try:
        loaded = config.load(Config, "message", os.environ)
        for line in asyncio.run(command(loaded)):
            sys.stdout.write(f"{line}\n")
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return process.EXIT_MISCONFIGURED
    except (ChappeError, StartError) as error:
        sys.stderr.write(f"svc_message {argv[0]}: {error}\n")
        return process.EXIT_FAILED
    return process.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
