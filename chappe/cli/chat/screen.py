"""Draws the chat with prompt_toolkit, which repaints only what has changed."""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    HSplit,
    Layout,
    UIContent,
    UIControl,
    VSplit,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from chappe.cli.chat import layout
from chappe.cli.chat.layout import NARROW, View
from chappe.cli.chat.state import State
from chappe.cli.chat.text import Line

_STYLE: Final = Style.from_dict(
    {
        "title": "bold",
        "name": "ansicyan",
        "mine": "ansigreen",
        "dim": "ansibrightblack",
        "read": "ansibrightblue bold",
        "open": "bold",
        "unread": "bold",
        "badge": "ansiblack bg:ansigreen bold",
        "mark": "ansigreen",
        "online": "ansigreen",
        "typing": "ansigreen",
        "warning": "ansiyellow",
        "help": "ansibrightblack",
    }
)
_MOST_INPUT: Final = 5
"""So many lines of what is typed are shown."""
_REDRAW_S: Final = 0.02
_ESCAPE_S: Final = 0.05


class Pane(UIControl):
    """A part of the screen whose rows are made when its size is known."""

    def __init__(self, rows: Callable[[int, int], list[Line]]) -> None:
        self._rows = rows

    def create_content(self, width: int, height: int) -> UIContent:
        """Makes the rows."""
        rows = self._rows(width, height)

        def row(at: int) -> Any:
            return [(f"class:{style}" if style else "", text) for style, text in rows[at]]

        return UIContent(get_line=row, line_count=len(rows), show_cursor=False)


class Terminals:
    """Where keys come from and where is drawn; the terminal itself by default."""

    def __init__(self, source: Input | None = None, sink: Output | None = None, *, is_plain: bool = False) -> None:
        """Prepares.

        Args:
            source: Where keys come from.
            sink: Where is drawn.
            is_plain: There are to be no colours.
        """
        self.source = source
        self.sink = sink
        self.is_plain = is_plain


class Screen:
    """The picture of a chat, and the line in which is typed."""

    def __init__(self, state: State, keys: KeyBindings, typed: Callable[[], None], terminals: Terminals) -> None:
        """Prepares.

        Args:
            state: What is shown.
            keys: What the keys do.
            typed: Called when what is typed has changed.
            terminals: Where.
        """
        self.rows = 0
        """How many rows of messages are in view."""
        self._columns_of_messages = 0
        self.input = Buffer(multiline=True, on_text_changed=lambda _: typed())
        """What is typed."""
        self._state = state
        self._is_plain = terminals.is_plain
        self.app: Application[None] = Application(
            layout=self._layout(),
            key_bindings=keys,
            style=_STYLE,
            full_screen=True,
            color_depth=ColorDepth.MONOCHROME if terminals.is_plain else None,
            input=terminals.source,
            output=terminals.sink,
            min_redraw_interval=_REDRAW_S,
        )

        # A key with Alt comes as Escape and the key at once; whoever types Escape and then a letter means both.
        self.app.ttimeoutlen = self.app.timeoutlen = _ESCAPE_S

    @property
    def line_count(self) -> int:
        """How many rows of messages there are, in view or not; counted only when somebody scrolls."""
        return len(layout.all_lines(self._state, self._view, self._columns_of_messages))

    def clear(self) -> None:
        """Draws everything again."""
        self.app.renderer.clear()
        self.app.invalidate()

    def _layout(self) -> Layout:
        state = self._state
        is_wide = Condition(lambda: self._columns >= NARROW)
        chats = Window(
            Pane(lambda columns, rows: layout.list_lines(state, self._view, columns, rows)),
            width=lambda: Dimension.exact(layout.list_width(self._columns)),
        )
        field = Window(
            BufferControl(self.input, input_processors=[BeforeInput(" > ", "class:mark")]),
            height=Dimension(min=1, max=_MOST_INPUT),
            dont_extend_height=True,
            wrap_lines=True,
        )
        chat = HSplit(
            [
                Window(Pane(lambda columns, _: [layout.header_line(state, self._view, columns)]), height=1),
                Window(char="─", height=1, style="class:dim"),
                Window(Pane(self._messages)),
                Window(char="─", height=1, style="class:dim"),
                field,
            ]
        )
        rule = Window(char="│", width=1, style="class:dim")
        body = VSplit([ConditionalContainer(chats, is_wide), ConditionalContainer(rule, is_wide), chat])
        foot = Window(Pane(lambda columns, _: [layout.help_line(state, columns)]), height=1)
        return Layout(HSplit([body, foot]), focused_element=field)

    @property
    def _columns(self) -> int:
        return self.app.output.get_size().columns

    @property
    def _view(self) -> View:
        return View(dt.datetime.now().astimezone(), self._is_plain)

    def _messages(self, columns: int, rows: int) -> list[Line]:
        self.rows, self._columns_of_messages = rows, columns
        return layout.message_lines(self._state, self._view, columns, rows)
