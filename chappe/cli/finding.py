"""Finds the message of a chat that somebody means."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import click

from chappe.cli.times import moment
from chappe.cli.written import shortened
from chappe.client import Client, Message

_PAGE: Final = 200
_MOST_PAGES: Final = 10
_WHOLE_ID: Final = 32
_MOST_NAMED: Final = 10


async def find_message(
    me: Client, chat: str, start: str | None, which: Callable[[Message], bool], what: str
) -> Message:
    """Returns the message of a chat that is meant, among its newest 2,000.

    Args:
        me: Who looks.
        chat: Where.
        start: How its id begins, in lower case; None for the newest that may be meant.
        which: Tells which may be meant.
        what: The same for people, like "message of yours".

    Raises:
        ClickException: There is none, or more than one begins so.
    """
    found: list[Message] = []
    async with aclosing(_newest_first(me, chat)) as messages:
        async for message in messages:
            # Pages go back in the order of the ids.
            if start is not None and message.id[: len(start)] < start:
                break
            if which(message) and message.id.startswith(start or ""):
                found.append(message)
                if start is None or len(start) == _WHOLE_ID or len(found) > _MOST_NAMED:
                    break
    if len(found) > 1:
        raise click.ClickException(_ambiguous(found, start or ""))
    if not found:
        none = f"no {what} begins with {start}" if start else f"there is no {what}"
        raise click.ClickException(f"{none} in the chat with {chat}; `chappe --json history` shows ids")
    return found[0]


async def _newest_first(me: Client, chat: str) -> AsyncGenerator[Message]:
    page = ""
    for _ in range(_MOST_PAGES):
        found = await me.history(chat, limit=_PAGE, page=page)
        for message in found.messages:
            yield message
        page = found.next_page
        if not page:
            return


def _ambiguous(found: list[Message], start: str) -> str:
    lines = "".join(f"\n  {one.id}  {moment(one.sent_ms)}  {shortened(one.text)}" for one in found[:_MOST_NAMED])
    more = "\n  and more" if len(found) > _MOST_NAMED else ""
    return f"more than one message begins with {start}; write more of the id:{lines}{more}"


def is_mine(message: Message) -> bool:
    """Tells whether a message is an own one that was not taken back."""
    return message.is_mine and not message.revoked_ms


def is_others(message: Message) -> bool:
    """Tells whether a message is another's that was not taken back."""
    return not message.is_mine and not message.revoked_ms


def is_there(message: Message) -> bool:
    """Tells whether a message was not taken back."""
    return not message.revoked_ms
