"""Calls are charged to budgets by their class in the contract; what is too much is refused and the session lives."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.api.type.v1 import access_pb2, error_reason_pb2
from svc_edge.adapters.bridge_grpc import GrpcBridge
from svc_edge.model import RateClass
from svc_edge.protocol.budget import BUDGET_NAMES, Bucket, CallBudgets, CallRates, Rate
from tests.svc_edge.client import Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeMesh, Person
from tests.svc_edge.test_app import LIST_MESSAGES, START_VERIFICATION, anonymous, call

Connect = Callable[..., Client]
READ = history_service_pb2.ListMessagesRequest(peer_user_id=b"p" * 16).SerializeToString()
RATES = CallRates(Rate(3, 2.0), Rate(2, 1.0), Rate(1, 0.1))


@pytest.fixture
def limits() -> dict[str, Any]:
    return {"read_call_burst": 3, "read_call_rate": 0.5, "sensitive_call_burst": 1, "sensitive_call_rate": 0.2}


async def results(client: Client, *calls: client_frame_pb2.Call) -> list[Any]:
    """Makes calls one after the other; returns their results."""
    found = []
    for one in calls:
        client.send(call=one)
        found.append(await client.expect("call_result"))
    return found


async def test_calls_beyond_the_budget_are_refused_with_the_time_to_wait_and_the_connection_lives(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    *taken, refused = await results(client, *[call(LIST_MESSAGES, READ, number) for number in range(4)])
    edge.clock.leap(refused.error.retry_after_ms / 1000)
    (again,) = await results(client, call(LIST_MESSAGES, READ, 9))

    assert [one.WhichOneof("outcome") for one in (*taken, again)] == ["payload"] * 4
    assert refused.error.reason == error_reason_pb2.ERROR_REASON_RATE_LIMITED
    assert refused.error.metadata["budget"] == BUDGET_NAMES[RateClass.READ]
    assert 1500 < refused.error.retry_after_ms <= 2000
    assert await client.ping()


async def test_what_is_sensitive_has_a_budget_of_its_own_also_without_a_user(connect: Connect, edge: Edge) -> None:
    client = connect()
    await anonymous(client)
    request = b"\x0a\x0d+390101234567"

    first, second, read = await results(
        client,
        call(START_VERIFICATION, request, 1),
        call(START_VERIFICATION, request, 2),
        call("nowhere.Service/Method", b"", 3),
    )

    assert first.WhichOneof("outcome") == "payload"
    assert second.error.metadata["budget"] == BUDGET_NAMES[RateClass.SENSITIVE]
    assert read.error.reason == error_reason_pb2.ERROR_REASON_METHOD_NOT_ALLOWED


async def test_budgets_belong_to_a_session_and_what_they_refuse_is_counted(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    for _ in range(2):
        client = connect()
        await client.sign_in(mesh, Person.new())
        found = await results(client, *[call(LIST_MESSAGES, READ, number) for number in range(5)])
        assert sum(one.WhichOneof("outcome") == "error" for one in found) == 2

    assert 'chappe_edge_refused_calls_total{budget="reading calls"} 4' in edge.app.metrics.render()


async def test_83_a_budget_goes_on_to_count_while_what_is_called_is_away(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    mesh.ledger_is_up = False

    *taken, refused = await results(client, *[call(LIST_MESSAGES, READ, number) for number in range(4)])

    reasons = [one.error.reason for one in (*taken, refused)]
    away, too_much = error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE, error_reason_pb2.ERROR_REASON_RATE_LIMITED
    assert reasons == [away, away, away, too_much]


def test_the_contract_says_what_a_call_is_charged_to() -> None:
    bridge = GrpcBridge({"message": None, "identity": None})  # type: ignore[dict-item]  # nothing is called

    classes = [
        bridge.rate_class(LIST_MESSAGES),
        bridge.rate_class("chappe.api.identity.v1.BlockService/BlockUser"),
        bridge.rate_class("/" + START_VERIFICATION),
        bridge.rate_class("nowhere.Service/Method"),
    ]

    assert classes == [RateClass.READ, RateClass.WRITE, RateClass.SENSITIVE, RateClass.READ]
    assert {f"RATE_CLASS_{one.name}": one.value for one in RateClass} == {
        name: value for name, value in access_pb2.RateClass.items() if value
    }


def test_each_class_has_a_bucket_of_its_own() -> None:
    budgets = CallBudgets(RATES)

    spent = [budgets.spend(one, 0.0) for one in (RateClass.SENSITIVE, RateClass.SENSITIVE, RateClass.READ)]

    assert spent == [0, 10_000, 0]


@given(
    burst=st.integers(1, 20),
    per_s=st.floats(0.01, 50.0),
    pauses=st.lists(st.floats(0.0, 5.0), max_size=60),
)
def test_no_more_is_spent_than_the_burst_and_what_has_flowed_in_since(
    burst: int, per_s: float, pauses: list[float]
) -> None:
    bucket, now_s, spent = Bucket(Rate(burst, per_s), 0.0), 0.0, 0

    for pause in pauses:
        now_s += pause
        spent += bucket.spend(now_s) == 0

        assert spent <= burst + now_s * per_s + 1e-6


@given(burst=st.integers(1, 5), per_s=st.floats(0.01, 50.0), ahead_s=st.floats(0.0, 100.0))
def test_whoever_waits_as_long_as_told_is_let_through(burst: int, per_s: float, ahead_s: float) -> None:
    bucket = Bucket(Rate(burst, per_s), 0.0)
    now_s = ahead_s
    while not (wait_ms := bucket.spend(now_s)):
        pass

    assert bucket.spend(now_s + wait_ms / 1000 + 1e-9) == 0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = Bucket(Rate(1, 1.0), 100.0)

    assert [bucket.spend(100.0), bucket.spend(50.0) > 0] == [0, True]


@given(burst=st.integers(1, 20), per_s=st.floats(0.01, 50.0), pauses=st.lists(st.floats(0.0, 5.0), max_size=30))
def test_what_is_taken_by_the_handful_is_what_would_be_spent_one_by_one(
    burst: int, per_s: float, pauses: list[float]
) -> None:
    by_handful, one_by_one, now_s = Bucket(Rate(burst, per_s), 0.0), Bucket(Rate(burst, per_s), 0.0), 0.0

    for pause in pauses:
        now_s += pause
        spent = 0
        while not one_by_one.spend(now_s):
            spent += 1

        assert by_handful.take(now_s) == spent
