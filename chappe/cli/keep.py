"""The commands that say how a chat is kept: keep, timer."""

from typing import Any, Final

import click

from chappe.cli.duration import lifetime, seconds
from chappe.cli.terminal import Terminal, pass_terminal, shared_options

_ALWAYS: Final = "always"


def _mute_time(text: str) -> int | None:
    return None if text == _ALWAYS else seconds(text)


@click.command()
@click.argument("chat")
@click.option("--mute", "mute", metavar="TIME", help="No notifications for 8h, 1w or so; `always`, or `off`.")
@click.option("--pin/--unpin", "is_pinned", default=None, help="Above the others, or not any more.")
@click.option("--archive/--unarchive", "is_archived", default=None, help="Out of sight until somebody writes, or not.")
@click.option("--clear", "is_cleared", is_flag=True, help="Remove what was said from your own devices.")
@shared_options
@pass_terminal
def keep(terminal: Terminal, /, *, chat: str, mute: str | None, **wanted: Any) -> None:
    """Say how you keep CHAT, on all of your devices; nobody else learns of it."""
    mute_s = _mute_time(mute) if mute is not None else 0

    async def work() -> None:
        from chappe.cli.keep_show import Wanted, keep_chat

        async with terminal.client() as me:
            await keep_chat(terminal, me, chat, Wanted(is_muting=mute is not None, mute_s=mute_s, **wanted))

    terminal.run(work())


@click.command()
@click.argument("chat")
@click.argument("time_s", metavar="TIME", type=lifetime)
@shared_options
@pass_terminal
def timer(terminal: Terminal, /, *, chat: str, time_s: int) -> None:
    """Let new messages in CHAT disappear after TIME, like 24h, 7d or 90d, for everybody in it; `off` for never."""

    async def work() -> None:
        from chappe.cli.keep_show import set_timer

        async with terminal.client() as me:
            await set_timer(terminal, me, chat, time_s)

    terminal.run(work())
