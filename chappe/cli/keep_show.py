"""Changes how chats are kept, and how that looks."""

import time
from typing import Any, Final, NamedTuple

import click

from chappe.cli.duration import spoken
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.client import ChatSettings, Client

_YEAR_2100_MS: Final = 4_102_444_800_000


class Wanted(NamedTuple):
    """What somebody wants to have changed; None is left as it is."""

    is_muting: bool
    mute_s: int | None
    """For how long, when it is muting: 0 ends it, None is for ever."""
    is_pinned: bool | None
    is_archived: bool | None
    is_cleared: bool


async def keep_chat(terminal: Terminal, me: Client, chat: str, wanted: Wanted) -> None:
    """Changes how a chat is kept, and says how it is kept then.

    Raises:
        ClickException: Nothing is to be changed.
    """
    settings: ChatSettings | None = None
    if wanted.is_muting:
        settings = await _mute(me, chat, wanted.mute_s)
    if wanted.is_pinned is not None:
        settings = await (me.pin(chat) if wanted.is_pinned else me.unpin(chat))
    if wanted.is_archived is not None:
        settings = await (me.archive(chat) if wanted.is_archived else me.unarchive(chat))
    if wanted.is_cleared:
        newest = (await me.history(chat, limit=1)).messages
        settings = await me.clear(newest[0] if newest else chat)
    if settings is None:
        raise click.ClickException("nothing to change; `chappe keep --help` lists what there is")
    await _show(terminal, me, chat, settings)


async def set_timer(terminal: Terminal, me: Client, chat: str, time_s: int) -> None:
    """Lets new messages of a chat disappear, and says so."""
    await _show(terminal, me, chat, await me.set_timer(chat, time_s))


def words_of(settings: ChatSettings) -> tuple[str, dict[str, Any]]:
    """Returns how a chat is kept, for people and as fields."""
    words = marks_of(settings)
    fields = {
        "muted_until_ms": settings.muted_until_ms or None,
        "pinned_ms": settings.pinned_ms or None,
        "is_archived": settings.is_archived,
        "timer_s": settings.expiry_s or None,
    }
    return ", ".join(words) or "as usual", fields


def marks_of(settings: ChatSettings) -> list[str]:
    """Returns what is special about a chat, for people."""
    marks = ["pinned"] if settings.pinned_ms else []
    if settings.muted_until_ms > time.time() * 1000:
        is_for_ever = settings.muted_until_ms >= _YEAR_2100_MS
        marks.append("muted" if is_for_ever else f"muted until {moment(settings.muted_until_ms)}")
    marks += ["archived"] if settings.is_archived else []
    return marks + ([f"messages disappear after {spoken(settings.expiry_s)}"] if settings.expiry_s else [])


async def _mute(me: Client, chat: str, mute_s: int | None) -> ChatSettings:
    if mute_s is None:
        return await me.mute(chat)
    return await (me.mute(chat, int((time.time() + mute_s) * 1000)) if mute_s else me.unmute(chat))


async def _show(terminal: Terminal, me: Client, chat: str, settings: ChatSettings) -> None:
    where = await me.destination(chat)
    words, fields = words_of(settings)
    place = {"group": where.group_id.hex()} if where.group_id else {"peer": where.peer_id.hex()}
    terminal.show(
        f"{await me.title(where)}: {words}", event="settings", chat=where.conversation_id.hex(), **place, **fields
    )
