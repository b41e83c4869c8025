"""Every guarantee of groups once kept and once broken in each way that the checker knows."""

import pytest

from chappe.testing import Guarantee, Limits, check_lines
from tests.testing.scene import GROUP, NAMES, START_MS, Scene, device, message_id

THREE = ("alice/1", "bob/1", "carol/1")
TWICE = ("alice/1", "alice/2", "bob/1", "bob/2", "carol/1")
DARK = {"ticks": False}
WITH_DAVE = (*THREE, "dave/1")
NO_MEMBER = {"reason": "NOT_IN_CONVERSATION", "final": True}
JUST_NOW = 1_000
LONG_AGO = 60_000


def group(*devices: str) -> Scene:
    """Alice, Bob and Carol have been in a group for a while."""
    scene = Scene(*(devices or THREE)).join("alice/1", "alice", "bob", "carol", version=1)
    for who in devices or THREE:
        if not who.startswith("dave"):
            scene.learn(who, 1, "created", "bob", "carol")
    return scene.later(LONG_AGO)


def delivered(scene: Scene, number: int) -> Scene:
    """Alice writes, and all of three members have it."""
    return scene.say("alice/1", number).get("bob/1", number).get("carol/1", number).tally("alice/1", number, 2)


def added(scene: Scene, *, told: bool = True) -> Scene:
    """Dave comes in, as version 2, and everybody learns it."""
    scene.join("alice/1", "dave", version=2)
    for who in ("alice/1", "bob/1", "carol/1", "dave/1") if told else ("alice/1", "bob/1", "carol/1"):
        scene.learn(who, 2, "added", "dave")
    return scene


def removed(scene: Scene, *, told: bool = True) -> Scene:
    """Carol is removed, as version 2, and everybody learns it."""
    scene.leave("alice/1", "carol", version=2)
    for who in THREE if told else THREE[:2]:
        scene.learn(who, 2, "removed", "carol")
    return scene


def edited(scene: Scene, number: int, *readers: str, target: int = 1, sender: str = "alice/1") -> Scene:
    """Somebody edits a message, and some get the edit."""
    about = {"kind": "edit", "target": message_id(target)}
    scene.say(sender, number, **about)
    for who in readers:
        scene.get(who, number, sender.partition("/")[0], **about)
    return scene


def back(scene: Scene) -> Scene:
    """Carol is added again, as version 3, and everybody learns it."""
    scene.join("alice/1", "carol", version=3)
    for who in THREE:
        scene.learn(who, 3, "added", "carol")
    return scene


def reacted(scene: Scene, number: int, sender: str, *readers: str) -> Scene:
    """Somebody reacts to the first message, and some get the reaction."""
    about = {"kind": "reaction", "target": message_id(1)}
    scene.say(sender, number, **about)
    for who in readers:
        scene.get(who, number, sender.partition("/")[0], **about)
    return scene


def test_a_message_to_a_group_that_all_have_and_read_is_silent() -> None:
    scene = delivered(group(), 1).read("bob/1", 1).tally("alice/1", 1, 2, 1).read("carol/1", 1)
    report = scene.tally("alice/1", 1, 2, 2).end().judge()

    assert report.is_silent, report.stories()
    assert (report.acknowledged, report.applied, report.unjudged) == (1, 2, 0)


SILENT = {
    "an_unacknowledged_message_may_reach_some": group().send("alice/1", 1, to="", conv=GROUP).get("bob/1", 1).end(),
    "all_devices_of_all_members_have_it": (
        group(*TWICE).say("alice/1", 1).get("alice/2", 1).get("bob/1", 1).get("bob/2", 1).get("carol/1", 1).end(**DARK)
    ),
    "an_absent_member_may_lack_it": (
        group().say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1).end(absent=[device("carol/1")])
    ),
    "a_member_without_devices_is_counted": (
        group("alice/1", "bob/1").say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1).end()
    ),
    "the_members_may_be_told_after_the_message": (
        Scene("alice/1", "bob/1")
        .say("alice/1", 1)
        .get("bob/1", 1)
        .join("alice/1", "alice", "bob", at=0)
        .learn("alice/1", 1, "created", "bob")
        .learn("bob/1", 1, "created", "bob")
        .tally("alice/1", 1, 1, of=1)
        .end()
    ),
    "who_was_just_added_may_lack_what_was_sent_in_ignorance": (
        delivered(added(group(*WITH_DAVE)).later(JUST_NOW), 1).end()
    ),
    "who_was_just_added_may_have_what_was_sent_in_ignorance": (
        added(group(*WITH_DAVE))
        .later(JUST_NOW)
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .get("dave/1", 1)
        .tally("alice/1", 1, 3, of=3)
        .end()
    ),
    "who_is_added_while_the_call_is_under_way_may_have_it": (
        group(*WITH_DAVE)
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .get("dave/1", 1)
        .join("alice/1", "dave", version=2, at=0)
        .learn("alice/1", 2)
        .learn("bob/1", 2)
        .learn("carol/1", 2)
        .learn("dave/1", 2, "added", "dave")
        .end(**DARK)
    ),
    "who_was_just_removed_may_have_what_follows": (
        removed(group()).later(JUST_NOW).say("alice/1", 1).get("bob/1", 1).get("carol/1", 1).end(**DARK)
    ),
    "who_was_just_removed_may_lack_what_follows": (
        removed(group()).later(JUST_NOW).say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1, of=1).end()
    ),
    "who_was_removed_long_ago_lacks_what_follows": (
        removed(group()).later(LONG_AGO).say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1, of=1).end()
    ),
    "who_is_removed_soon_after_a_message_may_lack_it": (
        removed(group().say("alice/1", 1).later(JUST_NOW)).get("bob/1", 1).tally("alice/1", 1, 1).end()
    ),
    "who_was_removed_long_after_a_message_has_it_late": (
        removed(group().say("alice/1", 1).get("bob/1", 1).later(LONG_AGO)).get("carol/1", 1).end(**DARK)
    ),
    "what_was_written_before_somebody_left_may_come_later": (
        removed(group().say("alice/1", 1).get("bob/1", 1))
        .later(LONG_AGO)
        .get("carol/1", 1, pos=message_id(1, START_MS + LONG_AGO + 11_000), how="sync")
        .end(**DARK)
    ),
    "who_was_removed_may_hide_what_it_has": (
        removed(delivered(group(), 1)).later(LONG_AGO).say("carol/1", 2, kind="hide", target=message_id(1)).end()
    ),
    "who_comes_back_has_what_follows": (
        back(removed(group()).later(LONG_AGO))
        .later(LONG_AGO)
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .tally("alice/1", 1, 2)
        .end()
    ),
    "versions_say_what_happened_first": (
        delivered(
            group(*WITH_DAVE)
            .leave("alice/1", "dave", version=3, at=0)
            .join("bob/1", "dave", version=2, at=0)
            .later(LONG_AGO),
            1,
        ).end(learns=False)
    ),
    "who_has_left_is_told_that_it_may_not_write": (
        removed(group())
        .send("carol/1", 1, to="", conv=GROUP)
        .add("carol/1", "refused", id=message_id(1), **NO_MEMBER)
        .end()
    ),
    "a_message_sent_before_its_sender_was_removed_stays_accepted": (
        removed(group().send("carol/1", 1, to="", conv=GROUP))
        .later(LONG_AGO)
        .stored("carol/1", 1)
        .get("alice/1", 1, "carol")
        .get("bob/1", 1, "carol")
        .end(**DARK)
    ),
    "a_tally_may_be_shown_again": delivered(group(), 1).tally("alice/1", 1, 2).end(),
    "a_reader_has_it": (
        group()
        .say("alice/1", 1)
        .apply("bob/1", 1, conv=GROUP)
        .read("bob/1", 1)
        .tally("alice/1", 1, 1, 1)
        .get("carol/1", 1)
        .tally("alice/1", 1, 2, 1)
        .end()
    ),
    "who_reads_up_to_a_later_one_has_read_what_it_had": (
        delivered(group(), 1).add("bob/1", "read", conv=GROUP, upto=message_id(2)).tally("alice/1", 1, 2, 1).end()
    ),
    "what_is_read_may_be_on_its_way": (
        group()
        .say("alice/1", 1)
        .add("bob/1", "read", conv=GROUP, upto=message_id(2))
        .tally("alice/1", 1, 1, 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .tally("alice/1", 1, 2, 1)
        .end()
    ),
    "what_came_after_the_reading_is_not_read": (
        group()
        .add("bob/1", "read", conv=GROUP, upto=message_id(2))
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .tally("alice/1", 1, 2)
        .end()
    ),
    "tallies_that_are_not_written_say_nothing": group().say("alice/1", 1).get("bob/1", 1).get("carol/1", 1).end(**DARK),
    "the_last_edit_is_everywhere": (edited(edited(delivered(group(), 1), 2), 3, "bob/1", "carol/1").end()),
    "a_later_edit_that_nobody_acknowledged_takes_its_place": (
        edited(delivered(group(), 1), 2)
        .send("alice/1", 3, to="", conv=GROUP, kind="edit", target=message_id(1))
        .get("bob/1", 3, kind="edit", target=message_id(1))
        .get("carol/1", 3, kind="edit", target=message_id(1))
        .end()
    ),
    "what_is_taken_back_need_not_be_edited": (
        edited(delivered(group(), 1), 2, "bob/1")
        .say("alice/1", 3, kind="revoke", target=message_id(1))
        .get("bob/1", 3, kind="revoke", target=message_id(1))
        .get("carol/1", 3, kind="revoke", target=message_id(1))
        .end()
    ),
    "who_could_not_see_a_message_gets_no_edit": (
        edited(added(delivered(group(*WITH_DAVE), 1).later(LONG_AGO)).later(LONG_AGO), 2, "bob/1", "carol/1").end()
    ),
    "who_comes_back_may_get_what_was_done_meanwhile_to_what_it_saw": (
        back(reacted(removed(delivered(group(), 1)).later(LONG_AGO), 2, "bob/1", "alice/1").later(JUST_NOW))
        .later(JUST_NOW)
        .get("carol/1", 2, "bob", kind="reaction", target=message_id(1), how="sync")
        .end()
    ),
    "reactions_of_different_people_stand_side_by_side": (
        reacted(
            reacted(delivered(group(), 1), 2, "bob/1", "alice/1", "carol/1"), 3, "carol/1", "alice/1", "bob/1"
        ).end()
    ),
    "what_is_hidden_is_hidden_on_own_devices": (
        group("alice/1", "bob/1", "bob/2", "carol/1")
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("bob/2", 1)
        .get("carol/1", 1)
        .say("bob/1", 2, kind="hide", target=message_id(1))
        .get("bob/2", 2, "bob", kind="hide", target=message_id(1))
        .end(**DARK)
    ),
    "a_group_of_many_names_only_the_first": (
        Scene("alice/1", "bob/1")
        .join("alice/1", "alice", version=1)
        .learn("alice/1", 1, "created")
        .join("alice/1", "bob", version=2)
        .learn("alice/1", 2, "added", *["carol"] * 64)
        .learn("bob/1", 2, "added", *["carol"] * 64)
        .end()
    ),
    "devices_need_not_learn_what_they_do_not_write": added(group(*WITH_DAVE), told=False).end(learns=False),
    "a_device_linked_later_need_not_learn": (group().add("bob/2", "device", device=device("bob/2")).end()),
    "a_message_that_was_made_good_in_time": (
        group()
        .add("bob/1", "connect", session="1", edge="e")
        .say("alice/1", 1)
        .later(160_000)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .end(**DARK)
    ),
    "a_message_that_waited_for_its_device": (
        group()
        .say("alice/1", 1)
        .get("carol/1", 1)
        .later(900_000)
        .add("bob/1", "connect", session="1", edge="e")
        .get("bob/1", 1)
        .end(**DARK)
    ),
    "a_message_that_waited_while_its_device_was_away": (
        group()
        .add("bob/1", "connect", session="1", edge="e")
        .add("bob/1", "disconnect")
        .say("alice/1", 1)
        .get("carol/1", 1)
        .later(900_000)
        .get("bob/1", 1)
        .end(**DARK)
    ),
    "a_message_that_came_by_history": (
        group()
        .add("bob/1", "connect", session="1", edge="e")
        .say("alice/1", 1)
        .later(900_000)
        .get("bob/1", 1, how="history")
        .get("carol/1", 1)
        .end(**DARK)
    ),
}

BROKEN: dict[str, tuple[Guarantee, Scene]] = {
    "loss_at_one_member": ("loss", group().say("alice/1", 1).get("bob/1", 1).end(**DARK)),
    "loss_at_one_device_of_a_member": (
        "loss",
        group("alice/1", "bob/1", "bob/2", "carol/1").say("alice/1", 1).get("bob/1", 1).get("carol/1", 1).end(**DARK),
    ),
    "loss_at_the_other_device_of_the_sender": (
        "loss",
        group("alice/1", "alice/2", "bob/1").say("alice/1", 1).get("bob/1", 1).end(**DARK),
    ),
    "loss_at_who_was_added_long_ago": ("loss", delivered(added(group(*WITH_DAVE)).later(LONG_AGO), 1).end(**DARK)),
    "loss_at_who_was_just_added_and_known_to_the_sender": (
        "loss",
        added(group(*WITH_DAVE)).later(200).say("alice/1", 1, version=2).get("bob/1", 1).get("carol/1", 1).end(**DARK),
    ),
    "loss_at_who_was_removed_much_later": (
        "loss",
        removed(group().say("alice/1", 1).get("bob/1", 1).later(LONG_AGO)).end(**DARK),
    ),
    "loss_of_what_was_taken_back": (
        "loss",
        delivered(group(), 1)
        .say("alice/1", 2, kind="revoke", target=message_id(1))
        .get("bob/1", 2, kind="revoke", target=message_id(1))
        .end(),
    ),
    "a_message_applied_twice": ("double", delivered(group(), 1).apply("bob/1", 1, conv=GROUP).end()),
    "a_message_that_nobody_sent": ("invented", group().apply("bob/1", 1, conv=GROUP).end()),
    "a_member_that_sorts_by_its_own_time": (
        "order",
        group().say("alice/1", 1).get("bob/1", 1, ms=1).get("carol/1", 1).end(**DARK),
    ),
    "a_reply_that_sorts_before": (
        "order",
        delivered(group(), 2).say("bob/1", 1).get("alice/1", 1, "bob").get("carol/1", 1, "bob").end(**DARK),
    ),
    "a_message_given_to_a_stranger": ("misdelivery", delivered(group(*WITH_DAVE), 1).get("dave/1", 1).end(**DARK)),
    "a_message_given_to_who_came_later": (
        "misdelivery",
        added(delivered(group(*WITH_DAVE), 1).later(JUST_NOW)).get("dave/1", 1, how="sync").end(**DARK),
    ),
    "a_message_given_to_who_was_removed": (
        "misdelivery",
        removed(group()).later(2_100).say("alice/1", 1).get("bob/1", 1).get("carol/1", 1).end(**DARK),
    ),
    "a_message_given_to_who_was_just_removed_and_the_sender_knew": (
        "misdelivery",
        removed(group()).later(200).say("alice/1", 1, version=2).get("bob/1", 1).get("carol/1", 1).end(**DARK),
    ),
    "a_message_written_for_who_had_left_meanwhile": (
        "misdelivery",
        removed(group().say("alice/1", 1).get("bob/1", 1))
        .get("carol/1", 1, pos=message_id(1, START_MS + LONG_AGO + 13_000))
        .end(**DARK),
    ),
    "an_edit_given_to_who_could_not_see_the_message": (
        "misdelivery",
        edited(
            added(delivered(group(*WITH_DAVE), 1).later(LONG_AGO)).later(LONG_AGO), 2, "bob/1", "carol/1", "dave/1"
        ).end(),
    ),
    "what_was_done_meanwhile_given_to_who_has_not_come_back": (
        "misdelivery",
        reacted(removed(delivered(group(), 1)).later(LONG_AGO), 2, "bob/1", "alice/1", "carol/1").end(),
    ),
    "what_was_done_before_somebody_came_to_what_it_could_not_see": (
        "misdelivery",
        added(reacted(delivered(group(*WITH_DAVE), 1).later(LONG_AGO), 2, "bob/1", "alice/1", "carol/1"))
        .later(JUST_NOW)
        .get("dave/1", 2, "bob", kind="reaction", target=message_id(1), how="sync")
        .end(),
    ),
    "what_one_hides_given_to_others": (
        "misdelivery",
        delivered(group(), 1)
        .say("bob/1", 2, kind="hide", target=message_id(1))
        .get("carol/1", 2, "bob", kind="hide", target=message_id(1))
        .end(),
    ),
    "a_message_accepted_from_a_stranger": (
        "membership",
        group(*WITH_DAVE)
        .say("dave/1", 1)
        .get("alice/1", 1, "dave")
        .get("bob/1", 1, "dave")
        .get("carol/1", 1, "dave")
        .end(**DARK),
    ),
    "a_message_accepted_from_who_was_removed": (
        "membership",
        removed(group()).later(2_100).say("carol/1", 1).get("alice/1", 1, "carol").get("bob/1", 1, "carol").end(**DARK),
    ),
    "a_member_that_is_told_that_it_is_none": (
        "membership",
        added(group(*WITH_DAVE))
        .send("dave/1", 1, to="", conv=GROUP)
        .add("dave/1", "refused", id=message_id(1), **NO_MEMBER)
        .end(),
    ),
    "who_was_added_never_learns_it": ("membership", added(group(*WITH_DAVE), told=False).end()),
    "who_was_removed_never_learns_it": ("membership", removed(group(), told=False).end()),
    "who_was_removed_twice_learns_it_once": (
        "membership",
        removed(group())
        .join("alice/1", "carol", version=3)
        .learn("alice/1", 3)
        .learn("bob/1", 3)
        .learn("carol/1", 3, "added", "carol")
        .leave("alice/1", "carol", version=4)
        .learn("alice/1", 4)
        .learn("bob/1", 4)
        .end(),
    ),
    "a_member_never_learns_of_another": (
        "membership",
        group(*WITH_DAVE)
        .join("alice/1", "dave", version=2)
        .learn("alice/1", 2)
        .learn("bob/1", 2)
        .learn("dave/1", 2, "added", "dave")
        .end(),
    ),
    "a_tally_of_more_than_have_it": (
        "tick",
        group().say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 2).get("carol/1", 1).end(),
    ),
    "a_tally_of_more_than_have_read_it": ("tick", delivered(group(), 1).tally("alice/1", 1, 2, 1).end()),
    "a_tally_of_who_read_what_was_before_its_time": (
        "tick",
        added(delivered(group(*WITH_DAVE), 1).later(JUST_NOW))
        .add("dave/1", "read", conv=GROUP, upto=message_id(1))
        .tally("alice/1", 1, 2, 1)
        .end(),
    ),
    "a_tally_that_falls": ("tick", delivered(group(), 1).tally("alice/1", 1, 1).end()),
    "a_tally_of_more_readers_than_have_it": (
        "tick",
        group()
        .say("alice/1", 1)
        .get("bob/1", 1)
        .get("carol/1", 1)
        .read("bob/1", 1)
        .read("carol/1", 1)
        .tally("alice/1", 1, 1, 2)
        .tally("alice/1", 1, 2, 2)
        .end(),
    ),
    "a_tally_whose_total_changes": ("tick", delivered(group(), 1).tally("alice/1", 1, 2, of=3).end()),
    "a_tally_of_fewer_recipients_than_there_were": (
        "tick",
        group("alice/1", "bob/1").say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1, of=1).end(),
    ),
    "a_tally_of_more_recipients_than_there_were": (
        "tick",
        group("alice/1", "bob/1").say("alice/1", 1).get("bob/1", 1).tally("alice/1", 1, 1, of=3).end(),
    ),
    "a_tally_on_another_user_s_message": ("tick", delivered(group(), 1).tally("bob/1", 1, 1).end()),
    "a_tally_that_never_came": ("convergence", group().say("alice/1", 1).get("bob/1", 1).get("carol/1", 1).end()),
    "a_tally_that_never_counted_a_reader": ("convergence", delivered(group(), 1).read("bob/1", 1).end()),
    "own_devices_with_different_tallies": (
        "convergence",
        delivered(group("alice/1", "alice/2", "bob/1", "carol/1"), 1).apply("alice/2", 1, conv=GROUP).end(),
    ),
    "an_edit_that_one_member_never_shows": ("convergence", edited(delivered(group(), 1), 2, "bob/1").end()),
    "an_edit_whose_place_an_earlier_one_keeps": (
        "convergence",
        edited(edited(delivered(group(), 1), 2, "bob/1", "carol/1"), 3, "bob/1").end(),
    ),
    "an_edit_that_one_device_never_shows": (
        "convergence",
        edited(
            group("alice/1", "bob/1", "bob/2").say("alice/1", 1).get("bob/1", 1).get("bob/2", 1).tally("alice/1", 1, 1),
            2,
        )
        .send("alice/1", 3, to="", conv=GROUP, kind="edit", target=message_id(1))
        .get("bob/1", 3, kind="edit", target=message_id(1))
        .get("bob/2", 2, kind="edit", target=message_id(1))
        .end(),
    ),
    "a_reaction_that_its_target_never_shows": (
        "convergence",
        reacted(delivered(group(), 1), 2, "bob/1", "carol/1").end(),
    ),
    "devices_that_disagree_about_a_message_sent_during_a_removal": (
        "convergence",
        removed(group("alice/1", "bob/1", "carol/1", "carol/2").say("alice/1", 1))
        .learn("carol/2", 2, "removed", "carol")
        .get("bob/1", 1)
        .get("carol/1", 1)
        .end(**DARK),
    ),
    "a_reaction_of_who_was_removed": (
        "membership",
        reacted(removed(delivered(group(), 1)).later(LONG_AGO), 2, "carol/1", "alice/1", "bob/1").end(),
    ),
    "an_edit_of_who_was_removed": (
        "membership",
        edited(
            removed(group().say("carol/1", 1).get("alice/1", 1, "carol").get("bob/1", 1, "carol")).later(LONG_AGO),
            2,
            "alice/1",
            "bob/1",
            sender="carol/1",
        ).end(**DARK),
    ),
    "what_who_was_removed_takes_back": (
        "membership",
        removed(group().say("carol/1", 1).get("alice/1", 1, "carol").get("bob/1", 1, "carol"))
        .later(LONG_AGO)
        .say("carol/1", 2, kind="revoke", target=message_id(1))
        .get("alice/1", 2, "carol", kind="revoke", target=message_id(1))
        .get("bob/1", 2, "carol", kind="revoke", target=message_id(1))
        .end(**DARK),
    ),
    "a_message_that_came_late": (
        "late",
        group()
        .add("bob/1", "connect", session="1", edge="e")
        .say("alice/1", 1)
        .get("carol/1", 1)
        .later(171_000)
        .get("bob/1", 1)
        .end(**DARK),
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_kept_promise_to_a_group_is_silent(name: str) -> None:
    report = SILENT[name].judge()

    assert report.is_silent, report.stories()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_to_a_group_is_told_once(name: str) -> None:
    guarantee, scene = BROKEN[name]

    assert scene.broken() == {guarantee: 1}


def test_a_group_without_members_is_not_judged_in_silence() -> None:
    report = Scene("alice/1", "bob/1").say("alice/1", 1).end(**DARK).judge()

    assert (report.is_silent, report.unjudged) == (True, 1)


def test_the_grace_of_a_change_is_a_limit() -> None:
    scene = BROKEN["a_message_given_to_who_was_removed"][1]

    assert check_lines(scene.lines, Limits(change_grace_ms=3_000)).is_silent


def test_who_reads_up_to_a_message_has_read_everything_before_it() -> None:
    scene = delivered(delivered(group(), 1), 2).add("bob/1", "read", conv=GROUP, upto=message_id(2))
    scene.tally("alice/1", 2, 2, 1).end()

    assert dict(scene.judge().counts) == {"convergence": 1}


def test_a_story_about_a_member_names_its_memberships_and_what_it_learned() -> None:
    [violation] = BROKEN["a_message_given_to_who_was_removed"][1].judge().violations

    told = "\n".join(violation.story)
    assert "says that " in told
    assert "left ..99999999 (version 2)" in told
    assert "learns of version 2 of ..99999999: removed" in told
    assert "sends message ..00000001 to the group ..99999999" in told


def test_a_summary_counts_what_is_rare() -> None:
    reports = [
        BROKEN[name][1].judge().summary() for name in ("who_was_removed_never_learns_it", "a_message_that_came_late")
    ]

    assert [summary.rpartition(", ")[2] for summary in reports] == ["1 wrong memberships", "1 late"]


def test_a_large_group_is_judged_in_no_time() -> None:
    names = [f"{number:032x}" for number in range(1024)]
    scene = Scene("alice/1").join("alice/1", "alice", "bob", version=1)
    scene.add("alice/1", "join", conv=GROUP, members=names, version=2).learn("alice/1", 1).learn("alice/1", 2)
    scene.learn("alice/1", 1, "created").later(LONG_AGO)
    for number in range(1, 50):
        scene.say("alice/1", number)
        for name in names[::16]:
            event = {"id": message_id(number), "conv": GROUP, "sender": NAMES["alice"], "pos": message_id(number)}
            line = {"ms": int(message_id(number)[:12], 16), "kind": "message", "how": "push", **event}
            scene.add(f"{name}/1", "apply", **line)

    report = scene.end(**DARK).judge()

    assert (report.is_silent, report.applied) == (True, 49 * 64), report.stories()
