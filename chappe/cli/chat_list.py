"""How a line of the chat list looks."""

from typing import Final

from chappe.cli.keep_show import marks_of, words_of
from chappe.cli.show import said, tick_sign
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.cli.written import shortened
from chappe.client import Chat, Client, NotConnectedError

MOST_UNREAD: Final = 100
"""More are not counted."""


async def show_chat(terminal: Terminal, me: Client, chat: Chat) -> None:
    """Shows a chat: what it is called, how it is kept, how much is unread, and what was said last."""
    name, last = await me.title(chat), chat.last_message
    sign = f" {tick_sign(last.tick)}" if last and last.is_mine else ""
    newest = f"{moment(last.sent_ms)}  {'me: ' if last.is_mine else ''}{shortened(said(last))}{sign}" if last else ""
    unread = f"({counted(chat.unread_count)})" if chat.unread_count else ""
    past = ["no member any more"] if chat.is_past else []
    marks = "".join(f"  [{mark}]" for mark in (*past, *marks_of(chat.settings)))
    place: dict[str, object] = {"peer": chat.peer_id.hex(), "peer_name": name}
    if chat.group_id:
        place = {"group": chat.group_id.hex(), "group_name": name, "is_member": not chat.is_past}
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


async def chats_or_stored(terminal: Terminal, me: Client, limit: int, *, is_archived: bool) -> list[Chat]:
    """Returns the chats, without a server those that the profile holds, and says so then.

    Raises:
        NotConnectedError: The profile holds none.
    """
    try:
        return await me.chats(limit=limit, is_archived=is_archived)
    except NotConnectedError as error:
        stored = await me.stored_chats(limit=limit, is_archived=is_archived)
        if not stored:
            raise
        terminal.say_offline(error)
        return stored


def counted(unread: int) -> str:
    """Returns how many messages are unread; more than a hundred are not counted."""
    return f"{MOST_UNREAD}+" if unread >= MOST_UNREAD else str(unread)
