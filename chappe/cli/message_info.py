"""Shows who has a message and who read it."""

from typing import Final

import click

from chappe.cli.show import moment, tick_sign
from chappe.cli.terminal import Terminal
from chappe.client import Client, Message, Receipt, Tick

_PAGE: Final = 200
_MOST_PAGES: Final = 10


async def show_info(terminal: Terminal, me: Client, chat: str, start: str) -> None:
    """Shows a message and its receipts.

    Args:
        terminal: Where to show it.
        me: Who asks.
        chat: Where it was sent.
        start: How its id begins; empty for the newest own message.

    Raises:
        ClickException: There is none.
    """
    message = await find_message(me, chat, start.lower())
    receipts = await me.receipts(message)
    names = await me.people.names_of(receipt.user_id for receipt in receipts)
    how = f"{message.counts}" if message.counts is not None else message.tick.name.lower()
    terminal.show(
        f"{moment(message.sent_ms)}  {message.text}  {tick_sign(message.tick)} ({how})",
        event="message",
        id=message.id,
        text=message.text,
        sent_ms=message.sent_ms,
        tick=message.tick.name.lower(),
        recipients=message.counts.recipients if message.counts is not None else 1,
    )
    for receipt in receipts:
        terminal.show(
            f"  {names[receipt.user_id]:<24} {_how(receipt)}",
            event="receipt",
            user=receipt.user_id.hex(),
            name=names[receipt.user_id],
            tick=receipt.tick.name.lower(),
            delivered_ms=receipt.delivered_ms,
            read_ms=receipt.read_ms or None,
        )
    missing = message.counts.recipients - len(receipts) if message.counts is not None else 1 - len(receipts)
    if missing > 0:
        terminal.note(f"  {missing} more {'have' if missing > 1 else 'has'} not got it yet")


async def find_message(me: Client, chat: str, start: str) -> Message:
    """Returns the newest own message of a chat whose id begins so.

    Raises:
        ClickException: There is none among the newest 2,000 of the chat.
    """
    page = ""
    for _ in range(_MOST_PAGES):
        found = await me.history(chat, limit=_PAGE, page=page)
        for message in found.messages:
            if message.is_mine and message.id.startswith(start):
                return message
        page = found.next_page
        if not page:
            break
    what = f"no message of yours begins with {start}" if start else "there is no message of yours"
    raise click.ClickException(f"{what} in the chat with {chat}; `chappe --json history` shows ids")


def _how(receipt: Receipt) -> str:
    delivered = f"delivered {moment(receipt.delivered_ms)}"
    return f"read {moment(receipt.read_ms)}, {delivered}" if receipt.tick is Tick.READ else delivered
