"""What those are told who ask once."""

import pytest

from chappe.runtime.errors import UnavailableError
from svc_presence.errors import NotInConversationError
from svc_presence.model import Sight
from tests.svc_presence.scene import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    DIRECT,
    GROUP,
    HIDDEN,
    IN_GROUP,
    ONLINE,
    UNKNOWN,
    Scene,
    offline,
)


async def test_people_are_answered_for_in_order(scene: Scene) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    await scene.connect(BOB)
    await scene.connect(CAROL)
    await scene.bye(CAROL)

    views = await scene.answers.presence_of(ALICE, [CAROL, DAVE, BOB, ALICE, CAROL])

    left = offline(scene.clock.now_ms)
    assert views == [left, HIDDEN, ONLINE, UNKNOWN, left]


async def test_when_somebody_was_seen_is_for_those_who_may_know_it(scene: Scene) -> None:
    scene.directory.allow(ALICE, BOB, Sight.ONLINE)
    await scene.connect(BOB)
    await scene.bye(BOB)

    assert await scene.answers.presence_of(ALICE, [BOB]) == [offline()]


async def test_64_somebody_who_hides_is_not_told_from_nobody_and_not_even_looked_up(scene: Scene) -> None:
    await scene.connect(BOB)
    scene.store.reads.clear()

    views = await scene.answers.presence_of(ALICE, [BOB, DAVE])
    scene.store.is_down = True
    without_store = await scene.answers.presence_of(ALICE, [BOB, DAVE])

    assert views == without_store == [HIDDEN, HIDDEN]
    assert scene.store.reads == []


async def test_64_without_the_directory_everybody_is_unknown(scene: Scene) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    scene.directory.stop()

    assert await scene.answers.presence_of(ALICE, [BOB, DAVE]) == [UNKNOWN, UNKNOWN]


async def test_without_the_store_people_are_unknown_and_not_offline(scene: Scene) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    scene.store.is_down = True

    assert await scene.answers.presence_of(ALICE, [BOB]) == [UNKNOWN]


async def test_who_is_typing_is_listed_for_members(scene: Scene) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    scene.directory.join(GROUP, ALICE, BOB, CAROL)
    for user_id in (CAROL, ALICE, BOB):
        await scene.type(user_id)

    typists = await scene.answers.typing_in(ALICE, IN_GROUP)

    assert [typist.user_id for typist in typists] == [BOB, CAROL]


async def test_67_who_is_typing_is_not_listed_for_strangers(scene: Scene) -> None:
    scene.directory.join(GROUP, BOB)
    await scene.type(BOB)

    with pytest.raises(NotInConversationError):
        await scene.answers.typing_in(ALICE, IN_GROUP)


async def test_who_has_left_or_is_blocked_is_not_listed(scene: Scene) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    scene.directory.join(GROUP, ALICE, BOB, CAROL)
    await scene.type(BOB)
    await scene.type(CAROL)
    scene.directory.leave(GROUP, CAROL)
    scene.directory.block(BOB, ALICE)

    assert await scene.answers.typing_in(ALICE, IN_GROUP) == []


async def test_in_a_direct_conversation_the_other_one_is_listed(scene: Scene) -> None:
    scene.befriend(ALICE, BOB)
    await scene.type(BOB, DIRECT)
    await scene.type(ALICE, DIRECT)

    assert [typist.user_id for typist in await scene.answers.typing_in(ALICE, DIRECT)] == [BOB]


async def test_without_the_store_or_the_directory_the_question_is_refused(scene: Scene) -> None:
    scene.directory.join(GROUP, ALICE)
    scene.store.is_down = True
    with pytest.raises(UnavailableError, match="redis"):
        await scene.answers.typing_in(ALICE, IN_GROUP)

    scene.directory.stop()
    with pytest.raises(UnavailableError, match="svc_identity"):
        await scene.answers.typing_in(ALICE, IN_GROUP)
