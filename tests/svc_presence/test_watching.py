"""Who is told of whose presence, and what must never be told."""

import pytest

from chappe.runtime.tasks import Tasks
from svc_presence.model import Sight
from tests.svc_presence.scene import ALICE, BOB, CAROL, DAVE, HIDDEN, ONLINE, UNKNOWN, Scene, Screen, offline


async def test_a_watch_is_told_how_it_is_and_then_what_changes(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)

    await scene.watch(screen, 1, ALICE, BOB)
    await scene.bye(BOB)
    ended_ms = scene.clock.now_ms
    await scene.pass_time(10)
    await scene.connect(BOB, 2)

    assert screen.views == {1: [ONLINE, offline(ended_ms), ONLINE]}


async def test_nothing_is_told_twice(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.connect(BOB)
    for _ in range(5):
        await scene.refresh(BOB)
    await scene.connect(BOB, 2)

    assert screen.views == {1: [UNKNOWN, ONLINE]}


async def test_several_viewers_are_told_each_by_its_number(scene: Scene) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    first, second = Screen(), Screen()
    await scene.watch(first, 1, ALICE, BOB)
    await scene.watch(first, 2, CAROL, BOB)
    await scene.watch(second, 1, ALICE, CAROL)

    await scene.connect(BOB)

    assert (first.views, second.views) == ({1: [UNKNOWN, ONLINE], 2: [UNKNOWN, ONLINE]}, {1: [UNKNOWN]})


async def test_a_reconnect_within_a_few_seconds_shows_no_flap(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.bye(BOB)
    await scene.pass_time(3)
    await scene.connect(BOB, 2)
    await scene.pass_time(20)

    assert screen.views == {1: [ONLINE]}


async def test_one_of_two_devices_that_leaves_shows_nothing(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB, 1)
    await scene.connect(BOB, 2)
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.bye(BOB, 1)
    await scene.pass_time(20)

    assert screen.views == {1: [ONLINE]}


async def test_an_edge_that_falls_silent_is_noticed_within_a_minute(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    last_ms = scene.clock.now_ms
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.pass_time(44)
    before = list(screen.views[1])
    await scene.pass_time(15)

    assert before == [ONLINE]
    assert screen.views[1] == [ONLINE, offline(last_ms)]


async def test_whoever_goes_on_being_refreshed_stays_online(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    for _ in range(10):
        await scene.pass_time(20)
        await scene.refresh(BOB)

    assert screen.views == {1: [ONLINE]}


async def test_what_another_replica_was_told_is_seen_within_seconds_of_the_watch(tasks: Tasks, screen: Screen) -> None:
    here = Scene(tasks)
    elsewhere = Scene(tasks, here.clock, here.store)
    here.befriend(ALICE, BOB)
    await here.watch(screen, 1, ALICE, BOB)

    await elsewhere.connect(BOB)
    await here.pass_time(4)

    assert screen.views == {1: [UNKNOWN, ONLINE]}


async def test_what_another_replica_was_told_is_seen_within_a_minute_in_any_case(tasks: Tasks, screen: Screen) -> None:
    here = Scene(tasks)
    elsewhere = Scene(tasks, here.clock, here.store)
    here.befriend(ALICE, BOB)
    await here.watch(screen, 1, ALICE, BOB)
    await here.pass_time(30)

    await elsewhere.connect(BOB)
    for _ in range(4):
        await here.pass_time(18)
        await elsewhere.refresh(BOB)

    assert screen.views == {1: [UNKNOWN, ONLINE]}


async def test_a_watch_that_ended_is_told_nothing_and_leaves_nothing_behind(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    scene.desk.unwatch(screen, 1)
    await scene.connect(BOB)
    await scene.pass_time(70)

    assert screen.views == {1: [UNKNOWN]}
    assert (scene.desk.watching.watch_count, len(scene.desk.watching.people)) == (0, 0)


async def test_an_edge_that_is_gone_is_told_nothing(scene: Scene) -> None:
    scene.befriend(ALICE, BOB)
    gone, stays = Screen(), Screen()
    await scene.watch(gone, 1, ALICE, BOB)
    await scene.watch(stays, 1, ALICE, BOB)

    scene.desk.end(gone)
    await scene.connect(BOB)

    assert (gone.views, stays.views) == ({1: [UNKNOWN]}, {1: [UNKNOWN, ONLINE]})
    assert scene.desk.watching.watch_count == 1


async def test_a_number_that_is_used_again_belongs_to_the_later_watch(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    await scene.watch(screen, 1, ALICE, BOB)
    await scene.watch(screen, 1, ALICE, CAROL)

    await scene.connect(BOB)

    assert screen.views == {1: [UNKNOWN, UNKNOWN]}
    assert len(scene.desk.watching.people) == 1


# Privacy


async def test_somebody_who_hides_looks_like_nobody(scene: Scene, screen: Screen) -> None:
    await scene.connect(BOB)

    await scene.watch(screen, 1, ALICE, BOB)
    await scene.watch(screen, 2, ALICE, DAVE)
    await scene.bye(BOB)
    await scene.pass_time(70)

    assert screen.views == {1: [HIDDEN], 2: [HIDDEN]}


async def test_whoever_may_see_who_is_online_but_not_when_it_was_sees_no_time(scene: Scene, screen: Screen) -> None:
    scene.directory.allow(ALICE, BOB, Sight.ONLINE)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.bye(BOB)
    await scene.pass_time(10)

    assert screen.views == {1: [ONLINE, offline()]}


async def test_people_see_themselves(scene: Scene, screen: Screen) -> None:
    await scene.connect(ALICE)

    await scene.watch(screen, 1, ALICE, ALICE)

    assert screen.views == {1: [ONLINE]}


@pytest.mark.parametrize("first", [Sight.NOTHING, Sight.ONLINE, Sight.LAST_SEEN])
@pytest.mark.parametrize("then", [Sight.NOTHING, Sight.ONLINE, Sight.LAST_SEEN])
async def test_a_change_of_what_may_be_seen_is_told_at_once(
    scene: Scene, screen: Screen, first: Sight, then: Sight
) -> None:
    await scene.connect(BOB)
    await scene.bye(BOB)
    seen_ms = scene.clock.now_ms
    await scene.pass_time(10)
    shown = {Sight.NOTHING: HIDDEN, Sight.ONLINE: offline(), Sight.LAST_SEEN: offline(seen_ms)}
    scene.directory.allow(ALICE, BOB, first)
    await scene.watch(screen, 1, ALICE, BOB)

    scene.directory.allow(ALICE, BOB, then)
    await scene.settle()

    assert screen.views[1] == [shown[first], *([shown[then]] if first is not then else [])]


async def test_a_change_of_the_viewer_is_told_too(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)
    scene.directory.allowed[ALICE, BOB] = Sight.NOTHING

    scene.desk.user_changed(ALICE)
    await scene.settle()

    assert screen.views == {1: [ONLINE, HIDDEN]}


async def test_an_answer_that_a_change_overtook_does_not_count(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    gate = scene.directory
    answers = [[Sight.LAST_SEEN], [Sight.NOTHING]]

    async def sights(pairs: object) -> list[Sight]:
        if len(answers) == 2:
            scene.desk.user_changed(BOB)
        return answers.pop(0)

    gate.sight = lambda *_: None  # type: ignore[method-assign]  # nothing is in lease
    gate.sights = sights  # type: ignore[method-assign]  # the change comes while the question is open

    await scene.watch(screen, 1, ALICE, BOB)

    assert screen.views == {1: [HIDDEN]}


async def test_without_the_directory_nobody_can_say_and_with_it_again_all_is_told(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)

    scene.directory.stop()
    await scene.pass_time(3)
    await scene.watch(screen, 2, ALICE, CAROL)
    await scene.bye(BOB)
    await scene.pass_time(10)
    meanwhile = {number: list(views) for number, views in screen.views.items()}
    scene.directory.start()
    await scene.pass_time(2)

    assert meanwhile == {1: [ONLINE, UNKNOWN], 2: [UNKNOWN]}
    assert screen.views[1][-1] == offline(scene.store._last_seen[BOB])
    assert screen.views[2] == [UNKNOWN, HIDDEN]


async def test_a_late_heartbeat_shows_no_flap_and_nothing_is_told_before_it(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    await scene.connect(BOB)
    await scene.connect(CAROL)
    await scene.watch(screen, 1, ALICE, BOB)
    await scene.watch(screen, 2, ALICE, CAROL)
    await scene.bye(CAROL)
    await scene.pass_time(4)

    scene.directory.is_fresh = False
    await scene.pass_time(1.5)
    meanwhile = {number: list(views) for number, views in screen.views.items()}
    scene.directory.is_fresh = True
    await scene.pass_time(0.5)

    assert meanwhile == {1: [ONLINE], 2: [ONLINE]}
    assert screen.views == {1: [ONLINE], 2: [ONLINE, offline(scene.store._last_seen[CAROL])]}


# The store


async def test_a_store_that_does_not_answer_makes_people_unknown_never_offline(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)
    scene.store.is_down = True

    await scene.watch(screen, 2, ALICE, CAROL)
    await scene.pass_time(60)
    scene.store.is_down = False
    await scene.pass_time(2)

    assert screen.views[1][:2] == [ONLINE, UNKNOWN]
    assert screen.views[2] == [UNKNOWN]
    assert screen.views[1][2:] == [offline(scene.store._last_seen[BOB])]


async def test_a_store_that_fails_by_a_bug_makes_people_unknown_and_is_asked_again(
    scene: Scene, screen: Screen
) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)
    scene.store.has_bug = True

    await scene.pass_time(60)
    scene.store.has_bug = False
    await scene.pass_time(2)

    assert screen.views == {1: [ONLINE, UNKNOWN, offline(scene.store._last_seen[BOB])]}


async def test_sessions_that_could_not_be_written_make_their_people_unknown(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.watch(screen, 1, ALICE, BOB)
    await scene.pass_time(5)
    scene.store.is_down = True

    with pytest.raises(Exception, match="stopped by the test"):
        await scene.refresh(BOB)
    scene.store.is_down = False
    await scene.refresh(BOB)

    assert screen.views == {1: [ONLINE, UNKNOWN, ONLINE]}


async def test_a_store_that_lost_its_memory_makes_nobody_offline_and_is_rebuilt(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB, CAROL)
    await scene.connect(BOB)
    await scene.connect(CAROL)
    await scene.watch(screen, 1, ALICE, BOB)

    scene.store.forget_all()
    await scene.watch(screen, 2, ALICE, CAROL)
    await scene.pass_time(19)
    await scene.refresh(BOB)
    await scene.refresh(CAROL)
    await scene.pass_time(19)

    assert screen.views == {1: [ONLINE], 2: [UNKNOWN, ONLINE]}


async def test_a_sign_of_life_that_comes_while_the_store_is_asked_counts(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    await scene.connect(BOB)
    await scene.bye(BOB)
    await scene.pass_time(60)
    scene.store.may_read.clear()
    await scene.watch(screen, 1, ALICE, BOB)

    await scene.connect(BOB, 2)
    scene.store.may_read.set()
    await scene.settle()

    assert screen.views == {1: [ONLINE]}


async def test_whoever_is_watched_no_more_when_the_store_answers_is_passed_over(scene: Scene, screen: Screen) -> None:
    scene.befriend(ALICE, BOB)
    scene.store.may_read.clear()
    await scene.watch(screen, 1, ALICE, BOB)

    scene.desk.unwatch(screen, 1)
    scene.store.may_read.set()
    await scene.settle()

    assert screen.views == {}
    assert len(scene.desk.watching.people) == 0


async def test_many_watches_are_asked_about_together_and_one_person_once(scene: Scene, screen: Screen) -> None:
    for number in range(400):
        scene.desk.watching.watch(screen, number + 1, ALICE, [BOB, CAROL][number % 2])
    await scene.settle()

    assert scene.store.reads == [2]
    assert len(screen.views) == 400
