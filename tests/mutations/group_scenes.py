"""What happens in groups to a system from which a repair was taken out; otherwise like the scenes beside it."""

from typing import Final

from tests.mutations.circle import Circle
from tests.mutations.faults import until
from tests.mutations.phone import Phone
from tests.mutations.stage import Stage

STALE_S: Final = 5.0
"""Longer than a write may take, and shorter than a cursor stays behind."""
FAILING_S: Final = 35.0
"""So long expansions fail that the mark would pass them and H as well."""
A_WHILE_S: Final = 15.0
"""So long they fail that the mark would pass them, but not H."""
WORD_WITHIN_S: Final = 70.0
"""An inbox says within a minute that messages to a group came further."""
FOR_EVER: Final = 1_000_000


async def late_group_commit(stage: Stage) -> None:
    """The commit of a message to a group takes so long that its position is too old to be relied on."""
    circle, alice, *_ = await _circle(stage)
    stage.groups.before_accept.close()
    alice.say(circle.group_id, circle.members, circle.version)
    await stage.groups.before_accept.arrived.wait()
    stage.clock.leap(STALE_S)
    stage.groups.before_accept.release()
    await alice.acknowledged()


async def ledger_dies_expanding(stage: Stage) -> None:
    """svc_message dies with a message in its hands that it has acknowledged and not yet given to the members."""
    circle, alice, *_ = await _circle(stage)
    stage.groups.before_expand.close()
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await stage.groups.before_expand.arrived.wait()
    await stage.message.kill()
    await stage.message.start()
    await stage.pass_s()


async def expansion_fails_once(stage: Stage) -> None:
    """The store does not answer the first time that a message is to be given to the members."""
    circle, alice, *_ = await _circle(stage)
    stage.groups.failing = 1
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await until(lambda: stage.groups.failed, "an expansion has failed")
    await stage.pass_s()


async def adopter_fails_once(stage: Stage) -> None:
    """svc_message dies expanding, and the store does not answer the first time that somebody else tries."""
    circle, alice, *_ = await _circle(stage)
    stage.groups.before_expand.close()
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await stage.groups.before_expand.arrived.wait()
    stage.groups.failing = 1
    await stage.message.kill()
    await stage.message.start()
    await stage.pass_s()


async def expansion_fails_for_long(stage: Stage) -> None:
    """The store does not take what members get for so long that the mark stands still, and then svc_message dies."""
    await _fail_and_die(stage, FAILING_S)


async def expansion_fails_for_a_while(stage: Stage) -> None:
    """The store does not take what members get for a while, and then svc_message dies."""
    await _fail_and_die(stage, A_WHILE_S)


async def welcome_carol(stage: Stage) -> None:
    """Carol is added, and somebody who knows it writes at once, before svc_message is told."""
    circle, alice, _, carol = await _circle_and_carol(stage)
    stage.clock.stand_still()
    stage.directory.hold_changes()
    circle.add(carol)
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    stage.clock.go_on()


async def carol_writes_at_once(stage: Stage) -> None:
    """Carol is added and writes at once, before svc_message is told."""
    circle, _, _, carol = await _circle_and_carol(stage)
    stage.clock.stand_still()
    stage.directory.hold_changes()
    circle.add(carol)
    carol.say(circle.group_id, circle.members)
    await carol.acknowledged()
    stage.clock.go_on()


async def joined_before_expansion(stage: Stage) -> None:
    """Carol is added after a message was accepted, before it is given to the members."""
    circle, alice, bob, carol = await _circle_and_carol(stage)
    stage.groups.failing = FOR_EVER
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await until(lambda: stage.groups.failed, "an expansion has failed")
    circle.add(carol)
    await _told(stage, circle)
    stage.groups.failing = 0
    await stage.pass_s()
    await bob.say_and_wait(circle.group_id, circle.members, circle.version)


async def removed_before_expansion(stage: Stage) -> None:
    """Somebody is removed after a message was accepted, and long before it is given to the members."""
    circle, alice, bob, carol = await _circle_and_carol(stage)
    circle.add(carol)
    await _told(stage, circle)
    stage.groups.failing = FOR_EVER
    await alice.say_and_wait(circle.group_id, [bob])
    await until(lambda: stage.groups.failed, "an expansion has failed")
    circle.remove(carol)
    await _told(stage, circle)
    await stage.grow_old()
    stage.groups.failing = 0
    await stage.pass_s()


async def silent_directory(stage: Stage) -> None:
    """Somebody is removed while svc_identity tells of nothing, and another one writes some seconds later."""
    circle, alice, bob, carol = await _circle_and_carol(stage)
    circle.add(carol)
    await _told(stage, circle)
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    stage.directory.fall_silent()
    circle.remove(carol)
    stage.clock.leap(STALE_S)
    await alice.say_and_wait(circle.group_id, [bob])


async def answer_overtaken_by_a_change(stage: Stage) -> None:
    """svc_identity says who is in a group, and the answer arrives after the news that somebody was removed."""
    circle, alice, bob, carol = await _circle_and_carol(stage)
    circle.add(carol)
    await _told(stage, circle)
    stage.directory.after_members.close()
    alice.say(circle.group_id, [bob])
    await stage.directory.after_members.arrived.wait()
    circle.remove(carol)
    await _told(stage, circle)
    stage.directory.after_members.release()
    await alice.acknowledged()
    await stage.live(STALE_S)
    await alice.say_and_wait(circle.group_id, [bob])


async def counts_while_away(stage: Stage) -> None:
    """A message to a group comes further while its sender is away, so that no push can tell."""
    circle, alice, bob = await _circle(stage)
    await bob.hang_up()
    await alice.say_and_wait(circle.group_id, [bob])
    await alice.hang_up()
    await bob.connect(stage.edge)
    await stage.grow_old()
    await alice.connect(stage.edge)
    await stage.live(WORD_WITHIN_S)
    stage.has_ticks = True


async def _circle(stage: Stage) -> tuple[Circle, Phone, Phone]:
    """Makes a group of alice and bob, in which everything works."""
    stage.has_ticks = False
    alice, bob = await stage.people("alice", "bob")
    circle = stage.circle(alice, bob)
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await until(stage.is_settled, "what alice wrote has arrived")
    return circle, alice, bob


async def _circle_and_carol(stage: Stage) -> tuple[Circle, Phone, Phone, Phone]:
    """Makes the same, and has carol there, who is in no group."""
    circle, alice, bob = await _circle(stage)
    (carol,) = await stage.people("carol")
    return circle, alice, bob, carol


async def _fail_and_die(stage: Stage, seconds: float) -> None:
    circle, alice, *_ = await _circle(stage)
    stage.groups.failing = FOR_EVER
    await alice.say_and_wait(circle.group_id, circle.members, circle.version)
    await until(lambda: stage.groups.failed, "an expansion has failed")
    await stage.live(seconds)
    await stage.message.kill()
    stage.groups.failing = 0
    await stage.message.start()
    await stage.pass_s()


async def _told(stage: Stage, circle: Circle) -> None:
    """Waits until svc_message has heard of the last change of a group."""
    heard = stage.ledger.directory.groups.copies._versions
    await until(lambda: heard.get(circle.group_id) == circle.version, "svc_message has heard of the change")
