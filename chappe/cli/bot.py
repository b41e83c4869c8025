"""The commands that let a service speak as a user."""

from pathlib import Path

import click

from chappe.cli.terminal import Terminal, json_option, pass_terminal
from chappe.cli.up import DEFAULT_DATA


@click.group()
def bot() -> None:
    """Let a service of your own speak as a user. Needs a checkout of Chappe."""


@bot.command()
@click.argument("name")
@click.option(
    "--id", "service", metavar="NAME", help="The name of the service in its certificate; without it, from NAME."
)
@click.option(
    "--data",
    default=DEFAULT_DATA,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder of `chappe up`, which must be running.",
)
@json_option
@pass_terminal
def create(terminal: Terminal, /, *, name: str, service: str | None, data: Path) -> None:
    """Make a user NAME that a service speaks as, and a certificate with which it does.

    The certificate is good for 24 hours; the same command renews it, and the user stays the same.
    """
    from chappe.cli.bot_maker import make_bot

    made = make_bot(data.absolute(), name, service)
    terminal.show(
        f"{name} is the user {made.user_id}, device {made.device_id}\n"
        f"  certificate  {made.cert}\n"
        f"  key          {made.key}\n"
        f"  authority    {made.ca}\n"
        f"  identity     {made.spiffe_id}\n"
        f"Dial svc_message at {made.target} with these and the name svc-message, and call MessageService; "
        "docs/extend.md shows how in Python.",
        event="bot",
        name=name,
        user=made.user_id,
        device=made.device_id,
        spiffe_id=made.spiffe_id,
        cert=made.cert,
        key=made.key,
        ca=made.ca,
        target=made.target,
    )
