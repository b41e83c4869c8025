"""Turns the state into rows of a given width: the list of chats, the header, the messages, the help. No I/O.

Styles are names, without colours: "read" is blue where there are colours, and says so in words where there are none.
"""

import datetime as dt
import sys
from typing import Final, NamedTuple

from chappe.cli.chat.state import Entry, Notice, Row, State
from chappe.cli.chat.text import Line, cut, flat, padded, plain, width, wrap
from chappe.cli.presence_words import last_seen
from chappe.client import Message, Presence, Tick

NARROW: Final = 60
"""A terminal of fewer columns shows the list or a chat, not both."""
KEYS: Final = "Enter send · ↑↓ chats · PgUp older · /to NAME new chat · /help · Ctrl-C quit"
HELP: Final = (
    ("Enter", "send; Alt-Enter begins a new line"),
    ("↑ ↓ or Tab", "other chats; Alt-1 to Alt-9 by number"),
    ("PgUp PgDn", "back in history, and forward again; Esc to the newest"),
    ("/to NAME", "open a chat: contact, number or group"),
    ("/info", "who has your newest message"),
    ("/reply TEXT", "answer the newest of somebody else"),
    ("/react EMOJI", "react to the newest of somebody else"),
    ("/edit TEXT", "change your newest message"),
    ("/delete", "take your newest message back"),
    ("/quit, Ctrl-C", "leave; what waits is sent next time"),
    ("", ""),
    ("✓ ✓✓", "durable; all have it. Blue, or the word read: all read it. 1/2: one of two"),
    ("* ~ # ●", "pinned, muted, archived, online"),
)
_HELP_KEY: Final = 16
_SAME_S: Final = 300
_FEW: Final = 40
_LINE: Final = 400
"""More letters of a text than these fit into no line, and need not be looked at."""
_MOST_ROWS: Final = 200
"""A message is shown with so many rows, or else a huge one hides the others and makes every key slow."""
_GOES_ON: Final = "… it goes on; `chappe history` shows all of it"


class View(NamedTuple):
    """Where and when the chat is looked at."""

    now: dt.datetime
    """The time, with its zone."""
    is_plain: bool = False
    """There are no colours, so that words say what they say elsewhere."""

    def at(self, ms: int) -> dt.datetime:
        """Returns a Unix time in milliseconds as local time."""
        return dt.datetime.fromtimestamp(ms / 1000, self.now.tzinfo)

    def short(self, ms: int) -> str:
        """Returns the time of today, and the day of any other."""
        then = self.at(ms)
        days = (self.now.date() - then.date()).days
        if days == 0:
            return f"{then:%H:%M}"
        return "yesterday" if days == 1 else f"{then:%a}" if 1 < days < 7 else f"{then:%Y-%m-%d}"  # noqa: PLR2004 - a week

    def day(self, ms: int) -> str:
        """Returns the day in words."""
        then = self.at(ms)
        days = (self.now.date() - then.date()).days
        return {0: "today", 1: "yesterday"}.get(days, f"{then:%A} {then.day} {then:%B %Y}")


def list_width(columns: int) -> int:
    """Returns how wide the list of chats is."""
    return columns if columns < NARROW else max(24, min(40, columns * 3 // 10))


def list_lines(state: State, view: View, columns: int, rows: int) -> list[Line]:
    """Returns the list of chats, two rows each, with the open one in view."""
    chats = state.chats
    shown = max(1, rows // 2)
    at = next((n for n, row in enumerate(chats) if row.conversation_id == state.open_id), 0)
    first = max(0, min(at - shown // 2, len(chats) - shown))
    lines: list[Line] = []
    for row in chats[first : first + shown]:
        lines += _row_lines(state, row, view, columns)
    if not chats:
        lines = [padded([("dim", " nobody yet: /to NAME")], columns)]
    return _filled(lines, columns, rows)


def header_line(state: State, view: View, columns: int) -> Line:
    """Returns the name of the open chat with who is there, typing or in it; or that there is no connection."""
    row = state.open_row
    if row is None:
        return padded([("title", " Chappe"), ("dim", "  ↓ opens the first chat, /to NAME any")], columns)
    title = f" {plain(row.title)}"
    about = "" if not state.is_online else _about(state, row, view)
    style = "typing" if row.typists else "online" if "online" in about else "dim"
    line: Line = [("title", title), (style, f"  {about}" if about else "")]
    if not state.is_online:
        line.append(("warning", "  not connected, trying"))
    if row.settings.expiry_s:
        line.append(("dim", "  ⏱"))
    if state.scroll and row.unread:
        line.append(("unread", f"  ↓ {row.unread} new, Esc shows them"))
    return padded(line, columns)


def message_lines(state: State, view: View, columns: int, rows: int) -> list[Line]:
    """Returns the part of the open chat that is in view; scrolling back moves it up."""
    if state.is_helping:
        return _filled(_help_lines(columns), columns, rows)
    lines = last_lines(state, view, columns, rows + state.scroll)
    end = len(lines) - min(state.scroll, max(0, len(lines) - rows))
    seen = lines[max(0, end - rows) : end]
    return [padded([], columns)] * (rows - len(seen)) + seen


def all_lines(state: State, view: View, columns: int) -> list[Line]:
    """Returns the whole of the open chat as far as it was read."""
    return last_lines(state, view, columns, sys.maxsize)


def last_lines(state: State, view: View, columns: int, count: int) -> list[Line]:
    """Returns the end of the open chat: so many lines or a few more, or all; what is above costs nothing."""
    row = state.open_row
    if row is None:
        return []
    shown = [entry for entry in row.entries if not state.scroll or entry.sent_ms <= state.scroll_ms]
    parts: list[list[Line]] = []
    left = count
    for at in reversed(range(len(shown))):
        if left <= 0:
            break
        parts.append(_dated_lines(state, row, shown[at], shown[at - 1] if at else None, _Page(view, columns)))
        left -= len(parts[-1])
    if row.older is None and len(parts) == len(shown):
        parts.append([padded([("dim", _centred("the beginning of this chat", columns))], columns)])
    return [line for part in reversed(parts) for line in part]


def _dated_lines(state: State, row: Row, entry: Entry, before: Entry | None, page: "_Page") -> list[Line]:
    """Returns what is shown of an entry, below its day if it is the first of it."""
    view, columns = page
    if before is not None and view.at(before.sent_ms).date() == view.at(entry.sent_ms).date():
        return _entry_lines(state, row, entry, before, page)
    day = padded([("dim", _centred(f"── {view.day(entry.sent_ms)} ──", columns))], columns)
    return [day, *_entry_lines(state, row, entry, None, page)]


def compose(state: State, view: View, columns: int, rows: int, typed: str = "") -> list[str]:
    """Returns the whole screen as text: what `screen` draws, for those who only want to read it."""
    body = rows - 1
    if columns < NARROW:
        left, right = [], columns
    else:
        left, right = list_lines(state, view, list_width(columns), body), columns - list_width(columns) - 1
    chat = [
        header_line(state, view, right),
        padded([("dim", "─" * right)], right),
        *message_lines(state, view, right, body - 4),
        padded([("dim", "─" * right)], right),
        padded([("", f" > {typed}")], right),
    ]
    joined = [[*a, ("dim", "│"), *b] for a, b in zip(left, chat, strict=True)] if left else chat
    return [flat(line).rstrip() for line in (*joined, help_line(state, columns))]


def help_line(state: State, columns: int) -> Line:
    """Returns what the user is told at the bottom: a message, or the keys."""
    if state.message:
        return padded([("warning", f" {plain(state.message)}")], columns)
    return padded([("help", f" {KEYS}")], columns)


def _help_lines(columns: int) -> list[Line]:
    lines = [padded([], columns)]
    for key, text in HELP:
        for number, part in enumerate(wrap(text, columns - _HELP_KEY - 3)):
            lines.append(padded([("name", _left(f"  {'' if number else key}", _HELP_KEY + 2)), ("", part)], columns))
    return lines


class _Page(NamedTuple):
    view: View
    columns: int


def _row_lines(state: State, row: Row, view: View, columns: int) -> list[Line]:
    is_open = row.conversation_id == state.open_id
    mark = "▌" if is_open else " "
    told = state.presences.get(row.peer_id)
    dot = " ●" if told is not None and told.presence is Presence.ONLINE else ""
    flags = "".join(
        sign
        for sign, is_so in (
            ("*", row.settings.pinned_ms),
            ("~", row.settings.muted_until_ms),
            ("#", row.settings.is_archived),
        )
        if is_so
    )
    when = view.short(row.last.sent_ms) if row.last is not None else ""
    unread = "" if not row.unread else f" {row.unread}{'+' if row.unread >= 100 else ''} "  # noqa: PLR2004 - as the server counts
    style = "open" if is_open else "unread" if row.unread else "name"
    first = _between(
        [("mark", mark), (style, plain(row.title)), ("online", dot), ("dim", f" {flags}" if flags else "")],
        [("dim", when)],
        columns,
    )
    last = _between([("mark", mark), *_preview(state, row, view)], [("badge", unread)] if unread else [], columns)
    return [first, last]


def _preview(state: State, row: Row, view: View) -> Line:
    if row.typists:
        return [("typing", " typing…")]
    last = row.last
    if last is None:
        return [("dim", " ")]
    who = "you: " if last.is_mine else f"{_first(state.name(last.sender_id))}: " if row.is_group else ""
    text = "taken back" if last.revoked_ms else plain(last.text[:_LINE])
    signs: Line = []
    if last.is_mine and last.tick and not last.revoked_ms:
        is_read = last.tick is Tick.READ
        sign = "✓" if last.tick is Tick.SENT else "✓✓ read" if is_read and view.is_plain else "✓✓"
        signs = [("read" if is_read else "dim", f" {sign}")]
    return [*signs, ("dim", f" {who}{text}")]


def _about(state: State, row: Row, view: View) -> str:
    if row.typists:
        names = [_first(state.name(typist.user_id)) for typist in row.typists]
        doing = "recording" if all(typist.is_recording for typist in row.typists) else "typing"
        return f"{doing}…" if not row.is_group else f"{' and '.join(names)} {doing}…"
    if row.is_group:
        others = [_first(state.name(user_id)) for user_id in row.members if user_id != state.me]
        return ", ".join([*others, "you"]) if row.members else ""
    told = state.presences.get(row.peer_id)
    if told is None:
        return ""
    if told.presence is Presence.ONLINE:
        return "online"
    return last_seen(told.last_seen_ms, view.now) if told.last_seen_ms else ""


def _entry_lines(state: State, row: Row, entry: Entry, before: Entry | None, page: _Page) -> list[Line]:
    if isinstance(entry, Notice):
        return [
            padded([("dim", _centred(line, page.columns))], page.columns) for line in wrap(entry.text, page.columns - 4)
        ]
    name_cells = min(14, max(6, page.columns // 6))
    is_same = (
        isinstance(before, Message)
        and before.sender_id == entry.sender_id
        and entry.sent_ms - before.sent_ms < _SAME_S * 1000
    )
    name = "" if is_same else "you" if entry.is_mine else plain(state.name(entry.sender_id))
    head: Line = [
        ("dim", f" {page.view.at(entry.sent_ms):%H:%M} "),
        ("mine" if entry.is_mine else "name", _left(cut(name, name_cells), name_cells + 1)),
    ]
    indent = 7 + name_cells + 1
    body = _body(state, row, entry, page.columns - indent - 1)
    room = page.columns - indent - 1
    body = _with_tail(body, entry, page.view, room)
    margins: list[Line] = [head, *[[("", " " * indent)]] * (len(body) - 1)]
    return [padded([*margin, *line], page.columns) for margin, line in zip(margins, body, strict=True)]


def _with_tail(body: list[Line], message: Message, view: View, room: int) -> list[Line]:
    """Returns the rows of a message with what stands behind it; a tick gets a row of its own rather than being cut."""
    notes, signs = _notes(message), _tick(message, view)
    tail = [*notes, *signs]
    rows = [*body]
    if _cells(rows[-1]) + _cells(tail) > room:
        rows[-1:] = _broken(rows[-1])
    if _cells(rows[-1]) + _cells(tail) > room:
        rows.append([])
    if _cells(tail) > room:
        return [*rows[:-1], [*rows[-1], *notes], signs]
    return [*rows[:-1], [*rows[-1], *tail]]


def _cells(line: Line) -> int:
    return sum(width(text) for _, text in line)


def _broken(line: Line) -> list[Line]:
    """Returns a row as two, the last word on the second, to make room behind it."""
    style, text = line[-1]
    first, _, last = text.rpartition(" ")
    return [[*line[:-1], (style, first)], [(style, last)]] if first else [line, [(style, "")]]


def _body(state: State, row: Row, message: Message, cells: int) -> list[Line]:
    if message.revoked_ms:
        return [[("dim", "this message was taken back")]]
    quoted: list[Line] = []
    if message.reply_to:
        answered = next((e for e in row.entries if isinstance(e, Message) and e.message_id == message.reply_to), None)
        said = "a message"
        if answered is not None:
            said = f"{state.name(answered.sender_id)}: {plain(answered.text[:_LINE])}"
        quoted = [[("dim", cut(f"┃ {said}", cells))]]
    return [*quoted, *_text_rows(message.text, cells)]


def _text_rows(text: str, cells: int) -> list[Line]:
    """Returns what a message says; of a huge one the beginning."""
    shown = text[: _MOST_ROWS * max(1, cells)]
    lines = wrap(shown, cells)
    rows: list[Line] = [[("", line)] for line in lines[:_MOST_ROWS]]
    is_whole = len(lines) <= _MOST_ROWS and len(shown) == len(text)
    return rows if is_whole else [*rows, [("dim", cut(_GOES_ON, cells))]]


def _notes(message: Message) -> Line:
    """Returns what stands behind a message before its tick: that it was edited or disappears, and reactions."""
    notes: Line = []
    if message.edited_ms and not message.revoked_ms:
        notes.append(("dim", " (edited)"))
    if message.expires_ms:
        notes.append(("dim", " ⏱"))
    if message.reactions:
        notes.append(("reaction", f"  {_reactions(message)}"))
    return notes


def _tick(message: Message, view: View) -> Line:
    """Returns how far an own message has come."""
    return _signs(message, view) if message.is_mine and message.tick and not message.revoked_ms else []


def _signs(message: Message, view: View) -> Line:
    counts = message.counts
    if message.tick is Tick.READ:
        return [("read", "  ✓✓ read" if view.is_plain else "  ✓✓")]
    if counts is None:
        return [("dim", f"  {message.tick.sign}")]
    if message.tick is Tick.DELIVERED:
        return [("dim", "  ✓✓"), ("read", f" read {counts.read}/{counts.recipients}" if counts.read else "")]
    how = f" {counts.delivered}/{counts.recipients}" if counts.delivered else ""
    return [("dim", f"  ✓{how}")]


def _reactions(message: Message) -> str:
    many: dict[str, int] = {}
    for reaction in message.reactions:
        many[reaction.emoji] = many.get(reaction.emoji, 0) + 1
    return " ".join(f"{plain(emoji)}{count if count > 1 else ''}" for emoji, count in many.items())


def _between(left: Line, right: Line, columns: int) -> Line:
    """Returns a row with something at either end; the left is cut where both do not fit."""
    taken = sum(width(text) for _, text in right) + (1 if right else 0)
    room = max(0, columns - taken - (1 if right else 0))
    return padded([*padded(left, room), ("", " " if right else ""), *right], columns)


def _filled(lines: list[Line], columns: int, rows: int) -> list[Line]:
    return [*lines[:rows], *([padded([], columns)] * (rows - len(lines)))]


def _centred(text: str, columns: int) -> str:
    short = cut(plain(text), columns - 2)
    return " " * max(0, (columns - width(short)) // 2) + short


def _left(text: str, cells: int) -> str:
    return text + " " * max(0, cells - width(text))


def _first(name: str) -> str:
    """Returns the first word of a name: enough to tell people apart on a narrow line."""
    return cut(plain(name).split(" ")[0], _FEW)
