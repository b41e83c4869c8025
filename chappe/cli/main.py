"""The `chappe` command; each command imports what it needs when it runs, so that `--help` stays fast."""

import os
from pathlib import Path

import click

from chappe import __version__
from chappe.cli.account import hello, link, login, register, revoke, sessions
from chappe.cli.act import delete, edit, react, reply
from chappe.cli.bench import bench
from chappe.cli.bot import bot
from chappe.cli.chat.command import chat
from chappe.cli.doctor import doctor
from chappe.cli.group import group
from chappe.cli.info import info
from chappe.cli.keep import keep, timer
from chappe.cli.people import block, contacts, unblock
from chappe.cli.presence import presence
from chappe.cli.settings import settings
from chappe.cli.talk import chats, history, listen, send
from chappe.cli.terminal import HOME, Terminal, json_option, pass_terminal, shared_options
from chappe.cli.trace import trace
from chappe.cli.up import up

EXIT_CODES = """
Exit codes: 0 done; 1 it did not work, and the line on stderr says what to do; 2 typed wrongly; 3 the server refused;
4 no server answered; 5 it waits in the outbox and is sent with the next command; 130 interrupted.
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="chappe")
@shared_options
@click.pass_context
def main(context: click.Context, /) -> None:
    """Start Chappe on this machine, and chat through it from a terminal.

    Profiles are kept in ~/.chappe/profiles, or in the folder that CHAPPE_HOME names.
    """
    context.meta[HOME] = Path(os.environ.get("CHAPPE_HOME") or Path.home() / ".chappe")


@main.command()
@json_option
@pass_terminal
def version(terminal: Terminal, /) -> None:
    """Print the version."""
    terminal.show(__version__, version=__version__)


for command in (up, register, login, link, chat, send, listen, history, info, chats, group, contacts, presence):
    main.add_command(command)
for command in (edit, delete, react, reply, keep, timer):
    main.add_command(command)
for command in (block, unblock, settings, bot, sessions, revoke, hello, doctor, trace, bench):
    main.add_command(command)
