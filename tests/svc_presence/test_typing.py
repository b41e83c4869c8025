"""Who is shown who is typing, and who never is."""

import pytest

from chappe.runtime.tasks import Tasks
from svc_presence.model import Conversation, Lasting, Sight, Typing, TypingKind, Typist, UserId
from tests.svc_presence.scene import ALICE, BOB, CAROL, DAVE, DIRECT, GROUP, IN_GROUP, Scene, Screen


@pytest.fixture
def group(scene: Scene) -> Scene:
    """Returns a scene in which three friends are in a group."""
    scene.befriend(ALICE, BOB, CAROL)
    scene.directory.join(GROUP, ALICE, BOB, CAROL)
    return scene


async def test_typing_is_shown_once_and_ends_five_seconds_after_it_was_said_last(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)

    await group.type(BOB)
    for _ in range(3):
        await group.pass_time(2)
        await group.type(BOB)
    still = list(screen.typing[1])
    await group.pass_time(4.5)
    before = list(screen.typing[1])
    await group.pass_time(0.75)

    assert still == before == [[BOB]]
    assert screen.typing == {1: [[BOB], []]}


async def test_typing_that_is_over_ends_at_once(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.type(BOB)

    await group.type(BOB, is_over=True)
    await group.type(BOB, is_over=True)

    assert screen.typing == {1: [[BOB], []]}


async def test_everybody_who_is_typing_is_named_in_the_order_in_which_they_began(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)

    await group.type(CAROL)
    await group.type(BOB)
    await group.type(CAROL, is_over=True)

    assert screen.typing == {1: [[CAROL], [CAROL, BOB], [BOB]]}


async def test_nobody_is_shown_typing_to_itself(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.open(screen, 2, BOB)

    await group.type(ALICE)

    assert screen.typing == {2: [[ALICE]]}


async def test_a_recording_is_told_from_text(group: Scene) -> None:
    told: list[tuple[Typist, ...]] = []

    class Ears(Screen):
        def tell_typing(self, number: int, typists: tuple[Typist, ...]) -> None:
            told.append(typists)

    await group.open(Ears(), 1, ALICE)
    await group.type(BOB)
    await group.type(BOB, kind=TypingKind.RECORDING)

    assert told == [(Typist(BOB, TypingKind.TEXT),), (Typist(BOB, TypingKind.RECORDING),)]


async def test_whoever_opens_late_is_told_who_is_typing(group: Scene, screen: Screen) -> None:
    await group.type(BOB)

    await group.open(screen, 1, ALICE)
    await group.pass_time(5.25)

    assert screen.typing == {1: [[BOB], []]}


async def test_whoever_opens_late_on_another_replica_is_told_too(tasks: Tasks, screen: Screen) -> None:
    here = Scene(tasks)
    elsewhere = Scene(tasks, here.clock, here.store)
    for scene in (here, elsewhere):
        scene.befriend(ALICE, BOB)
    await elsewhere.type(BOB, DIRECT)

    await here.open(screen, 1, ALICE, DIRECT)

    assert screen.typing == {1: [[BOB]]}


async def test_what_is_closed_is_told_nothing_and_leaves_nothing_behind(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.type(BOB)

    group.desk.unwatch(screen, 1)
    await group.pass_time(6)

    assert screen.typing == {1: [[BOB]]}
    assert group.desk.rooms.opening_count == 0
    assert len(group.desk.rooms._rooms) == 0
    assert len(group.desk.rooms._rooms._deadlines) == 0


async def test_an_edge_that_is_gone_is_told_nothing(group: Scene) -> None:
    gone, stays = Screen(), Screen()
    await group.open(gone, 1, ALICE)
    await group.open(stays, 1, ALICE)

    group.desk.end(gone)
    await group.type(BOB)

    assert (gone.typing, stays.typing) == ({}, {1: [[BOB]]})


# Who must not


async def test_strangers_to_a_group_neither_see_nor_show_typing(group: Scene, screen: Screen) -> None:
    group.befriend(ALICE, BOB, DAVE)
    await group.open(screen, 1, DAVE)
    await group.open(screen, 2, ALICE)

    await group.type(BOB)
    await group.type(DAVE)

    assert screen.typing == {2: [[BOB]]}
    assert await listed(group) == [BOB]


async def test_whoever_leaves_a_group_sees_and_shows_nothing_any_more(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.open(screen, 2, CAROL)
    await group.type(BOB)
    await group.type(CAROL)

    group.directory.leave(GROUP, CAROL)
    await group.settle()

    assert screen.typing == {1: [[BOB], [BOB, CAROL], [BOB]], 2: [[BOB], []]}


async def test_whoever_joins_a_group_that_it_has_open_sees_what_goes_on(group: Scene, screen: Screen) -> None:
    group.befriend(BOB, DAVE)
    await group.open(screen, 1, DAVE)
    await group.type(BOB)

    group.directory.join(GROUP, DAVE)
    await group.settle()

    assert screen.typing == {1: [[BOB]]}


@pytest.mark.parametrize("conversation", [DIRECT, IN_GROUP])
@pytest.mark.parametrize("pair", [(ALICE, BOB), (BOB, ALICE)])
async def test_blocked_people_see_and_show_nothing(
    group: Scene, screen: Screen, conversation: Conversation, pair: tuple[UserId, UserId]
) -> None:
    group.directory.block(*pair)
    await group.open(screen, 1, ALICE, conversation)
    await group.open(screen, 2, BOB, conversation)

    await group.type(BOB, conversation)
    await group.type(ALICE, conversation)

    assert screen.typing == {}


async def test_a_block_hides_typing_at_once_and_its_end_shows_it(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE, DIRECT)
    await group.type(BOB, DIRECT)

    group.directory.block(BOB, ALICE)
    await group.settle()
    group.directory.unblock(BOB, ALICE)
    await group.settle()

    assert screen.typing == {1: [[BOB], [], [BOB]]}


async def test_typing_is_said_to_the_conversation_whoever_may_see_that_one_is_online(
    group: Scene, screen: Screen
) -> None:
    group.directory.allow(ALICE, BOB, Sight.NOTHING)
    await group.open(screen, 1, ALICE, DIRECT)

    await group.type(BOB, DIRECT)

    assert screen.typing == {1: [[BOB]]}


async def test_without_the_directory_nobody_is_shown_typing(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.open(screen, 2, ALICE, DIRECT)
    await group.type(BOB)
    await group.type(BOB, DIRECT)

    group.directory.stop()
    await group.pass_time(1.5)
    waiting = {number: list(shown) for number, shown in screen.typing.items()}
    await group.pass_time(1)
    await group.type(CAROL)
    await group.type(BOB, DIRECT)
    hidden = {number: list(shown) for number, shown in screen.typing.items()}
    group.directory.start()
    await group.pass_time(1.5)

    assert waiting == {1: [[BOB]], 2: [[BOB]]}
    assert hidden == {1: [[BOB], []], 2: [[BOB], []]}
    assert screen.typing == {1: [[BOB], [], [BOB]], 2: [[BOB], [], [BOB]]}


async def test_while_a_heartbeat_is_late_nobody_new_is_shown_typing(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE, DIRECT)
    group.directory.is_fresh = False
    await group.pass_time(0.5)

    await group.type(BOB, DIRECT)
    meanwhile = dict(screen.typing)
    group.directory.is_fresh = True
    await group.pass_time(1.5)

    assert (meanwhile, screen.typing) == ({}, {1: [[BOB]]})


# The store


async def test_what_is_known_here_is_not_taken_from_the_store_for_one_more_viewer(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.type(BOB, kind=TypingKind.RECORDING)
    await group.store.write_typing([Typing(BOB, IN_GROUP, TypingKind.TEXT)])

    await group.open(screen, 2, CAROL)

    assert group.desk.rooms._rooms.typists(IN_GROUP.conversation_id) == {BOB: TypingKind.RECORDING}
    assert screen.typing == {1: [[BOB]], 2: [[BOB]]}


async def test_without_the_store_typing_is_shown_to_those_who_are_there(group: Scene, screen: Screen) -> None:
    group.store.is_down = True

    await group.open(screen, 1, ALICE)
    await group.type(BOB)

    assert screen.typing == {1: [[BOB]]}


async def test_what_the_store_says_does_not_bring_back_what_is_over(group: Scene, screen: Screen) -> None:
    await group.open(screen, 1, ALICE)
    await group.type(BOB)

    group.store.is_down = True
    await group.type(BOB, is_over=True)

    assert screen.typing == {1: [[BOB], []]}


async def listed(scene: Scene) -> list[UserId]:
    lasting: list[Lasting] = (await scene.store.read_typing([IN_GROUP.conversation_id]))[0]
    return [one.typist.user_id for one in lasting]
