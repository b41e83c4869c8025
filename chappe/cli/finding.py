"""Finds the message of a chat that somebody means."""

from collections.abc import Callable
from typing import Final

import click

from chappe.client import Client, Message

_PAGE: Final = 200
_MOST_PAGES: Final = 10


async def find_message(me: Client, chat: str, start: str, which: Callable[[Message], bool], what: str) -> Message:
    """Returns the newest message of a chat whose id begins so, of those that may be meant.

    Args:
        me: Who looks.
        chat: Where.
        start: How its id begins; empty for any.
        which: Tells which may be meant.
        what: The same for people, like "message of yours".

    Raises:
        ClickException: There is none among the newest 2,000 of the chat.
    """
    page = ""
    for _ in range(_MOST_PAGES):
        found = await me.history(chat, limit=_PAGE, page=page)
        for message in found.messages:
            if message.id.startswith(start.lower()) and which(message):
                return message
        page = found.next_page
        if not page:
            break
    none = f"no {what} begins with {start}" if start else f"there is no {what}"
    raise click.ClickException(f"{none} in the chat with {chat}; `chappe --json history` shows ids")


def is_mine(message: Message) -> bool:
    """Tells whether a message is an own one that was not taken back."""
    return message.is_mine and not message.revoked_ms


def is_others(message: Message) -> bool:
    """Tells whether a message is another's that was not taken back."""
    return not message.is_mine and not message.revoked_ms


def is_there(message: Message) -> bool:
    """Tells whether a message was not taken back."""
    return not message.revoked_ms
