"""The `chappe` command; each command imports what it needs when it runs, so that `--help` stays fast."""

import click

from chappe import __version__
from chappe.cli.doctor import doctor
from chappe.cli.up import up

EXIT_CODES = """
Exit codes: 0 done; 1 it did not work, the line on stderr says why and what to do; 2 the command was typed wrongly;
3 the server refused; 4 no server answered; 130 interrupted.
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="chappe")
def main() -> None:
    """Starts Chappe on this machine, and chats through it from a terminal."""


for command in (up, doctor):
    main.add_command(command)
