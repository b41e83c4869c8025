"""The command that says who has a message and who read it."""

import click

from chappe.cli.id_start import id_start
from chappe.cli.terminal import Terminal, pass_terminal, shared_options


@click.command()
@click.argument("chat")
@click.argument("message_id", metavar="[MESSAGE]", required=False, type=id_start)
@shared_options
@pass_terminal
def info(terminal: Terminal, /, *, chat: str, message_id: str | None) -> None:
    """Show who has a message of yours in CHAT and who read it, by name and with times.

    MESSAGE is the beginning of its id, as `chappe --json history` and `send` print it; without it, your newest one.
    """

    async def work() -> None:
        from chappe.cli.message_info import show_info

        async with terminal.client() as me:
            await show_info(terminal, me, chat, message_id)

    terminal.run(work())
