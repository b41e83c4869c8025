"""Every guarantee once kept and once broken in each way that the checker knows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from chappe.testing import Guarantee, HistoryError, Limits, Line, check, check_lines
from chappe.testing.checker import main
from tests.testing.scene import CONV, NAMES, START_MS, Scene, device, message_id


def test_a_delivered_and_read_message_is_silent() -> None:
    report = Scene().delivered(1).read("bob/1", 1).tick("alice/1", 1, "read").end().judge()

    assert report.is_silent
    assert report.summary() == ("1 acknowledged, 0 lost, 0 doubled, 0 out of order, 0 misdelivered, 0 lying ticks")
    assert (report.sent, report.applied, report.pending, report.unjudged) == (1, 1, 0, 0)


BOTH = ("alice/1", "alice/2", "bob/1", "bob/2")
DARK = {"ticks": False}
READS = {"ticks": False, "reads": True}


def read_on_one(upto: int = 1, *also: str) -> Scene:
    """Bob reads on one of his two devices, and perhaps on the other, too."""
    scene = Scene(*BOTH).accepted(1).apply("alice/2", 1).apply("bob/1", 1).apply("bob/2", 1)
    for who in ("bob/1", *also):
        scene.add(who, "read", conv=CONV, upto=message_id(upto))
    return scene


def changed_after_a_block(kind: str) -> Scene:
    """Writes while she is blocked, and changes that once the block is over."""
    return (
        Scene()
        .add("bob/1", "block", whom=NAMES["alice"])
        .later(5000)
        .accepted(1)
        .later(5000)
        .add("bob/1", "unblock", whom=NAMES["alice"])
        .later(5000)
        .send("alice/1", 2, kind=kind, target=message_id(1))
        .stored("alice/1", 2)
        .end()
    )


SILENT = {
    "an_unacknowledged_message_may_reach_nobody": Scene().send("alice/1", 1).end(),
    "an_unacknowledged_message_may_reach_some": Scene(*BOTH).send("alice/1", 1).apply("bob/2", 1).end(),
    "an_absent_device_may_lack_a_message": Scene().accepted(1).end(absent=[device("bob/1")]),
    "a_device_linked_later_may_lack_it": (Scene().delivered(1).add("bob/2", "device", device=device("bob/2")).end()),
    "a_device_that_is_gone_may_lack_it": (Scene().accepted(1).add("bob/1", "gone", device=device("bob/1")).end()),
    "all_devices_learn_what_was_read_on_one": (
        read_on_one().add("bob/2", "elsewhere", conv=CONV, upto=message_id(1)).end(**READS)
    ),
    "what_was_read_on_both_devices_is_known_to_both": read_on_one(1, "bob/2").end(**READS),
    "a_read_that_was_not_acknowledged_may_be_unknown": (
        read_on_one().send("bob/1", 9, "alice", kind="read").end(**READS)
    ),
    "a_read_of_ones_own_message_tells_the_others_nothing": (
        Scene(*BOTH).accepted(1).apply("alice/2", 1).add("alice/2", "read", conv=CONV, upto=message_id(1))
    )
    .apply("bob/1", 1)
    .apply("bob/2", 1)
    .end(**READS),
    "devices_that_do_not_write_down_what_was_read_elsewhere_are_not_judged": read_on_one().end(**DARK),
    "a_device_that_was_linked_later_need_not_know_what_was_read": (
        Scene("alice/1", "bob/1")
        .accepted(1)
        .apply("bob/1", 1)
        .add("bob/1", "read", conv=CONV, upto=message_id(1))
        .add("bob/3", "device", device=device("bob/3"))
        .end(**READS)
    ),
    "what_was_sent_before_a_device_was_unlinked_may_be_on_its_way": (
        Scene("alice/1", "bob/1").accepted(1).add("bob/1", "gone", device=device("bob/1")).apply("bob/1", 1).end()
    ),
    "a_read_reaches_its_peer_as_a_tick": (Scene().send("alice/1", 1, kind="read").stored("alice/1", 1).end()),
    "the_sender_may_apply_its_own_message": Scene().delivered(1).apply("alice/1", 1).end(),
    "an_apply_may_be_read_before_its_send": Scene().apply("bob/1", 1).accepted(1).end(),
    "a_note_to_self_has_no_ticks": Scene().send("alice/1", 1, to="alice").stored("alice/1", 1).end(),
    "an_ack_may_come_before_its_apply": (
        Scene().accepted(1).ack("bob/1", 1).apply("bob/1", 1).tick("alice/1", 1).end()
    ),
    "a_read_up_to_a_later_id_allows_the_tick": (
        Scene().delivered(1).add("bob/1", "read", conv=CONV, upto=message_id(2)).tick("alice/1", 1, "read").end()
    ),
    "a_tick_may_be_shown_again": Scene().delivered(1).tick("alice/1", 1).end(),
    "a_late_lower_id_of_another_device_is_no_reply": (Scene(*BOTH).send("alice/1", 2).send("alice/2", 1).end()),
    "a_reply_need_not_follow_what_is_ahead_of_the_clock": (
        Scene().apply("bob/1", 900).send("alice/1", 900).send("bob/1", 1, to="alice").end()
    ),
    "a_retry_repeats_its_id": (
        Scene().accepted(1).send("alice/1", 1, attempt=2).stored("alice/1", 1).apply("bob/1", 1).end()
    ),
    "an_outbox_from_disk_may_send_old_ids": Scene().send("alice/1", 2).send("alice/1", 1, attempt=2).end(),
    "a_retryable_no_may_be_followed_by_a_yes": (
        Scene().send("alice/1", 1).refused("alice/1", 1, final=False).stored("alice/1", 1).apply("bob/1", 1).end()
    ),
    "an_id_of_a_time_to_come_is_given_up_for_an_earlier_one": (
        Scene().send("alice/1", 2).refused("alice/1", 2, reason="CLOCK_SKEW").delivered(1).end()
    ),
    "a_refused_draft_gets_a_new_id": (
        Scene().send("alice/1", 1, draft="d").refused("alice/1", 1).send("alice/1", 2, draft="d").end()
    ),
    "a_display_in_order_is_right": (Scene().add("bob/1", "shown", conv=CONV, ids=[message_id(1), message_id(2)]).end()),
    "a_block_withholds_what_follows": (
        Scene().add("bob/1", "block", whom=NAMES["alice"]).later(5000).accepted(1).end()
    ),
    "an_edit_of_what_a_block_withheld_never_arrives": changed_after_a_block("edit"),
    "a_revoke_of_what_a_block_withheld_never_arrives": changed_after_a_block("revoke"),
    "a_block_may_take_two_seconds": (Scene().add("bob/1", "block", whom=NAMES["alice"]).later(1900).delivered(1).end()),
    "a_block_may_have_ended_when_its_lifting_began": (
        Scene()
        .add("bob/1", "block", whom=NAMES["alice"])
        .later(5000)
        .delivered(1)
        .add("bob/1", "unblock", whom=NAMES["alice"], at=START_MS + 5004)
        .end()
    ),
    "devices_need_not_show_ticks_that_are_not_written": Scene()
    .accepted(1)
    .apply("bob/1", 1)
    .ack("bob/1", 1)
    .end(**DARK),
    "sessions_end": Scene().add("bob/1", "disconnect").end(),
}

BROKEN: dict[str, tuple[Guarantee, Scene]] = {
    "loss_of_an_acknowledged_message": ("loss", Scene().accepted(1).end()),
    "loss_on_one_device_of_the_recipient": ("loss", Scene("alice/1", "bob/1", "bob/2").delivered(1).end()),
    "loss_on_the_other_device_of_the_sender": ("loss", Scene("alice/1", "alice/2", "bob/1").delivered(1).end(**DARK)),
    "loss_on_a_device_known_by_its_connection": (
        "loss",
        Scene("alice/1").add("bob/1", "connect", session="1", edge="e:1").accepted(1).end(),
    ),
    "loss_on_a_device_known_by_what_it_sent": (
        "loss",
        Scene("alice/1").send("bob/1", 1, to="alice").accepted(2).end(),
    ),
    "loss_of_what_came_after_the_end": ("loss", Scene().accepted(1).end().apply("bob/1", 1)),
    "loss_after_a_block_was_lifted": (
        "loss",
        Scene()
        .add("bob/1", "block", whom=NAMES["alice"])
        .later(5000)
        .add("bob/1", "unblock", whom=NAMES["alice"])
        .accepted(1)
        .end(),
    ),
    "an_event_applied_twice": ("double", Scene().delivered(1).apply("bob/1", 1, how="sync").end()),
    "an_unacknowledged_event_applied_twice": (
        "double",
        Scene().send("alice/1", 1).apply("bob/1", 1).apply("bob/1", 1).end(),
    ),
    "an_event_that_nobody_sent": ("invented", Scene().apply("bob/1", 1).end()),
    "a_device_that_sorts_by_its_own_time": ("order", Scene().accepted(1).apply("bob/1", 1, ms=START_MS + 11).end()),
    "a_device_whose_ids_go_back": ("order", Scene().send("alice/1", 2).send("alice/1", 1).end()),
    "a_reply_that_sorts_before": (
        "order",
        Scene().send("alice/1", 2).apply("bob/1", 2).send("bob/1", 1, to="alice").end(),
    ),
    "a_display_out_of_order": (
        "order",
        Scene().add("bob/1", "shown", conv=CONV, ids=[message_id(2), message_id(1)]).end(),
    ),
    "a_message_displayed_twice": (
        "order",
        Scene().add("bob/1", "shown", conv=CONV, ids=[message_id(1), message_id(1)]).end(),
    ),
    "a_delivered_tick_before_the_ack": (
        "tick",
        Scene().accepted(1).apply("bob/1", 1).tick("alice/1", 1).ack("bob/1", 1).end(),
    ),
    "a_delivered_tick_without_an_apply": ("tick", Scene().send("alice/1", 1).ack("bob/1", 1).tick("alice/1", 1).end()),
    "a_delivered_tick_for_another_user_s_ack": (
        "tick",
        Scene(*BOTH).send("alice/1", 1).apply("alice/2", 1).ack("alice/2", 1).tick("alice/1", 1).end(),
    ),
    "a_read_tick_that_nobody_read": ("tick", Scene().delivered(1).tick("alice/1", 1, "read").end()),
    "a_read_tick_for_reading_less": (
        "tick",
        Scene()
        .send("alice/1", 2)
        .apply("bob/1", 2)
        .add("bob/1", "read", conv=CONV, upto=message_id(1))
        .tick("alice/1", 2, "read")
        .end(),
    ),
    "a_tick_that_goes_back": (
        "tick",
        Scene().delivered(1).read("bob/1", 1).tick("alice/1", 1, "read").tick("alice/1", 1).end(),
    ),
    "a_tick_on_another_user_s_message": ("tick", Scene().delivered(1).tick("bob/1", 1).end()),
    "a_tick_on_a_message_never_sent": ("tick", Scene().tick("alice/1", 1).end()),
    "an_event_given_to_a_third_user": ("misdelivery", Scene().delivered(1).apply("carol/1", 1).end()),
    "an_early_event_given_to_a_third_user": ("misdelivery", Scene().apply("carol/1", 1).delivered(1).end()),
    "an_event_under_another_name": ("misdelivery", Scene().accepted(1).apply("bob/1", 1, sender="carol").end()),
    "an_event_in_another_conversation": ("misdelivery", Scene().accepted(1).apply("bob/1", 1, conv="d" * 32).end()),
    "a_delivery_through_a_block": (
        "misdelivery",
        Scene().add("bob/1", "block", whom=NAMES["alice"]).later(2000).delivered(1).end(),
    ),
    "a_withheld_message_delivered_after_the_block": (
        "misdelivery",
        Scene()
        .add("bob/1", "block", whom=NAMES["alice"])
        .later(5000)
        .accepted(1)
        .add("bob/1", "unblock", whom=NAMES["alice"])
        .apply("bob/1", 1)
        .end(),
    ),
    "a_message_given_to_a_device_that_was_unlinked": (
        "misdelivery",
        Scene(*BOTH)
        .add("bob/1", "gone", device=device("bob/2"))
        .later(2000)
        .delivered(1)
        .apply("alice/2", 1)
        .apply("bob/2", 1)
        .end(**DARK),
    ),
    "an_own_message_given_to_a_device_that_was_unlinked": (
        "misdelivery",
        Scene(*BOTH[:3])
        .add("alice/1", "gone", device=device("alice/2"))
        .later(2000)
        .delivered(1)
        .apply("alice/2", 1)
        .end(),
    ),
    "a_no_to_a_device_that_never_sent_it": ("retry", Scene(*BOTH).refused("alice/2", 1, final=False).end()),
    "a_yes_and_a_final_no": ("retry", Scene().delivered(1).refused("alice/1", 1).end()),
    "a_final_no_and_a_yes": ("retry", Scene().send("alice/1", 1).refused("alice/1", 1).stored("alice/1", 1).end()),
    "two_yes_that_differ": ("retry", Scene().delivered(1).stored("alice/1", 1, START_MS + 1).end()),
    "a_yes_to_a_device_that_never_sent_it": ("retry", Scene(*BOTH).stored("alice/2", 1).end()),
    "an_id_sent_by_two_devices": ("retry", Scene(*BOTH).send("alice/1", 1).send("alice/2", 1).end()),
    "a_retry_that_calls_itself_the_first": ("retry", Scene().delivered(1).send("alice/1", 1).end()),
    "a_refused_message_that_is_applied": (
        "retry",
        Scene().send("alice/1", 1).refused("alice/1", 1).apply("bob/1", 1).end(),
    ),
    "an_applied_message_that_is_refused": (
        "retry",
        Scene().send("alice/1", 1).apply("bob/1", 1).refused("alice/1", 1).end(),
    ),
    "a_draft_with_a_new_id_but_no_refusal": (
        "retry",
        Scene().send("alice/1", 1, draft="d").send("alice/1", 2, draft="d").end(),
    ),
    "own_devices_with_different_ticks": (
        "convergence",
        Scene("alice/1", "alice/2", "bob/1").delivered(1).apply("alice/2", 1).end(),
    ),
    "a_read_of_which_another_device_never_learned": ("convergence", read_on_one().end(**READS)),
    "a_read_to_the_end_of_which_another_device_never_learned": (
        "convergence",
        read_on_one().add("bob/1", "read", conv=CONV, upto="f" * 32).end(**READS),
    ),
    "a_read_that_another_device_knows_in_part": (
        "convergence",
        read_on_one()
        .accepted(2)
        .apply("alice/2", 2)
        .apply("bob/1", 2)
        .apply("bob/2", 2)
        .add("bob/1", "read", conv=CONV, upto=message_id(2))
        .add("bob/2", "elsewhere", conv=CONV, upto=message_id(1))
        .end(**READS),
    ),
    "a_tick_that_never_came": ("convergence", Scene().accepted(1).apply("bob/1", 1).ack("bob/1", 1).end()),
    "a_read_tick_that_never_came": ("convergence", Scene().delivered(1).read("bob/1", 1).end()),
    "devices_that_disagree_about_a_message_sent_during_a_block": (
        "convergence",
        Scene("alice/1", "bob/1", "bob/2")
        .add("bob/1", "block", whom=NAMES["alice"])
        .accepted(1)
        .apply("bob/1", 1)
        .end(),
    ),
    "an_edit_that_the_recipient_never_shows": (
        "convergence",
        Scene().delivered(1).send("alice/1", 2, kind="edit", target=message_id(1)).stored("alice/1", 2).end(),
    ),
    "a_history_that_never_says_that_all_is_quiet": ("unfinished", Scene().delivered(1)),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_kept_promise_is_silent(name: str) -> None:
    assert SILENT[name].broken() == {}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_told_once(name: str) -> None:
    guarantee, scene = BROKEN[name]

    assert scene.broken() == {guarantee: 1}


def test_a_story_tells_what_led_to_it_and_nothing_else() -> None:
    report = Scene().delivered(1).delivered(2).apply("bob/1", 2).read("bob/1", 2).end(ticks=False).judge()

    [violation] = report.violations
    assert "applies ..00000002 again" in str(violation)
    told = [line.split(maxsplit=3)[3].split()[0] for line in violation.story]
    assert told == ["sends", "is", "applies", "acks", "shows", "applies"]


def test_stories_begin_with_the_promise_that_was_broken_first_and_end_where_it_was() -> None:
    scene = Scene().delivered(1).delivered(2).accepted(3).apply("bob/1", 2).apply("bob/1", 1).read("bob/1", 1)

    report = scene.end(ticks=False).judge()

    assert [violation.ids for violation in report.violations] == [(message_id(2),), (message_id(1),), (message_id(3),)]
    assert [violation.t for violation in report.violations] == sorted(violation.t for violation in report.violations)
    first, second, third = report.stories().split("\n\n")
    assert [story.splitlines()[-1].split("  ")[-1] for story in (first, second)] == [
        "..00000000/1 applies message ..00000002 from ..00000000, by push",
        "..00000000/1 applies message ..00000001 from ..00000000, by push",
    ]
    assert first.startswith("DOUBLE: ")
    assert third.startswith("LOSS: ")


def test_a_story_about_a_block_names_the_block() -> None:
    report = BROKEN["a_delivery_through_a_block"][1].judge()

    assert "has blocked" in report.violations[0].story[0]


def test_a_long_story_leaves_out_its_middle() -> None:
    scene = Scene().delivered(1)
    for _ in range(30):
        scene.tick("alice/1", 1)

    story = scene.apply("bob/1", 1).end().judge().violations[0].story

    assert len(story) == 17
    assert story[8] == "... 20 more lines ..."


def test_stories_are_few_but_counts_go_on() -> None:
    scene = Scene().delivered(1)
    for _ in range(30):
        scene.apply("bob/1", 1)

    report = check_lines(scene.end().lines, Limits(stories=3))

    assert (report.doubled, len(report.violations)) == (30, 3)


def test_later_ends_do_not_tell_the_same_loss_again() -> None:
    report = Scene().accepted(1).end().end().judge()

    assert report.lost == 1


def test_a_recipient_without_devices_is_not_judged_in_silence() -> None:
    report = Scene("alice/1").accepted(1).end(ticks=False).judge()

    assert report.unjudged == 1
    assert report.summary().endswith("0 lying ticks, 1 not judged")


@pytest.mark.parametrize("line", [{"op": "sned"}, {"op": "send"}, {"op": "tick", "id": "1", "state": "blue"}, {}])
def test_a_line_that_cannot_be_understood_is_an_error(line: dict[str, Any]) -> None:
    broken = cast("Line", {"t": 1.0, "actor": device("alice/1"), **line})

    with pytest.raises(HistoryError, match="cannot understand the line"):
        check_lines([broken])


def write(scene: Scene, path: Path) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in scene.lines))
    return str(path)


def test_the_command_is_silent_with_status_zero(tmp_path: Path) -> None:
    path = write(Scene().delivered(1).end(), tmp_path / "good.jsonl")

    ran = subprocess.run([sys.executable, "-m", "chappe.testing.checker", path], capture_output=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.startswith(b"1 acknowledged, 0 lost")


def test_the_command_tells_stories_with_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(Scene().accepted(1).end(), tmp_path / "bad.jsonl")

    status = main([path])

    out = capsys.readouterr().out
    assert status == 1
    assert "LOSS: " in out
    assert "is told that ..00000001 is stored" in out


def test_the_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(Scene().accepted(1).end(), tmp_path / "bad.jsonl")

    main(["--json", path])

    answer = json.loads(capsys.readouterr().out)
    assert (answer["is_silent"], answer["counts"], answer["violations"][0]["guarantee"]) == (
        False,
        {"loss": 1},
        "loss",
    )


def test_the_command_explains_a_file_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_text('{"t": 1\n{}\n')

    status = main([str(path)])

    assert status == 2
    assert f"{path}:1: not a line of a history" in capsys.readouterr().err


def test_files_and_memory_are_judged_alike(tmp_path: Path) -> None:
    scene = BROKEN["loss_on_one_device_of_the_recipient"][1]

    assert check([write(scene, tmp_path / "a.jsonl")]) == scene.judge()
