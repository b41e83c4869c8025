"""`chappe chat`."""

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options


@click.command()
@click.argument("name", required=False, metavar="[CHAT]")
@click.option("--plain", "is_plain", is_flag=True, help="Without colours; the same with NO_COLOR or TERM=dumb.")
@shared_options
@pass_terminal
def chat(terminal: Terminal, /, *, name: str | None, is_plain: bool) -> None:
    """Chat in this terminal: all chats with ticks, typing and presence. CHAT is opened first.

    Needs the package prompt-toolkit: pip install 'chappe[chat]'.
    """

    async def work() -> None:
        from chappe.cli.chat.screen import Terminals
        from chappe.cli.chat.session import ChatSession

        async with terminal.client() as me:
            await ChatSession(me, Terminals(is_plain=is_plain or _has_no_colours()), name or "").run()

    _refuse_what_cannot_be()
    terminal.run(work())


def _has_no_colours() -> bool:
    import os

    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in {"", "dumb"}


def _refuse_what_cannot_be() -> None:
    import importlib.util
    import sys

    if importlib.util.find_spec("prompt_toolkit") is None:
        raise click.ClickException("the chat needs the package prompt-toolkit: pip install 'chappe[chat]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("the chat needs a terminal; without one use `chappe listen` and `chappe send`")
