"""The command that asks how people are, its words, and typing in `listen`."""

import asyncio
import datetime as dt
import json
import signal
import time

import pytest

from chappe.cli.presence_words import in_words
from chappe.client import Client, PersonPresence, Presence, connect
from tests.cli.conftest import Person, until

ZONE = dt.timezone(dt.timedelta(hours=2))
NOW = dt.datetime(2026, 11, 28, 0, 30, tzinfo=ZONE)
Two = tuple[Person, Person]


def ms(*moment: int) -> int:
    return int(dt.datetime(*moment, tzinfo=ZONE).timestamp() * 1000)  # type: ignore[arg-type,misc]  # year to minute


@pytest.mark.parametrize(
    ("presence", "last_seen_ms", "words"),
    [
        (Presence.ONLINE, 0, "online"),
        (Presence.HIDDEN, 0, "hidden (it is not for you to see)"),
        (Presence.UNKNOWN, 0, "unknown (nobody can say at the moment)"),
        (Presence.OFFLINE, 0, "offline"),
        (Presence.OFFLINE, ms(2026, 11, 28, 0, 5), "last seen today at 00:05"),
        (Presence.OFFLINE, ms(2026, 11, 27, 23, 59), "last seen yesterday at 23:59"),
        (Presence.OFFLINE, ms(2026, 11, 26, 10, 0), "last seen on 2026-11-26 at 10:00"),
    ],
)
def test_presence_is_said_in_words(presence: Presence, last_seen_ms: int, words: str) -> None:
    one = PersonPresence(user_id=b"", presence=presence, last_seen_ms=last_seen_ms)

    assert in_words(one, NOW) == words


@pytest.mark.system
def test_whoever_is_a_contact_sees_who_is_online_and_when_it_was(people: Two) -> None:
    alice, bob = people
    hidden = alice.type("presence", bob.phone).objects
    bob.type("contacts", "add", alice.phone, "Alice")
    listening = bob.begin("listen", "--timeout", "90")

    online = until(lambda: [one for one in alice.type("presence", bob.phone).objects if one["presence"] == "online"])
    listening.send_signal(signal.SIGINT)
    listening.communicate()
    gone = until(lambda: [one for one in alice.type("presence", bob.phone).objects if one["presence"] == "offline"])

    assert [(one["event"], one["presence"]) for one in hidden] == [("presence", "hidden")]
    assert online[0]["last_seen_ms"] is None
    assert abs(gone[0]["last_seen_ms"] - time.time() * 1000) < 60_000


@pytest.mark.system
def test_listen_shows_who_is_typing(people: Two) -> None:
    alice, bob = people
    alice.type("send", bob.phone, "hello")
    listening = bob.begin("listen", "--timeout", "90")

    async def type_until(seen: asyncio.Task[str]) -> str:
        me: Client
        async with connect(profile=alice.home / "profiles" / "alice") as me, me.presence.typing(bob.phone):
            return await seen

    async def work() -> str:
        def read() -> str:
            assert listening.stdout is not None
            return next(line for line in listening.stdout if '"typing"' in line)

        return await type_until(asyncio.create_task(asyncio.to_thread(read)))

    typing = json.loads(asyncio.run(work()))
    assert (typing["event"], typing["names"]) == ("typing", ["Alice"])
