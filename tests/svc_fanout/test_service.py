"""The rules of the carrier, over ports that do what a test says."""

import pytest

from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import UnavailableError
from svc_fanout.model import Delivery
from svc_fanout.ports import MAX_LOCATED_USERS
from svc_fanout.service import FanoutService
from tests.svc_fanout.fakes import FakeEdges, FakeRegistry, hint, route, user


async def carry(service: FanoutService, *hints: object) -> None:
    given = list(hints)
    service.push(given, await service.locate(given))  # type: ignore[arg-type]  # hints


async def test_an_item_reaches_every_device_of_its_users_in_one_batch_for_each_edge() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(route(1, "a:1"), route(1, "b:1", device_id=2, session_id=12), route(2, "a:1"))

    await carry(FanoutService(registry, edges, SystemClock()), hint(b"one", 1, 2), hint(b"two", 2, 3))

    pushed = {
        edge_id: [(one.hint.item, one.route.session_id) for one in batch] for edge_id, batch in edges.pushed.entries
    }
    assert pushed == {"a:1": [(b"one", 1), (b"one", 2), (b"two", 2)], "b:1": [(b"one", 12)]}
    assert edges.known == {"a:1", "b:1"}


async def test_every_user_of_a_round_is_asked_for_once() -> None:
    registry = FakeRegistry()

    await carry(FanoutService(registry, FakeEdges(), SystemClock()), hint(b"one", 1, 2), hint(b"two", 2, 1, 3))

    assert registry.questions.entries == [([user(1), user(2), user(3)], [])]


async def test_more_users_than_a_question_may_name_are_asked_for_in_several() -> None:
    edges = FakeEdges()
    count = MAX_LOCATED_USERS * 2 + 1
    registry = FakeRegistry(route(1), route(count))

    await carry(FanoutService(registry, edges, SystemClock()), hint(b"one", *range(1, count + 1)))

    assert [len(users) for users, _ in registry.questions.entries] == [MAX_LOCATED_USERS, MAX_LOCATED_USERS, 1]
    assert edges.items() == [(b"one", 1), (b"one", count)]


async def test_the_device_that_caused_an_item_is_not_told_but_its_owners_others_are() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(
        route(1), route(1, device_id=2, session_id=12), route(2), route(2, device_id=2, session_id=22)
    )

    await carry(FanoutService(registry, edges, SystemClock()), hint(b"one", 1, 2, sender=1, origin=2))

    assert edges.items() == [(b"one", 1), (b"one", 2), (b"one", 22)]


async def test_a_returned_delivery_is_tried_once_more_for_its_device_after_naming_its_route_gone() -> None:
    edges = FakeEdges()
    old, other = route(1), route(1, device_id=2, session_id=12)
    registry = FakeRegistry(old, other)
    service = FanoutService(registry, edges, SystemClock())

    again = service.returned([Delivery(hint(b"one", 1), old)])
    registry.routes.append(route(1, session_id=13))
    await carry(service, *again)

    assert registry.questions.entries == [([user(1)], [old])]
    assert edges.items() == [(b"one", 13)]


async def test_a_delivery_that_returns_twice_is_given_up_and_its_route_still_named() -> None:
    registry = FakeRegistry()
    service = FanoutService(registry, FakeEdges(), SystemClock())
    (again,) = service.returned([Delivery(hint(b"one", 1), route(1))])

    hints = service.returned([Delivery(again, route(1, session_id=13))])
    await service.locate([])

    assert hints == []
    assert registry.questions.entries[0][1] == [route(1), route(1, session_id=13)]


async def test_a_second_attempt_does_not_give_credit_twice(capsys: pytest.CaptureFixture[str]) -> None:
    (again,) = FanoutService(FakeRegistry(), FakeEdges(), SystemClock()).returned([Delivery(hint(b"one", 1), route(1))])

    again.grant(1)

    assert capsys.readouterr().out == ""


async def test_gone_routes_are_named_once() -> None:
    registry = FakeRegistry()
    service = FanoutService(registry, FakeEdges(), SystemClock())
    service.returned([Delivery(hint(b"one", 1), route(1)), Delivery(hint(b"two", 1), route(1))])

    await service.locate([])
    await service.locate([])

    assert [gone for _, gone in registry.questions.entries] == [[route(1)]]


async def test_a_registry_that_is_down_is_the_callers_business() -> None:
    registry = FakeRegistry()
    registry.is_down = True
    service = FanoutService(registry, FakeEdges(), SystemClock())

    with pytest.raises(UnavailableError):
        await service.locate([hint(b"one", 1)])
    with pytest.raises(UnavailableError):
        await service.can_locate(user(1))


async def test_who_was_found_just_now_is_not_asked_for_again() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(route(1), route(2))
    service = FanoutService(registry, edges, SystemClock())

    await carry(service, hint(b"one", 1))
    await carry(service, hint(b"two", 1, 2))

    assert [users for users, _ in registry.questions.entries] == [[user(1)], [user(2)]]
    assert edges.items() == [(b"one", 1), (b"two", 1), (b"two", 2)]
    assert service.recalled_users == 1


async def test_who_arrived_somewhere_is_asked_for_again() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(route(1))
    service = FanoutService(registry, edges, SystemClock())
    await carry(service, hint(b"one", 1))

    registry.routes.append(route(1, device_id=2, session_id=12))
    service.arrived([user(1)])
    await carry(service, hint(b"two", 1))

    assert edges.items() == [(b"one", 1), (b"two", 1), (b"two", 12)]


async def test_nobody_is_remembered_once_arrivals_may_have_gone_unheard() -> None:
    registry = FakeRegistry(route(1))
    service = FanoutService(registry, FakeEdges(), SystemClock())
    await carry(service, hint(b"one", 1))

    service.lost_touch()
    await carry(service, hint(b"two", 1))

    assert len(registry.questions.entries) == 2


async def test_whoever_comes_to_an_edge_that_cannot_tell_is_found_by_the_next_item() -> None:
    edges = FakeEdges()
    edges.is_in_touch = False
    registry = FakeRegistry()
    service = FanoutService(registry, edges, SystemClock())
    await carry(service, hint(b"one", 1))

    registry.routes.append(route(1))
    await carry(service, hint(b"two", 1))

    assert edges.items() == [(b"two", 1)]


async def test_the_route_to_an_edge_that_does_not_answer_is_not_named_gone_and_is_asked_for_again() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(route(1))
    service = FanoutService(registry, edges, SystemClock())
    await carry(service, hint(b"one", 1))

    registry.routes = [route(1, "b:1", session_id=13)]
    await carry(service, *service.unreachable([Delivery(hint(b"two", 1), route(1))]))

    assert registry.questions.entries[1] == ([user(1)], [])
    assert edges.items() == [(b"one", 1), (b"two", 13)]


async def test_who_was_not_where_it_was_remembered_is_asked_for_again() -> None:
    edges = FakeEdges()
    registry = FakeRegistry(route(1))
    service = FanoutService(registry, edges, SystemClock())
    await carry(service, hint(b"one", 1))

    registry.later = [route(1, "b:1", session_id=13)]
    await carry(service, *service.returned([Delivery(hint(b"two", 1), route(1))]))

    assert registry.questions.entries[1] == ([user(1)], [route(1)])
    assert edges.items() == [(b"one", 1), (b"two", 13)]
