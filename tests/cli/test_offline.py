"""What the commands do while no server answers: what is sent waits, what was heard is shown."""

import pytest

from tests.cli.conftest import Person, Ran, until

pytestmark = pytest.mark.system

Two = tuple[Person, Person]
NOWHERE = ("--server", "ws://127.0.0.1:1")


def offline(person: Person, *arguments: str, is_json: bool = True) -> Ran:
    return person.type(*NOWHERE, *arguments, is_json=is_json)


def test_what_is_sent_without_a_server_waits_and_leaves_with_the_next_command(people: Two) -> None:
    alice, bob = people
    alice.type("contacts", "add", bob.phone, "Bobby")

    waiting = offline(alice, "send", "Bobby", "good night", "--timeout", "0.5")
    told = offline(alice, "send", bob.phone, "and again", "--timeout", "0.5", is_json=False)
    alice.type("chats")

    assert (waiting.code, told.code) == (5, 5)
    assert '"event": "waiting"' in waiting.output
    assert "waits in the outbox" in told.output
    until(lambda: [one["text"] for one in bob.type("history", alice.phone).objects] == ["good night", "and again"])


def test_a_message_to_a_group_waits_too(people: Two) -> None:
    alice, bob = people
    alice.type("group", "create", "Hikers", bob.phone)
    alice.type("group", "info", "Hikers")

    waiting = offline(alice, "send", "hikers", "who is up?", "--timeout", "3")
    alice.type("chats")

    assert waiting.code == 5
    said = until(lambda: [one for one in bob.type("history", "Hikers").objects if one["event"] == "message"])
    assert [one["text"] for one in said] == ["who is up?"]


def test_who_is_not_known_cannot_be_written_to_without_a_server(people: Two) -> None:
    alice, bob = people

    failed = offline(alice, "send", bob.phone, "hello", "--timeout", "0.5")
    alice.type("send", bob.phone, "hello")

    assert failed.code == 4
    assert [one["text"] for one in bob.type("history", alice.phone).objects] == ["hello"]


def test_what_the_profile_holds_is_shown_without_a_server_which_is_said(people: Two) -> None:
    alice, bob = people
    alice.type("contacts", "add", bob.phone, "Bobby")
    bob.type("send", alice.phone, "one")
    alice.type("send", "Bobby", "two")
    alice.type("history", "Bobby")

    before, *shown = offline(alice, "history", "Bobby").objects
    listed = offline(alice, "chats", is_json=False)

    assert before == {"event": "offline"}
    assert [one["text"] for one in shown] == ["one", "two"]
    assert (listed.code, "Bobby" in listed.output, "two" in listed.output) == (0, True, True)
    assert "offline: no edge has answered" in listed.errors
