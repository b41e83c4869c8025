"""The commands about messages that are there: edit, delete, react, reply.

Like what is sent, what is not answered in time waits in the outbox.
"""

from typing import Final

import click

from chappe.cli.id_start import id_start
from chappe.cli.terminal import Terminal, pass_terminal, shared_options

_MESSAGE: Final = click.option(
    "--message",
    "start",
    type=id_start,
    metavar="ID",
    help="How its id begins, as `chappe --json history` prints it, far enough to mean one message.",
)
_TIMEOUT: Final = click.option(
    "--timeout", "timeout_s", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait."
)


@click.command()
@click.argument("chat")
@click.argument("text")
@_MESSAGE
@_TIMEOUT
@shared_options
@pass_terminal
def edit(terminal: Terminal, /, *, chat: str, text: str, start: str | None, timeout_s: float) -> None:
    """Put TEXT in the place of your newest message in CHAT, or of another one; for 15 minutes after it was sent."""

    async def work() -> None:
        from chappe.cli.act_show import edit_message

        async with terminal.client() as me:
            await edit_message(terminal, me, chat, start, text, timeout_s=timeout_s)

    terminal.run(work())


@click.command()
@click.argument("chat")
@_MESSAGE
@_TIMEOUT
@click.option("--for-me", "is_for_me", is_flag=True, help="Only from your own devices; whoever wrote it.")
@shared_options
@pass_terminal
def delete(terminal: Terminal, /, *, chat: str, start: str | None, timeout_s: float, is_for_me: bool) -> None:
    """Take your newest message in CHAT back from everybody, or another one; for two days after it was sent.

    Admins of a group take back what anybody wrote.
    """

    async def work() -> None:
        from chappe.cli.act_show import delete_message

        async with terminal.client() as me:
            await delete_message(terminal, me, chat, start, is_for_me=is_for_me, timeout_s=timeout_s)

    terminal.run(work())


@click.command()
@click.argument("chat")
@click.argument("emoji")
@_MESSAGE
@_TIMEOUT
@shared_options
@pass_terminal
def react(terminal: Terminal, /, *, chat: str, emoji: str, start: str | None, timeout_s: float) -> None:
    """React with EMOJI to the newest message that others wrote in CHAT, or to another one; with "" no longer."""

    async def work() -> None:
        from chappe.cli.act_show import react_to_message

        async with terminal.client() as me:
            await react_to_message(terminal, me, chat, start, emoji, timeout_s=timeout_s)

    terminal.run(work())


@click.command()
@click.argument("chat")
@click.argument("text")
@_MESSAGE
@_TIMEOUT
@shared_options
@pass_terminal
def reply(terminal: Terminal, /, *, chat: str, text: str, start: str | None, timeout_s: float) -> None:
    """Answer the newest message that others wrote in CHAT, or another one, with TEXT."""

    async def work() -> None:
        from chappe.cli.act_show import reply_to_message

        async with terminal.client() as me:
            await reply_to_message(terminal, me, chat, start, text, timeout_s=timeout_s)

    terminal.run(work())
