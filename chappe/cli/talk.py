"""The commands that talk: send, listen, history, chats."""

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options


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
@shared_options
@pass_terminal
def send(terminal: Terminal, /, *, chat: str, text: str, until: str | None, timeout_s: float) -> None:
    """Send TEXT to CHAT: a phone number, the name of a contact, or the name of a group. ✓ means that it is durable.

    A group may also be named by its id, or by the beginning of it.

    Content is not encrypted end to end yet (suite NONE): whoever runs the servers can read it.
    Not in time means that it waits in this profile's outbox; any later command of the profile sends it.
    """

    async def work() -> None:
        from chappe.cli.conversation import send_and_wait

        async with terminal.client() as me:
            await send_and_wait(terminal, me, chat, text, until=until, timeout_s=timeout_s)

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
    """Show the newest messages of a chat, named as in `chappe send`, the oldest of them first, with their ticks."""

    async def work() -> None:
        from chappe.cli.conversation import newest
        from chappe.cli.show import Screen

        async with terminal.client() as me:
            screen = Screen(terminal, me)
            for message in await newest(me, chat, limit):
                await screen.message(message)

    terminal.run(work())


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="How many chats.")
@shared_options
@pass_terminal
def chats(terminal: Terminal, /, *, limit: int) -> None:
    """List the chats, the one with the newest message first, with the number of unread messages."""

    async def work() -> None:
        from chappe.cli.show import moment, tick_sign

        async with terminal.client() as me:
            for chat in await me.chats(limit=limit):
                name, last = await me.title(chat), chat.last_message
                sign = f" {tick_sign(last.tick)}" if last and last.is_mine else ""
                said = f"{moment(last.sent_ms)}  {'me: ' if last.is_mine else ''}{last.text}{sign}" if last else ""
                unread = f"({chat.unread_count})" if chat.unread_count else ""
                place = {"peer": chat.peer_id.hex(), "peer_name": name}
                if chat.group_id:
                    place = {"group": chat.group_id.hex(), "group_name": name}
                terminal.show(
                    f"{name:<20} {unread:>6}  {said}",
                    event="chat",
                    chat=chat.conversation_id.hex(),
                    unread=chat.unread_count,
                    last_text=last.text if last else None,
                    last_ms=last.sent_ms if last else None,
                    **place,
                )

    terminal.run(work())
