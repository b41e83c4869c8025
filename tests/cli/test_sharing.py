"""One profile in several terminals, as real processes against the real system."""

import json
import select
import signal
import stat
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Person, Started, ended, until

pytestmark = pytest.mark.system

Two = tuple[Person, Person]


class Terminal:
    """A command that goes on printing, and what it has printed."""

    def __init__(self, process: Started) -> None:
        self.process = process
        self.shown: list[dict[str, Any]] = []

    @property
    def has_shown_something(self) -> bool:
        """Whether there is something to read."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def shows(self, event: str, **fields: Any) -> dict[str, Any]:
        """Waits for a line, and returns it."""
        assert self.process.stdout is not None
        wanted = {"event": event, **fields}
        while line := self.process.stdout.readline():
            self.shown.append(json.loads(line))
            if wanted.items() <= self.shown[-1].items():
                return self.shown[-1]
        raise AssertionError(f"{wanted} was not shown, but {self.shown}")


@pytest.fixture
def listening(people: Two) -> Callable[[Person], Terminal]:
    """Starts to listen in a terminal, and waits until it leads."""

    def listen(person: Person) -> Terminal:
        terminal = Terminal(person.begin("listen", "--read", "--timeout", "90"))
        until((person.folder / "leader.sock").exists)
        return terminal

    return listen


def test_a_message_is_sent_from_another_terminal_while_this_one_listens(
    people: Two, listening: Callable[[Person], Terminal]
) -> None:
    alice, bob = people
    terminal, other = listening(alice), listening(bob)

    ticks = ended(alice.begin("send", bob.phone, "from the second terminal", "--wait=read")).objects
    here = terminal.shows("message", is_mine=True)
    there = other.shows("message", is_mine=False)

    assert here["text"] == there["text"] == "from the second terminal"
    assert here["id"] == there["id"] == ticks[0]["id"]
    assert ticks[-1]["tick"] == "read"
    assert stat.S_IMODE((alice.folder / "leader.sock").stat().st_mode) == 0o600


def test_every_command_works_while_another_listens(people: Two, listening: Callable[[Person], Terminal]) -> None:
    alice, bob = people
    listening(alice)

    assert alice.type("login").objects[0]["name"] == "Alice"
    assert alice.type("contacts", "add", bob.phone, "Bobby").code == 0
    assert alice.type("group", "create", "Hikers", "bobby").code == 0
    assert alice.type("send", "hikers", "hello").code == 0
    shown = alice.type("history", "hikers").objects
    assert [one["text"] for one in shown if one["event"] == "message"] == ["hello"]
    assert [chat["last_text"] for chat in alice.type("chats").objects] == ["hello"]
    assert alice.type("hello").objects[0].keys() == {"hello"}


def test_a_killed_leader_blocks_nobody_and_those_who_follow_go_on(
    people: Two, listening: Callable[[Person], Terminal]
) -> None:
    alice, bob = people
    first = listening(bob)
    second = Terminal(bob.begin("listen", "--timeout", "90"))
    until(lambda: alice.type("send", bob.phone, "are you there?").code == 0 and second.has_shown_something)
    alice.type("send", bob.phone, "for both")
    for terminal in (first, second):
        terminal.shows("message", text="for both")

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    alice.type("send", bob.phone, "for the one that is left")
    second.shows("message", text="for the one that is left")
    second.process.send_signal(signal.SIGKILL)
    second.process.wait()

    assert bob.type("send", alice.phone, "nobody is in the way").code == 0


def test_a_send_is_answered_once_however_often_the_leader_dies(
    people: Two, listening: Callable[[Person], Terminal]
) -> None:
    alice, bob = people
    texts = [f"message {number}" for number in range(6)]
    for text in texts:
        terminal = listening(alice)
        sending = alice.begin("send", bob.phone, text)
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
        assert ended(sending).objects[0]["tick"] == "sent"

    heard = bob.type("listen", "--count", str(len(texts)), "--timeout", "30").objects

    assert [shown["text"] for shown in heard if shown["event"] == "message"] == texts


def test_a_leader_that_stands_still_is_named_and_nothing_is_lost(
    people: Two, listening: Callable[[Person], Terminal]
) -> None:
    alice, bob = people
    terminal = listening(alice)
    terminal.process.send_signal(signal.SIGSTOP)

    refused = ended(alice.begin("send", bob.phone, "not sent"))
    terminal.process.send_signal(signal.SIGCONT)

    assert refused.code == 1
    assert f"is in use by another process ({terminal.process.pid})" in refused.errors
    assert alice.type("send", bob.phone, "sent").code == 0
