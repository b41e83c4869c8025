"""What is done to messages and how chats are kept, as typed, against the real system."""

import time
from typing import Any

import pytest

from tests.cli.conftest import Person, ended, until

pytestmark = pytest.mark.system

Two = tuple[Person, Person]


def heard(person: Person, timeout_s: str = "2") -> list[dict[str, Any]]:
    """Returns what a person is told that has not been told yet."""
    return person.type("listen", "--timeout", timeout_s).objects


def of(shown: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [one for one in shown if one["event"] == event]


def history(person: Person, chat: str) -> list[dict[str, Any]]:
    return person.type("history", chat).objects


def test_a_message_is_edited_while_the_other_listens(people: Two) -> None:
    alice, bob = people
    listening = bob.begin("listen", "--count", "2", "--timeout", "90")
    sent = alice.type("send", bob.phone, "helo", "--wait").objects[0]

    edited = alice.type("edit", bob.phone, "hello").objects
    alice.type("send", bob.phone, "that is all")
    shown = ended(listening).objects

    assert [(one["event"], one["id"], one["text"]) for one in edited] == [("edited", sent["id"], "hello")]
    assert [(one["id"], one["by_name"], one["text"]) for one in of(shown, "edited")] == [(sent["id"], "Alice", "hello")]
    first = history(bob, alice.phone)[0]
    assert (first["text"], first["edited_ms"] > 0) == ("hello", True)
    assert "hello  (edited)" in bob.type("history", alice.phone, is_json=False).output


def test_a_message_is_taken_back_from_everybody_and_another_hidden_from_oneself(people: Two) -> None:
    alice, bob = people
    for text in ("one", "two", "three"):
        alice.type("send", bob.phone, text)
    named = history(alice, bob.phone)[0]["id"]

    assert alice.type("delete", bob.phone, "--message", named[:20]).code == 0
    assert alice.type("delete", bob.phone, "--for-me").code == 0
    shown = heard(bob)

    assert [(one["text"], one["deleted_ms"] is None) for one in history(bob, alice.phone)] == [
        ("", False),
        ("two", True),
        ("three", True),
    ]
    assert [one["text"] for one in history(alice, bob.phone)] == ["", "two"]
    assert [one["text"] for one in of(shown, "message") if not one["deleted_ms"]] == ["two", "three"]
    assert "(deleted)" in alice.type("history", bob.phone, is_json=False).output


def test_what_was_taken_back_is_shown_to_who_had_it(people: Two) -> None:
    alice, bob = people
    alice.type("send", bob.phone, "never said")
    heard(bob)

    alice.type("delete", bob.phone)

    [deleted] = of(heard(bob), "deleted")
    assert (deleted["by_name"], deleted["is_for_me"]) == ("Alice", False)


def test_a_message_is_reacted_to_and_answered(people: Two) -> None:
    alice, bob = people
    sent = alice.type("send", bob.phone, "lunch?").objects[0]

    reacted = bob.type("react", alice.phone, "👍").objects
    answer = bob.type("reply", alice.phone, "at noon").objects[0]
    shown = heard(alice)

    assert [(one["id"], one["emoji"]) for one in reacted] == [(sent["id"], "👍")]
    assert [(one["by_name"], one["emoji"]) for one in of(shown, "reacted")] == [("Bob", "👍")]
    assert [(one["text"], one["reply_to"]) for one in of(shown, "message")] == [("at noon", sent["id"])]
    assert answer["reply_to"] == sent["id"]
    assert "Bob: [to: lunch?] at noon" in alice.type("history", bob.phone, is_json=False).output
    assert [one["emoji"] for one in history(alice, bob.phone)[0]["reactions"]] == ["👍"]
    bob.type("react", alice.phone, "")
    assert history(alice, bob.phone)[0]["reactions"] == []


def test_an_admin_takes_back_what_a_member_wrote_in_a_group(people: Two) -> None:
    alice, bob = people
    alice.type("contacts", "add", bob.phone, "Bobby")
    assert alice.type("group", "create", "Climbers", "Bobby").code == 0
    heard(bob)
    sent = bob.type("send", "Climbers", "spam").objects[0]

    mine = bob.type("edit", "Climbers", "more spam")
    refused = bob.type("react", "Climbers", "?")
    taken_back = alice.type("delete", "Climbers", "--message", sent["id"])
    shown = heard(bob)

    assert (mine.code, refused.code, taken_back.code) == (0, 1, 0)
    assert "there is no message" in refused.errors
    assert [(one["id"], one["by_name"]) for one in of(shown, "deleted")] == [(sent["id"], "Alice")]
    assert [one["text"] for one in of(history(bob, "Climbers"), "message")] == [""]


def test_chats_are_kept_as_somebody_wants(people: Two) -> None:
    alice, bob = people
    bob.type("send", alice.phone, "hello")

    kept = alice.type("keep", bob.phone, "--mute", "8h", "--pin").objects
    [listed] = alice.type("chats").objects
    archived = alice.type("keep", bob.phone, "--archive", "--mute", "off").objects

    assert kept[-1]["pinned_ms"] == listed["pinned_ms"] > 0
    assert listed["muted_until_ms"] > time.time() * 1000
    assert (archived[-1]["is_archived"], archived[-1]["muted_until_ms"]) == (True, None)
    assert alice.type("chats").objects == []
    assert [chat["is_archived"] for chat in alice.type("chats", "--archived").objects] == [True]
    assert "[pinned]  [archived]" in alice.type("chats", "--archived", is_json=False).output
    bob.type("send", alice.phone, "are you there?")
    assert [chat["last_text"] for chat in alice.type("chats").objects] == ["are you there?"]
    alice.type("keep", bob.phone, "--clear")
    assert history(alice, bob.phone) == []
    assert len(history(bob, alice.phone)) == 2
    assert alice.type("keep", bob.phone).code == 1


def test_messages_disappear_by_the_timer_and_by_their_own_time(people: Two) -> None:
    alice, bob = people
    [kept] = alice.type("timer", bob.phone, "2s").objects
    by_timer = alice.type("send", bob.phone, "by the timer").objects[0]
    alice.type("timer", bob.phone, "off")
    alice.type("send", bob.phone, "by itself", "--expires", "2s")
    alice.type("send", bob.phone, "stays")

    assert (kept["event"], kept["timer_s"]) == ("settings", 2)
    assert by_timer["expires_ms"] == by_timer["accepted_ms"] + 2000
    assert "by itself  (disappears " in alice.type("history", bob.phone, is_json=False).output
    until(lambda: [one["text"] for one in history(bob, alice.phone)] == ["stays"])
    assert [one["text"] for one in of(heard(bob), "message")] == ["stays"]
    assert [one["timer_s"] for one in of(heard(bob), "settings")] in ([], [2, None])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("edit", "text"), "there is no message of yours"),
        (("delete",), "there is no message of yours"),
        (("delete", "--message", "abcdef"), "no message begins with abcdef"),
        (("react", ":)"), "there is no message"),
    ],
)
def test_what_is_not_there_is_said(people: Two, command: tuple[str, ...], told: str) -> None:
    alice, bob = people
    name, *rest = command

    ran = alice.type(name, bob.phone, *rest)

    assert ran.code == 1
    assert told in ran.errors
