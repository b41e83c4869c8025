"""How a line of the chat list looks."""

from chappe.cli.keep_show import marks_of, words_of
from chappe.cli.show import said, tick_sign
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.client import Chat, Client


async def show_chat(terminal: Terminal, me: Client, chat: Chat) -> None:
    """Shows a chat: what it is called, how it is kept, how much is unread, and what was said last."""
    name, last = await me.title(chat), chat.last_message
    sign = f" {tick_sign(last.tick)}" if last and last.is_mine else ""
    newest = f"{moment(last.sent_ms)}  {'me: ' if last.is_mine else ''}{said(last)}{sign}" if last else ""
    unread = f"({chat.unread_count})" if chat.unread_count else ""
    marks = "".join(f"  [{mark}]" for mark in marks_of(chat.settings))
    place = {"peer": chat.peer_id.hex(), "peer_name": name}
    if chat.group_id:
        place = {"group": chat.group_id.hex(), "group_name": name}
    _, kept = words_of(chat.settings)
    terminal.show(
        f"{name:<20} {unread:>6}  {newest}{marks}",
        event="chat",
        chat=chat.conversation_id.hex(),
        unread=chat.unread_count,
        last_text=last.text if last else None,
        last_ms=last.sent_ms if last else None,
        **kept,
        **place,
    )
