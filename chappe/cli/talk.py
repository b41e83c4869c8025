"""The commands that talk: send, listen, history, chats."""

import click

from chappe.cli.duration import lifetime
from chappe.cli.terminal import LOCAL_AFTER_S, ONLINE_S, Terminal, pass_terminal, shared_options


@click.command()
@click.argument("chat")
@click.argument("text")
@click.option(
    "--wait",
    "until",
    is_flag=False,
    flag_value="delivered",
    type=click.Choice(["delivered", "read"]),
    help="Wait for ✓✓, or with --wait=read until it is read, in a group by all; shows what comes meanwhile.",
)
@click.option("--timeout", "timeout_s", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@click.option("--expires", "expiry_s", type=lifetime, metavar="TIME", help="It disappears after 24h, 7d or so.")
@shared_options
@pass_terminal
def send(
    terminal: Terminal, /, *, chat: str, text: str, until: str | None, timeout_s: float, expiry_s: int | None
) -> None:
    """Send TEXT to CHAT: a phone number, the name of a contact, or the name of a group. ✓ means that it is durable.

    A group may also be named by its id, or by the beginning of it.

    Content is not encrypted end to end yet (suite NONE): whoever runs the servers can read it.
    Not in time, or without a server, it waits in this profile's outbox (exit code 5); the next command of the profile
    that connects sends it.
    """

    async def work() -> None:
        from chappe.cli.conversation import send_once, wait_for

        async with terminal.client(may_be_offline=True, wait_s=min(timeout_s, ONLINE_S)) as me:
            sent = await send_once(terminal, me, chat, text, expiry_s=expiry_s, timeout_s=timeout_s)
            if until is not None:
                await wait_for(terminal, me, sent, until, timeout_s)

    terminal.run(work())


@click.command()
@click.option("--read", "is_reading", is_flag=True, help="Tell the senders that their messages were read.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N messages of other people.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Stop after so long.")
@shared_options
@pass_terminal
def listen(terminal: Terminal, /, *, is_reading: bool, count: int | None, timeout_s: float | None) -> None:
    """Print messages and ticks as they come, first those that came while nobody listened; Ctrl-C stops.

    Each message is printed once on this profile; `chappe history` shows it again. ✓ durable, ✓✓ delivered, a blue ✓✓
    read.
    """

    async def work() -> None:
        from chappe.cli.conversation import listen_on

        async with terminal.client() as me:
            await listen_on(terminal, me, is_reading=is_reading, count=count, timeout_s=timeout_s)

    terminal.run(work())


@click.command()
@click.argument("chat")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="How many messages.")
@shared_options
@pass_terminal
def history(terminal: Terminal, /, *, chat: str, limit: int) -> None:
    """Show the newest messages of a chat, named as in `chappe send`, the oldest of them first, with their ticks.

    Between the messages of a group stands what happened to it, as far as this profile was told. Without a server it
    shows what the profile holds.
    """

    async def work() -> None:
        from chappe.cli.conversation import newest_or_stored
        from chappe.cli.show import Screen

        async with terminal.client(may_be_offline=True, wait_s=LOCAL_AFTER_S) as me:
            screen = Screen(terminal, me)
            for entry in await newest_or_stored(terminal, me, chat, limit):
                await screen.event(entry)

    terminal.run(work())


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="How many chats.")
@click.option("--archived", "is_archived", is_flag=True, help="Those that are archived, and no others.")
@shared_options
@pass_terminal
def chats(terminal: Terminal, /, *, limit: int, is_archived: bool) -> None:
    """List the chats, the pinned first, then the one with the newest message, with the number of unread messages.

    Without a server it lists what the profile holds.
    """

    async def work() -> None:
        from chappe.cli.chat_list import chats_or_stored, show_chat

        async with terminal.client(may_be_offline=True, wait_s=LOCAL_AFTER_S) as me:
            for chat in await chats_or_stored(terminal, me, limit, is_archived=is_archived):
                await show_chat(terminal, me, chat)

    terminal.run(work())
