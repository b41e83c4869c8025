"""How long messages wait while one of several is down, by the histories of their senders."""

import pytest

from chappe.testing import Limits, check_lines
from tests.testing.scene import Scene

SLOW_MS = 3_000


def scene() -> Scene:
    return Scene("alice/1", "bob/1")


def waited(scene: Scene, number: int, ms: float) -> Scene:
    """Adds a message that is acknowledged after so long."""
    return scene.send("alice/1", number).later(ms).stored("alice/1", number).apply("bob/1", number).ack("bob/1", number)


def down(scene: Scene, *slow: int, count: int = 100) -> Scene:
    """Adds messages during a death, some of which wait long."""
    scene.add("alice/1", "down", whom="edge")
    for number in range(1, count + 1):
        waited(scene, number, SLOW_MS if number in slow else 10)
    return scene.add("alice/1", "up", whom="edge")


SILENT = {
    "one_in_a_hundred_may_wait_long": down(scene(), 50),
    "nobody_waits_while_all_are_there": waited(scene(), 1, SLOW_MS),
    "what_was_sent_before_the_death_may_wait": waited(
        scene().send("alice/1", 1).add("alice/1", "down", whom="edge").later(SLOW_MS).stored("alice/1", 1), 2, 10
    ).apply("bob/1", 1),
    "a_final_no_ends_the_wait": down(scene().add("alice/1", "down", whom="message"), count=5)
    .send("alice/1", 6)
    .refused("alice/1", 6),
    "others_go_on_when_both_are_back": waited(down(scene()), 101, SLOW_MS),
    "an_edit_is_no_message": down(scene())
    .add("alice/1", "down", whom="edge")
    .send("alice/1", 101, kind="read")
    .later(SLOW_MS)
    .stored("alice/1", 101),
}
BROKEN = {
    "two_in_a_hundred_wait_long": down(scene(), 50, 60),
    "one_that_is_never_answered": scene().add("alice/1", "down", whom="edge").send("alice/1", 1),
    "one_that_takes_a_new_id_and_waits_on": waited(
        scene()
        .add("alice/1", "down", whom="edge")
        .send("alice/1", 1, draft="d")
        .later(SLOW_MS)
        .refused("alice/1", 1)
        .send("alice/1", 2, draft="d")
        .stored("alice/1", 2)
        .apply("bob/1", 2),
        3,
        10,
    ),
    "while_another_one_is_still_down": waited(
        scene()
        .add("alice/1", "down", whom="edge")
        .add("alice/1", "down", whom="message")
        .add("alice/1", "up", whom="edge"),
        1,
        SLOW_MS,
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_sends_that_go_on_are_silent(name: str) -> None:
    assert SILENT[name].end(ticks=False).broken() == {}


@pytest.mark.parametrize("name", BROKEN)
def test_sends_that_stop_are_told_once(name: str) -> None:
    assert BROKEN[name].end(ticks=False).broken() == {"slow": 1}


def test_the_limit_is_the_users_and_the_wait_is_told() -> None:
    lines = down(scene(), 50, 60).end(ticks=False).lines

    report = check_lines(lines, Limits(waiting_ms=2 * SLOW_MS))

    assert report.is_silent
    assert SLOW_MS <= report.waited_p99_ms < SLOW_MS + 100
