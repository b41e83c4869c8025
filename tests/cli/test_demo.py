"""The people of `chappe up --demo`: made once, found again, and nobody else's profile touched."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chappe.cli.demo import GROUP, PEOPLE, lay_out, next_steps
from tests.cli.conftest import Person, Running, Started
from tests.cli.test_up import ready

pytestmark = pytest.mark.system


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder in which the demo takes note of itself; the system's own is shared by all tests."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def typed(chappe: Callable[..., Started], home: Path, profile: str, *arguments: str) -> list[dict[str, Any]]:
    return Person(chappe, home, profile).type(*arguments).objects


def test_three_people_have_something_to_read_and_are_found_again(
    chappe: Callable[..., Started], system: Running, home: Path, data: Path
) -> None:
    demo = asyncio.run(lay_out(home, data, system.ws))
    again = asyncio.run(lay_out(home, data, system.ws))

    chats = {chat.get("peer_name") or chat["group_name"]: chat for chat in typed(chappe, home, "alice", "chats")}
    told = typed(chappe, home, "alice", "history", GROUP)
    group = [one for one in told if one["event"] == "message"]
    members = typed(chappe, home, "bob", "group", "info", GROUP)[1:]
    assert (demo.is_new, again.is_new, demo.profiles) == (True, False, again.profiles)
    assert list(demo.profiles.values()) == list(PEOPLE)
    assert "--profile alice chat" in next_steps("chappe", demo)
    assert {name: chat["unread"] for name, chat in chats.items()} == {"Carol": 2, GROUP: 0, "Bob": 0}
    assert [shown["tick"] for shown in group if shown["is_mine"]] == ["read", "delivered"]
    assert {member["name"] for member in members} == {"Alice", "Bob (you)", "Carol"}


async def test_the_profile_of_a_person_is_left_alone(
    chappe: Callable[..., Started], system: Running, home: Path, data: Path
) -> None:
    own = home / "profiles" / "alice"
    own.mkdir(parents=True)
    (own / "profile.json").write_text("mine")

    demo = await lay_out(home, data, system.ws)

    assert demo.profiles["alice"] == "alice-demo"
    assert (own / "profile.json").read_text() == "mine"


async def test_profiles_of_a_system_that_is_gone_are_made_anew(system: Running, home: Path, data: Path) -> None:
    await lay_out(home, data, system.ws)
    (data / "demo.json").unlink()
    before = (home / "profiles" / "bob" / "key.pem").read_bytes()

    again = await lay_out(home, data, system.ws)

    assert again.is_new
    assert (home / "profiles" / "bob" / "key.pem").read_bytes() != before


def test_a_system_that_is_started_with_the_demo_has_chats_to_look_at(
    chappe: Callable[..., Started], tmp_path: Path
) -> None:
    started = chappe("up", "--demo", "--port", "0", "--json", "--data", str(tmp_path / "of-its-own"))
    state = ready(started)

    carol = Person(chappe, tmp_path / "home", state["demo"]["carol"])
    chats = {chat.get("peer_name") or chat["group_name"]: chat for chat in carol.type("chats").objects}
    told = [one["text"] for one in carol.type("history", GROUP).objects if one["event"] == "message"]
    carol.type("send", GROUP, "on my way")
    bob = Person(chappe, tmp_path / "home", state["demo"]["bob"])
    heard = bob.type("listen", "--count", "1", "--timeout", "30").objects

    assert list(state["demo"]) == list(PEOPLE)
    assert {name: (chat["unread"], chat["last_text"]) for name, chat in chats.items()} == {
        "Alice": (0, "the red ones"),
        GROUP: (2, "wonderful"),
    }
    assert told == [
        "Saturday, eight o'clock, at the station. Who is in?",
        "I am, and I bring the map",
        "me too!",
        "wonderful",
    ]
    assert [one["text"] for one in heard if one["event"] == "message"] == ["on my way"]
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=30)
    assert (started.returncode, "the demo is laid out" in errors) == (0, True)
