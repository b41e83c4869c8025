from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from chappe.api.type.v1 import error_reason_pb2
from chappe.runtime import errors

READY_MADE = [
    errors.InvalidFieldError("events[3].change_id", "has 3 bytes, must have 16"),
    errors.MalformedError("the bytes are no SubmitRequest"),
    errors.TooLargeError("the batch has 513 items", limit=512),
    errors.UnauthenticatedPeerError("no certificate"),
    errors.InvalidPrincipalError("two principals"),
    errors.CallerNotAllowedError(method="/x.Y/Z", caller="svc-edge"),
    errors.MethodNotAllowedError("/x.Y/Z"),
    errors.RateLimitedError("write", retry_after_ms=250),
    errors.UnavailableError("postgres", "no connection"),
    errors.DrainingError(),
    errors.InternalError("ab" * 16),
]


def rpc_error(status: status_pb2.Status | bytes | None, code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if status is not None:
        serialised = status if isinstance(status, bytes) else status.SerializeToString()
        trailing = grpc.aio.Metadata((errors.STATUS_KEY, serialised))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details="a detail")


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    kinds = {
        "google.rpc.ErrorInfo": error_details_pb2.ErrorInfo,
        "google.rpc.BadRequest": error_details_pb2.BadRequest,
        "google.rpc.RetryInfo": error_details_pb2.RetryInfo,
    }
    return {d.TypeName().rpartition(".")[2]: kinds[d.TypeName()].FromString(d.value) for d in status.details}


@pytest.mark.parametrize("error", READY_MADE, ids=lambda error: type(error).__name__)
def test_every_error_survives_the_way_over_the_wire(error: errors.ChappeError) -> None:
    status = errors.to_status(error)

    back = errors.from_status(status)

    assert back is not None
    assert (back.code, back.reason, back.message) == (error.code, error.reason, error.message)
    assert dict(back.metadata) == dict(error.metadata)


@pytest.mark.parametrize("error", READY_MADE, ids=lambda error: type(error).__name__)
def test_every_ready_made_reason_is_in_the_contract(error: errors.ChappeError) -> None:
    assert errors.reason_value(error.reason) != error_reason_pb2.ERROR_REASON_UNSPECIFIED


def test_an_invalid_field_names_the_field_for_programs() -> None:
    details = details_of(errors.to_status(errors.InvalidFieldError("a.b", "must be set")))

    assert details["BadRequest"].field_violations[0].field == "a.b"
    assert details["ErrorInfo"].domain == "chappe"


@pytest.mark.parametrize(
    ("error", "delay_ms"),
    [
        (errors.RateLimitedError("write", retry_after_ms=1250), 1250),
        (errors.UnavailableError("valkey", "gone"), errors.DEFAULT_RETRY_MS),
        (errors.DrainingError(), errors.DEFAULT_RETRY_MS),
    ],
)
def test_what_may_be_retried_says_when(error: errors.ChappeError, delay_ms: int) -> None:
    details = details_of(errors.to_status(error))

    assert details["RetryInfo"].retry_delay.ToMilliseconds() == delay_ms


def test_a_retryable_error_without_a_delay_gets_the_usual_one() -> None:
    class FullError(errors.ChappeError):
        code = "RESOURCE_EXHAUSTED"
        reason = "RATE_LIMITED"

    details = details_of(errors.to_status(FullError("full")))

    assert details["RetryInfo"].retry_delay.ToMilliseconds() == errors.DEFAULT_RETRY_MS


def test_a_very_long_message_is_cut() -> None:
    status = errors.to_status(errors.MalformedError("x" * 100_000))

    assert len(status.message) == 1024


def test_a_class_with_an_unknown_reason_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="add it to protos"):
        type("OddError", (errors.ChappeError,), {"code": "NOT_FOUND", "reason": "NO_SUCH_REASON"})


def test_a_class_with_a_forbidden_code_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="services refuse with"):
        type("OddError", (errors.ChappeError,), {"code": "UNKNOWN", "reason": "MALFORMED"})


def test_a_refusal_by_a_peer_keeps_its_code_and_reason() -> None:
    status = errors.to_status(errors.MethodNotAllowedError("/x.Y/Z"))

    error = errors.from_rpc_error(rpc_error(status, grpc.StatusCode.PERMISSION_DENIED))

    assert isinstance(error, errors.RemoteError)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "METHOD_NOT_ALLOWED")
    assert not error.is_about_this_process


def test_a_refusal_of_this_process_is_told_apart() -> None:
    status = errors.to_status(errors.CallerNotAllowedError(method="/x.Y/Z", caller="svc-edge"))

    error = errors.from_rpc_error(rpc_error(status, grpc.StatusCode.PERMISSION_DENIED))

    assert isinstance(error, errors.RemoteError)
    assert error.is_about_this_process


@pytest.mark.parametrize(
    "status", [None, b"\xff\xff\xff", status_pb2.Status(code=5)], ids=["none", "unreadable", "foreign"]
)
def test_an_error_without_our_details_is_an_unavailable_dependency(status: status_pb2.Status | bytes | None) -> None:
    error = errors.from_rpc_error(rpc_error(status, grpc.StatusCode.UNAVAILABLE), dependency="svc_message")

    assert isinstance(error, errors.UnavailableError)
    assert error.metadata["dependency"] == "svc_message"
    assert error.message == "svc_message: it does not answer; try again"
    assert str(error) == "svc_message: it does not answer; try again (UNAVAILABLE: a detail)"


def test_what_an_outage_looks_like_from_inside_is_for_logs_and_sent_to_nobody() -> None:
    error = errors.UnavailableError("redis", detail="Error 111 connecting to 10.0.0.7:6379")

    status = errors.to_status(error)

    assert "10.0.0.7" in str(error)
    assert "10.0.0.7" not in str(status)
    assert status.message == "redis: it does not answer; try again"


def test_names_that_nobody_knows_are_answered_calmly() -> None:
    assert errors.reason_value("NOPE") == error_reason_pb2.ERROR_REASON_UNSPECIFIED
    assert errors.code_name(5) == "NOT_FOUND"
    assert errors.code_name(99) == "UNKNOWN"
