"""Shows who has a message and who read it."""

from contextlib import suppress

from chappe.cli.finding import find_message, is_mine
from chappe.cli.show import tick_sign
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.cli.written import written
from chappe.client import Client, Message, Receipt, RefusedError, Tick


async def show_info(terminal: Terminal, me: Client, chat: str, start: str | None) -> None:
    """Shows a message and its receipts.

    Args:
        terminal: Where to show it.
        me: Who asks.
        chat: Where it was sent.
        start: How its id begins; None for the newest own message.

    Raises:
        ClickException: There is none.
    """
    message = await find_message(me, chat, start, is_mine, "message of yours")
    receipts = await me.receipts(message)
    names = await me.people.names_of(receipt.user_id for receipt in receipts)
    how = f"{message.counts}" if message.counts is not None else message.tick.name.lower()
    terminal.show(
        f"{moment(message.sent_ms)}  {written(message.text)}  {tick_sign(message.tick)} ({how})",
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
        await _show_missing(terminal, me, message, {receipt.user_id for receipt in receipts}, missing)


async def _show_missing(terminal: Terminal, me: Client, message: Message, have: set[bytes], missing: int) -> None:
    """Shows who is still without a message: by name where the members are those to whom it was sent."""
    wanted = {message.peer_id}
    if message.group_id:
        with suppress(RefusedError):
            wanted = {member.user_id for member in await me.groups.members(message.group_id)} - {me.user_id}
    without = sorted(wanted - have - {b""})
    if len(without) != missing:
        terminal.note(f"  {missing} more {'have' if missing > 1 else 'has'} not got it yet")
        return
    names = await me.people.names_of(without)
    for user_id in without:
        terminal.show(
            f"  {names[user_id]:<24} has not got it yet",
            event="missing",
            user=user_id.hex(),
            name=names[user_id],
        )


def _how(receipt: Receipt) -> str:
    delivered = f"delivered {moment(receipt.delivered_ms)}"
    return f"read {moment(receipt.read_ms)}, {delivered}" if receipt.tick is Tick.READ else delivered
