"""The people of `chappe up --demo`: made once, found again, and nobody else's profile touched."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chappe.cli.demo import GROUP, PEOPLE, lay_out, next_steps
from tests.cli.conftest import Person, Running, Started

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
