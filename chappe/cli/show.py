"""How messages, ticks and people look on a terminal, and as JSON."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import click

from chappe.cli.terminal import Terminal
from chappe.client import Client, Event, Message, Offline, Online, SendFailed, Tick, TickChanged

_SHORT = 40


def moment(ms: int) -> str:
    """Returns a Unix time in milliseconds as local date and time."""
    return dt.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def tick_sign(tick: Tick) -> str:
    """Returns ✓, ✓✓, or for read messages a blue ✓✓ with the word."""
    return click.style(tick.sign, fg="blue", bold=True) if tick is Tick.READ else tick.sign


class Screen:
    """Shows what happens to one person."""

    def __init__(self, terminal: Terminal, me: Client) -> None:
        """Prepares.

        Args:
            terminal: Where to show it.
            me: Whose events they are; knows how people are called.
        """
        self._terminal = terminal
        self._me = me
        self._texts: dict[bytes, str] = {}
        self._handlers: dict[type[Any], Callable[[Any], Any]] = {
            Message: self.message,
            TickChanged: self.tick,
            SendFailed: self._failed,
            Online: lambda event: terminal.note(f"connected to {event.edge}"),
            Offline: lambda event: terminal.note(f"disconnected from {event.edge}, coming back"),
        }

    async def event(self, event: Event) -> None:
        """Shows an event; of what people need not see, nothing."""
        handler = self._handlers.get(type(event))
        shown = None if handler is None else handler(event)
        if shown is not None:
            await shown

    async def message(self, message: Message) -> None:
        """Shows a message, one's own with its tick."""
        self._texts[message.message_id] = message.text
        peer = await self._me.people.name_of(message.peer_id)
        who = f"me → {peer}" if message.is_mine else peer
        sign = f"  {tick_sign(message.tick)}" if message.is_mine and message.tick else ""
        self._terminal.show(
            f"{moment(message.sent_ms)}  {who}: {message.text}{sign}",
            event="message",
            id=message.id,
            chat=message.conversation_id.hex(),
            peer=message.peer_id.hex(),
            peer_name=peer,
            is_mine=message.is_mine,
            text=message.text,
            sent_ms=message.sent_ms,
            accepted_ms=message.accepted_ms,
            tick=message.tick.name.lower(),
        )

    async def tick(self, change: TickChanged) -> None:
        """Shows that a message came further."""
        peer = await self._me.people.name_of(change.by_user_id)
        text = await self._text(change)
        self._terminal.show(
            f"{moment(change.recorded_ms)}  {tick_sign(change.tick)}  {peer}: {text}",
            event="tick",
            id=change.message_id.hex(),
            chat=change.conversation_id.hex(),
            by=change.by_user_id.hex(),
            by_name=peer,
            tick=change.tick.name.lower(),
            recorded_ms=change.recorded_ms,
        )

    def _failed(self, event: SendFailed) -> None:
        self._terminal.show(
            f"not sent: {event.reason}: {event.detail}", event="failed", reason=event.reason, detail=event.detail
        )

    async def _text(self, change: TickChanged) -> str:
        if change.message_id not in self._texts:
            stored = await self._me.stored_history(change.by_user_id, limit=200)
            self._texts |= {message.message_id: message.text for message in stored}
        text = self._texts.get(change.message_id, change.message_id.hex())
        return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
