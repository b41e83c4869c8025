"""One run of the chat: the keys, the screen and what moves them."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from chappe.cli.chat.commands import Commands
from chappe.cli.chat.conductor import NO_CHAT, Conductor
from chappe.cli.chat.screen import Screen, Terminals
from chappe.cli.chat.state import Row, State
from chappe.client import ChappeClientError, Client
from chappe.client.tasks import Tasks

_CLOCK_S: Final = 20.0
"""How often the screen is drawn again for the time alone."""


class ChatSession:
    """Chats until the user leaves."""

    def __init__(self, me: Client, terminals: Terminals, first: str = "") -> None:
        """Prepares.

        Args:
            me: Whose chats they are.
            terminals: Where.
            first: The chat that is opened first; empty for the first of the list.
        """
        self._first = first
        # No chat is opened unasked: what is shown counts as read.
        self._state = State(me=me.user_id, names={me.user_id: "you"}, is_helping=True)
        self._tasks = Tasks()
        self._is_switching = False
        keys = KeyBindings()
        self._screen = Screen(self._state, keys, self._typed, terminals)
        self._bind(keys)
        self._conductor = Conductor(me, self._state, self._screen.app.invalidate, self._tasks)
        self._conductor.opened = self._opened
        self._commands = Commands(me, self._conductor, self._leave)

    async def run(self) -> None:
        """Returns when the user leaves.

        Raises:
            SessionEndedError: An edge does not want this device any more.
            StoreError: The local store failed.
        """
        follower = self._tasks.spawn(self._conductor.follow(), name="events of the chat")
        follower.add_done_callback(lambda _: self._leave())
        self._go(self._start())
        self._tasks.spawn(_draw_time(self._screen), name="time of the chat")
        await self._screen.app.run_async()
        has_failed = follower.done() and not follower.cancelled()
        await self._tasks.aclose()
        if has_failed:
            follower.result()

    async def _start(self) -> None:
        await self._conductor.start()
        if self._first:
            await self._commands.run(f"/to {self._first}")

    def _bind(self, keys: KeyBindings) -> None:
        actions: dict[tuple[str, ...], Callable[[], None]] = {
            ("enter",): self._enter,
            ("escape", "enter"): lambda: self._screen.input.insert_text("\n"),
            ("tab",): lambda: self._step(1),
            ("s-tab",): lambda: self._step(-1),
            ("up",): lambda: self._step(-1),
            ("down",): lambda: self._step(1),
            ("pageup",): lambda: self._scroll(max(1, self._screen.rows - 1)),
            ("pagedown",): lambda: self._scroll(-max(1, self._screen.rows - 1)),
            ("escape",): lambda: self._scroll(-self._state.scroll),
            ("c-l",): self._screen.clear,
            ("c-c",): self._leave,
            ("c-q",): self._leave,
        }
        for number in range(1, 10):
            actions["escape", str(number)] = partial(self._jump, number)
        for names, action in actions.items():
            keys.add(*names)(_handler(action))

    def _enter(self) -> None:
        text = self._screen.input.text.strip("\n")
        self._state.message, self._state.is_helping = "", False
        # What came behind the help is on the screen from now on.
        self._conductor.seen()
        row, is_command = self._state.open_row, text.startswith("/")
        self._state.message = self._commands.why_not(text) if is_command else "" if row else NO_CHAT
        if self._state.message:
            # What was typed stays, to be mended.
            return
        self._screen.input.reset()
        if is_command:
            self._go(self._commands.run(text))
        elif row is not None and text.strip():
            self._go(self._say(row, text))

    async def _say(self, row: Row, text: str) -> None:
        """Sends; what was refused is there again, where it was typed."""
        if await self._conductor.say(row, text):
            return
        if row is self._state.open_row and not self._screen.input.text:
            self._show(text)
        else:
            row.draft = row.draft or text

    def _jump(self, number: int) -> None:
        self._go(self._conductor.jump(number))

    def _step(self, by: int) -> None:
        """Goes to another line of what is typed, if there is one, else to another chat."""
        document = self._screen.input.document
        if by < 0 and document.cursor_position_row > 0:
            self._screen.input.cursor_up()
        elif by > 0 and document.cursor_position_row < document.line_count - 1:
            self._screen.input.cursor_down()
        else:
            self._go(self._conductor.step(by))

    def _scroll(self, by: int) -> None:
        self._state.message, self._state.is_helping = "", False
        top = max(0, self._screen.line_count - self._screen.rows)
        wanted = self._state.scroll + by
        self._state.scroll_to(min(top, wanted))
        if wanted >= top and by > 0:
            self._go(self._conductor.older())
        elif self._state.scroll == 0:
            self._conductor.seen()
        self._screen.app.invalidate()

    def _opened(self, before: Row | None, row: Row) -> None:
        """Lets what is typed stay with its chat; at once, so that nothing goes to another."""
        if before is not None:
            before.draft = self._screen.input.text
        elif not row.draft:
            row.draft = self._screen.input.text
        self._show(row.draft)

    def _show(self, draft: str) -> None:
        """Shows what was typed before; nobody is told of typing for that."""
        message = self._state.message
        self._is_switching = True
        self._screen.input.text = draft
        self._screen.input.cursor_position = len(draft)
        self._is_switching = False
        self._state.message = message

    def _typed(self) -> None:
        text = self._screen.input.text
        if text and not text.startswith("/") and not self._is_switching:
            self._conductor.typed()
        if text:
            self._state.message = ""

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(self._readable(work), name="key of the chat")

    async def _readable(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ChappeClientError as error:
            self._state.message = str(error)
        self._screen.app.invalidate()

    def _leave(self) -> None:
        if self._screen.app.is_running and not self._screen.app.is_done:
            self._screen.app.exit()


async def _draw_time(screen: Screen) -> None:
    while True:
        await asyncio.sleep(_CLOCK_S)
        screen.app.invalidate()


def _handler(action: Callable[[], None]) -> Callable[[KeyPressEvent], None]:
    return lambda _: action()
