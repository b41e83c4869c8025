"""What may be shown of who is there, and what the checker calls a lie about it."""

import pytest

from chappe.testing import Limits, check_lines
from tests.testing.scene import NAMES, Scene, device

MINUTE_MS = 60_000


def scene() -> Scene:
    """Alice and bob are connected."""
    return connected(connected(Scene(), "alice/1"), "bob/1")


def connected(scene: Scene, who: str) -> Scene:
    return scene.add(who, "connect", session="1", edge="edge-1")


def gone(scene: Scene, who: str) -> Scene:
    return scene.add(who, "disconnect", session="1", edge="edge-1")


def shows(scene: Scene, who: str, whom: str, state: str = "online") -> Scene:
    return scene.add(who, "presence", whom=NAMES[whom], state=state)


def hears(scene: Scene, who: str, number: int = 1) -> Scene:
    """Something comes to Bob from Alice."""
    return scene.send("alice/1", number).stored("alice/1", number).apply(who, number).ack(who, number)


BOB_WENT = gone(shows(scene(), "alice/1", "bob"), "bob/1").t

SILENT = {
    "who_is_there_is_online": shows(scene(), "alice/1", "bob").end(),
    "who_has_just_gone_may_be_shown_still": gone(shows(scene(), "alice/1", "bob"), "bob/1").later(50_000).end(),
    "who_is_gone_is_shown_as_offline_in_time": (
        shows(gone(shows(scene(), "alice/1", "bob"), "bob/1").later(50_000), "alice/1", "bob", "offline")
        .later(MINUTE_MS)
        .end()
    ),
    "who_has_just_come_may_be_shown_as_gone_still": (
        connected(shows(connected(Scene(), "alice/1"), "alice/1", "bob", "offline"), "bob/1").later(50_000).end()
    ),
    "who_came_is_shown_in_time": (
        shows(
            connected(shows(connected(Scene(), "alice/1"), "alice/1", "bob", "offline"), "bob/1").later(50_000),
            "alice/1",
            "bob",
        )
        .later(2 * MINUTE_MS)
        .end()
    ),
    "unknown_is_never_wrong": (
        shows(gone(scene(), "bob/1").later(2 * MINUTE_MS), "alice/1", "bob", "unknown").later(MINUTE_MS).end()
    ),
    "another_device_is_enough": (
        shows(gone(connected(scene(), "bob/2"), "bob/1").later(2 * MINUTE_MS), "alice/1", "bob").end()
    ),
    "nobody_knows_of_who_was_never_connected": shows(connected(Scene(), "alice/1"), "alice/1", "carol").end(),
    "what_was_shown_ends_with_the_session": (
        gone(gone(shows(scene(), "alice/1", "bob"), "bob/1"), "alice/1").later(2 * MINUTE_MS).end()
    ),
    "a_device_that_is_switched_off_shows_nothing": (
        gone(shows(scene(), "alice/1", "bob"), "bob/1").later(2 * MINUTE_MS).end(absent=[device("alice/1")])
    ),
    "a_killed_device_may_be_called_offline": (
        connected(shows(scene().later(2 * MINUTE_MS), "alice/1", "bob", "offline"), "bob/1").end()
    ),
    "who_has_not_noticed_that_its_session_ended_may_be_called_offline": (
        gone(shows(hears(scene().later(2 * MINUTE_MS), "bob/1"), "alice/1", "bob", "offline").later(30_000), "bob/1")
        .later(1_000)
        .end(ticks=False)
    ),
    "what_was_under_way_may_still_come": (
        gone(hears(shows(scene().later(2 * MINUTE_MS), "alice/1", "bob", "offline").later(4_000), "bob/1"), "bob/1")
        .later(1_000)
        .end(ticks=False)
    ),
    "what_is_kept_is_unknown_two_seconds_later": (
        shows(
            shows(scene(), "alice/1", "bob").add("bob/1", "conceal", whom=NAMES["alice"]).later(1_500),
            "alice/1",
            "bob",
            "unknown",
        )
        .later(5_000)
        .end()
    ),
    "what_is_kept_no_more_may_be_shown_at_once": (
        shows(
            scene()
            .add("bob/1", "conceal", whom=NAMES["alice"])
            .later(9_000)
            .add("bob/1", "reveal", whom=NAMES["alice"], at=BOB_WENT),
            "alice/1",
            "bob",
        ).end()
    ),
    "what_is_kept_from_one_is_shown_to_another": (
        shows(
            connected(scene(), "carol/1").add("bob/1", "conceal", whom=NAMES["alice"]).later(9_000), "carol/1", "bob"
        ).end()
    ),
    "ones_own_devices_are_no_secret": (
        shows(connected(scene(), "bob/2").add("bob/1", "conceal").later(9_000), "bob/2", "bob").end()
    ),
}

BROKEN = {
    "somebody_who_is_gone_is_shown_as_online": (
        shows(gone(scene(), "bob/1").later(MINUTE_MS + 1_000), "alice/1", "bob").end(absent=[device("alice/1")])
    ),
    "somebody_who_went_is_shown_as_online_for_ever": (
        gone(shows(scene(), "alice/1", "bob"), "bob/1").later(MINUTE_MS + 1_000).end()
    ),
    "somebody_who_is_there_is_called_offline": (
        gone(
            hears(shows(scene().later(2 * MINUTE_MS), "alice/1", "bob", "offline").later(6_000), "bob/1"), "bob/1"
        ).end(ticks=False)
    ),
    "somebody_who_came_is_shown_as_offline_for_ever": (
        connected(shows(connected(Scene(), "alice/1"), "alice/1", "bob", "offline"), "bob/1")
        .later(MINUTE_MS + 6_000)
        .end()
    ),
    "somebody_who_came_is_shown_as_offline_for_too_long": (
        shows(
            connected(shows(connected(Scene(), "alice/1"), "alice/1", "bob", "offline"), "bob/1").later(
                MINUTE_MS + 1_000
            ),
            "alice/1",
            "bob",
        )
        .later(6_000)
        .end()
    ),
    "somebody_who_went_is_shown_as_online_for_too_long": (
        shows(
            gone(shows(scene(), "alice/1", "bob"), "bob/1").later(MINUTE_MS + 1_000), "alice/1", "bob", "offline"
        ).end()
    ),
    "somebody_who_is_there_at_the_end_is_called_offline": (
        shows(scene().later(2 * MINUTE_MS), "alice/1", "bob", "offline").later(6_000).end()
    ),
    "what_is_kept_is_shown": (
        shows(scene().add("bob/1", "conceal", whom=NAMES["alice"]).later(2_500), "alice/1", "bob").end()
    ),
    "what_is_kept_from_everybody_is_shown": (
        shows(scene().add("bob/1", "conceal").later(2_500), "alice/1", "bob").end()
    ),
    "who_hides_from_everybody_sees_somebody": (
        shows(scene().add("alice/1", "conceal").later(2_500), "alice/1", "bob").end()
    ),
    "who_is_blocked_sees_who_blocked_it": (
        shows(scene().add("bob/1", "block", whom=NAMES["alice"]).later(2_500), "alice/1", "bob").end()
    ),
    "what_is_kept_goes_on_to_be_shown": (
        shows(scene(), "alice/1", "bob").add("bob/1", "conceal", whom=NAMES["alice"]).later(2_500).end()
    ),
    "that_somebody_is_offline_is_kept_too": (
        shows(
            gone(scene(), "bob/1").add("bob/1", "conceal", whom=NAMES["alice"]).later(2_500),
            "alice/1",
            "bob",
            "offline",
        ).end()
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_is_true_and_allowed_is_not_told(name: str) -> None:
    report = SILENT[name].judge()

    assert report.is_silent, report.stories()


@pytest.mark.parametrize("name", BROKEN)
def test_a_presence_that_is_wrong_is_told_once(name: str) -> None:
    assert BROKEN[name].broken() == {"presence": 1}


def test_the_story_of_a_presence_names_who_kept_it_and_who_came_and_went() -> None:
    told = "\n".join(BROKEN["what_is_kept_is_shown"].judge().violations[0].story)

    assert "keeps its presence from" in told
    assert "is connected to edge-1" in told
    assert "as online" in told


def test_how_long_who_is_gone_may_be_shown_is_a_limit() -> None:
    lines = BROKEN["somebody_who_went_is_shown_as_online_for_ever"].lines

    assert check_lines(lines, Limits(presence_ms=2 * MINUTE_MS)).is_silent


def test_the_summary_counts_wrong_presences() -> None:
    assert "1 wrong presences" in BROKEN["what_is_kept_is_shown"].judge().summary()
