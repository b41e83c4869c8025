"""`chappe up`: starts the whole system on this machine and keeps it up until Ctrl-C."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chappe.cli.terminal import Terminal, json_option, pass_terminal

if TYPE_CHECKING:
    from chappe.cli.launcher import Plan

DEFAULT_PORT = 7000
DEFAULT_DATA = Path(".chappe")


@click.command()
@click.option("--port", default=DEFAULT_PORT, show_default=True, metavar="PORT", help="The first edge's port.")
@click.option(
    "--edges", type=click.IntRange(min=1), metavar="N", help="How many edges; each further one has the next port."
)
@click.option("--replicas", default=1, show_default=True, metavar="N", help="How many processes of every service.")
@click.option(
    "--data",
    default=DEFAULT_DATA,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept between runs.",
)
@click.option(
    "--ledger",
    default="postgres",
    show_default=True,
    type=click.Choice(["postgres", "cassandra"]),
    help="The engine that keeps the messages; Cassandra is fetched once, and needs Java 17.",
)
@click.option(
    "--restart/--no-restart", "is_supervised", default=True, help="Whether what dies is started again; it is."
)
@click.option("--demo", "is_demo", is_flag=True, help="Make three people who know each other, a group, and chats.")
@json_option
@click.option("--module", default="svc_{}", hidden=True, help="What is run for each service; for tests.")
@pass_terminal
def up(terminal: Terminal, /, *, is_supervised: bool, is_demo: bool, **wanted: Any) -> None:
    """Start everything on this machine: two engines, five services, certificates.

    Needs a checkout of Chappe, and neither Docker nor root. WebSockets are on PORT, gRPC from PORT + 100 on, all on
    127.0.0.1 only. Variables such as CHAPPE_MESSAGE_LOG_LEVEL=debug reach the services; docs/config.md lists them.
    Ctrl-C stops everything cleanly, a second one at once; the data stays. With --json one line says where all is.
    """
    import asyncio
    import os
    import sys

    from chappe.cli.launcher import LaunchError
    from chappe.cli.up_session import UpSession

    try:
        plan = _plan(wanted, os.environ)
        session = UpSession(
            plan, is_supervised=is_supervised, is_json=terminal.is_json, demo_home=terminal.home if is_demo else None
        )
        sys.exit(asyncio.run(session.run()))
    except LaunchError as error:
        raise click.ClickException(str(error)) from error


def _plan(wanted: dict[str, Any], environ: Mapping[str, str]) -> "Plan":
    from chappe.cli.launcher import Plan

    return Plan(
        data=wanted.pop("data").absolute(),
        edges=wanted.pop("edges") or 0,
        settings={name: value for name, value in environ.items() if name.startswith("CHAPPE_")},
        environ={name: value for name, value in environ.items() if not name.startswith("CHAPPE_")},
        **wanted,
    )
