"""A scripted session of `chappe chat` in a pseudo-terminal, against the real system."""

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pyte
import pytest

from chappe.client import Client, connect
from tests.cli.conftest import Person, Started, ended

pytestmark = pytest.mark.system

Two = tuple[Person, Person]
WAIT_S = 40.0
QUIET_S = 0.4


class Pseudo:
    """A terminal in which a chat runs, and what stands on it."""

    def __init__(self, person: Person, *arguments: str, columns: int = 100, rows: int = 24, **settings: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._end, end = pty.openpty()
        self.written = b""
        self._size(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chappe.cli", "--profile", person.profile, "chat", *arguments],
            env=os.environ | {"CHAPPE_HOME": str(person.home), "TERM": "xterm-256color"} | settings,
            stdin=end,
            stdout=end,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(end)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys: str) -> None:
        """Types."""
        os.write(self._end, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Makes the terminal another size."""
        self._size(columns, rows)
        self.screen.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def shows(self, *texts: str) -> str:
        """Waits until all of these stand on the screen; returns what is on it."""
        deadline_s = time.monotonic() + WAIT_S
        while not all(text in self.text for text in texts):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{texts} are not all on the screen:\n{self.text}\n{self._errors()}"
            self._read(left_s)
        return self.text

    def settles(self) -> None:
        """Waits until nothing is drawn any more."""
        while select.select([self._end], [], [], QUIET_S)[0]:
            self._read(0)

    def ended(self) -> int:
        """Waits for the end; returns the exit code."""
        deadline_s = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            self._read(0.1)
        return self.process.wait(1)

    def close(self) -> None:
        """Ends whatever is left."""
        self._errors()
        os.close(self._end)

    def _errors(self) -> str:
        self.process.kill()
        self.process.wait()
        stderr = self.process.stderr
        assert stderr is not None
        errors = b"" if stderr.closed else stderr.read()
        stderr.close()
        return errors.decode()

    def _read(self, timeout_s: float) -> None:
        if select.select([self._end], [], [], timeout_s)[0]:
            try:
                data = os.read(self._end, 65536)
            except OSError:
                return
            self.written += data
            self._stream.feed(data)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.fixture
def opened() -> Iterator[Callable[..., Pseudo]]:
    terminals: list[Pseudo] = []

    def open_chat(*arguments: object, **settings: object) -> Pseudo:
        terminals.append(Pseudo(*arguments, **settings))  # type: ignore[arg-type]  # those of Pseudo
        return terminals[-1]

    yield open_chat
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def friends(people: Two) -> Two:
    """Alice and Bob have each other in their contacts, a group, and something to read."""
    alice, bob = people
    alice.type("contacts", "add", bob.phone, "Bob")
    bob.type("contacts", "add", alice.phone, "Alice")
    alice.type("group", "create", "Hikers", bob.phone)
    bob.type("send", "Hikers", "up at eight?")
    bob.type("send", "Alice", "did you see it?")
    return people


def test_two_people_chat_with_typing_presence_and_ticks(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, bob = friends
    hers = opened(alice, "Bob")
    hers.shows("▌Bob", " Bob         did you see it?", "Enter send")
    his = opened(bob, "Alice")
    his.shows("Alice", "did you see it?  ✓✓", "online")

    his.type("I am wri")
    hers.shows("Bob  typing…")
    his.type("ting\r")
    hers.shows("I am writing")
    hers.type("so you are\r")
    his.shows("so you are")

    hers.shows("so you are  ✓✓", "online")
    hers.type("\x03")
    assert hers.ended() == 0
    his.shows("Alice  last seen today")


def test_chats_are_switched_by_keys_and_drafts_stay(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, _ = friends
    terminal = opened(alice)
    terminal.shows("Chappe", "did you see it?          1", "/react EMOJI")
    terminal.type("too early\r")
    terminal.shows("no chat is open yet", "> too early")
    terminal.type("\x15\x1b[B")
    terminal.shows(" Bob         did you see it?")

    terminal.type("half a sen")
    terminal.shows("> half a sen")
    terminal.type("\t")
    terminal.shows("up at eight?", "Hikers  Bob, you")
    terminal.settles()
    assert "half a sen" not in terminal.text
    terminal.type("\x1b[A")
    terminal.shows("did you see it?", "> half a sen")
    terminal.type("tence\r")
    terminal.shows("half a sentence  ✓")


async def write_lines(person: Person, contact: str, count: int) -> None:
    writer: Client
    async with connect(profile=person.home / "profiles" / person.profile) as writer:
        for number in range(1, count + 1):
            await writer.send(contact, f"line {number}")


def test_history_is_scrolled_back_to_its_beginning_and_forward_again(
    friends: Two, opened: Callable[..., Pseudo]
) -> None:
    alice, bob = friends
    asyncio.run(write_lines(bob, "Alice", 60))
    terminal = opened(alice, "Bob", rows=20)
    terminal.shows("     line 60")

    for _ in range(8):
        terminal.type("\x1b[5~")
        terminal.settles()
    terminal.shows("the beginning of this chat", "did you see it?")
    bob.type("send", "Alice", "while you look back")
    terminal.shows("1 new, Esc shows them")
    terminal.type("\x1b")
    terminal.shows("while you look back")


def test_a_terminal_may_change_its_size_and_have_no_colours(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, bob = friends
    terminal = opened(alice, "Bob", columns=80, rows=20, NO_COLOR="1")
    terminal.shows(" Bob       did you see it?", "│")

    terminal.resize(140, 30)
    terminal.shows(" Bob            did you see it?", "│")
    terminal.type("is this read?\r")
    terminal.shows("is this read?  ✓")
    bob.type("listen", "--read", "--count", "1", "--timeout", "3")
    terminal.shows("is this read?  ✓✓ read")
    terminal.resize(50, 12)
    terminal.type("narrow\r")
    terminal.shows("narrow  ✓")
    terminal.settles()

    assert "│" not in terminal.text
    assert b"\x1b[38;5" not in terminal.written
    assert b"\x1b[32m" not in terminal.written


def test_commands_are_done_and_mistakes_explained(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, _ = friends
    terminal = opened(alice, "Bob")
    terminal.shows("▌Bob", "   did you see it?")

    terminal.type("at nin\r")
    terminal.shows("at nin  ✓")
    terminal.type("/edit at nine\r")
    terminal.shows("at nine (edited)")
    terminal.type("/react 👍\r")
    terminal.shows("👍")
    terminal.type("/info\r")
    terminal.shows("nobody has it yet")
    terminal.type("/reply I did\r")
    terminal.shows("┃ Bob: did you see it?", "I did  ✓")
    terminal.type("/sing\r")
    terminal.shows("there is no /sing; /help lists what there is", "> /sing")
    terminal.type("\x15")
    terminal.type("/to nowhere\r")
    terminal.shows("'nowhere' is neither a contact")
    terminal.type("/delete\r")
    terminal.shows("this message was taken back")
    terminal.type("/help\r")
    terminal.shows("/react EMOJI")
    terminal.type("/to hikers\r")
    terminal.shows("▌Hikers", "Hikers  Bob, you", "   up at eight?")
    terminal.type("/quit\r")

    assert terminal.ended() == 0


def test_what_comes_behind_the_help_is_read_once_the_help_is_gone(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, bob = friends
    terminal = opened(alice, "Bob")
    terminal.shows(" Bob         did you see it?")
    terminal.type("/help\r")
    terminal.shows("/react EMOJI")

    unread = bob.type("send", "Alice", "and now?", "--wait=read", "--timeout", "3")
    terminal.type("\r")
    terminal.shows("and now?")
    read = bob.type("send", "Alice", "now you do", "--wait=read", "--timeout", "30")

    assert (unread.code, read.code) == (1, 0)


def test_what_was_refused_is_there_again_to_be_mended(friends: Two, opened: Callable[..., Pseudo]) -> None:
    alice, bob = friends
    alice.type("group", "update", "Hikers", "--announcements")
    terminal = opened(bob, "Hikers")
    terminal.shows("   up at eight?")

    terminal.type("in an hour\r")

    terminal.shows("not sent: ROLE_REQUIRED", "> in an hour")


def test_without_a_terminal_it_says_what_else_there_is(people: Two, chappe: Callable[..., Started]) -> None:
    failed = ended(chappe("--profile", people[0].profile, "chat"))

    assert failed.code == 1
    assert "without one use `chappe listen` and `chappe send`" in failed.errors
