"""What is promised of a fresh checkout: `make run`, and then people in their terminals."""

import signal
from collections.abc import Callable

import pytest

from tests.cli.conftest import Person, Running, Started, ended, server_of, until

pytestmark = pytest.mark.system

Two = tuple[Person, Person]
WAITING = 250


def test_messages_go_both_ways_with_ticks_that_turn_blue(people: Two, system: Running) -> None:
    alice, bob = people
    assert [server_of(person) for person in people] == system.ws

    for sender, reader, text in ((alice, bob, "at 3pm?"), (bob, alice, "at 3pm")):
        listener = reader.begin("listen", "--read")
        said, *ticks = sender.type("send", reader.phone, text, "--wait", "read").objects
        listener.send_signal(signal.SIGINT)
        heard = ended(listener)

        # Whoever reads at once may be so quick that both receipts are one.
        assert [said["tick"], *(tick["tick"] for tick in ticks)] in (["sent", "delivered", "read"], ["sent", "read"])
        assert f'"text": "{text}"' in heard.output


def test_250_messages_wait_for_somebody_who_is_away_and_come_in_order(people: Two) -> None:
    alice, bob = people
    texts = [f"message {number}" for number in range(WAITING)]
    for text in texts:
        alice.type("send", bob.phone, text)

    heard = bob.type("listen", "--count", str(WAITING), "--timeout", "60").objects

    assert [shown["text"] for shown in heard if shown["event"] == "message"] == texts
    until(lambda: {shown["tick"] for shown in alice.type("history", bob.phone).objects} == {"delivered"})


def test_a_second_device_shows_what_the_first_one_sent_received_and_read(
    people: Two, chappe: Callable[..., Started]
) -> None:
    alice, bob = people
    [made] = alice.type("link").objects
    second = Person(chappe, alice.home, "alice2")
    second.type("--server", server_of(alice), "link", made["code"])
    alice.type("send", bob.phone, "sent")
    bob.type("listen", "--read", "--count", "1")
    bob.type("send", alice.phone, "received")
    unread = until(lambda: second.type("chats").objects)
    alice.type("listen", "--read", "--count", "1")

    [read] = until(lambda: [chat for chat in second.type("chats").objects if not chat["unread"]])
    shown = second.type("history", bob.phone).objects

    assert [chat["unread"] for chat in unread] == [1]
    assert read["chat"] == unread[0]["chat"]
    assert [(message["text"], message["is_mine"], message["tick"]) for message in shown] == [
        ("sent", True, "read"),
        ("received", False, "read"),
    ]


def test_whoever_is_blocked_sees_one_tick_for_ever(people: Two) -> None:
    alice, bob = people
    bob.type("block", alice.phone)
    alice.type("send", bob.phone, "while it is blocked")
    bob.type("unblock", alice.phone)
    alice.type("send", bob.phone, "afterwards")

    heard = bob.type("listen", "--read", "--count", "1").objects

    assert [shown["text"] for shown in heard if shown["event"] == "message"] == ["afterwards"]
    until(lambda: [shown["tick"] for shown in alice.type("history", bob.phone).objects] == ["sent", "read"])
