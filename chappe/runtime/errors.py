"""How a service says no: one hierarchy, its way onto the wire as rich gRPC statuses, and the way back."""

from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from chappe.api.type.v1 import error_reason_pb2

DOMAIN = "chappe"
"""The domain of every google.rpc.ErrorInfo that the mesh sends."""

STATUS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries a serialised google.rpc.Status."""

ALLOWED_CODES = frozenset(
    {
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "ABORTED",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
    }
)
"""The codes with which a service may refuse; INTERNAL is the interceptor's alone, for bugs."""

DEFAULT_RETRY_MS = 1000
_MAX_MESSAGE_CHARACTERS = 1024
_PREFIX = "ERROR_REASON_"
_NO_METADATA: Mapping[str, str] = MappingProxyType({})
# What a peer answers when this process, not its caller, is set up wrongly.
_MESH_REASONS = frozenset({"UNAUTHENTICATED_PEER", "CALLER_NOT_ALLOWED", "INVALID_PRINCIPAL", "INTERNAL"})


class ChappeError(Exception):
    """Refuses a call; subclasses fix the code and the reason, instances say what was wrong and what to do."""

    code: str = "INTERNAL"
    """The name of the gRPC status code."""
    reason: str = "INTERNAL"
    """The name of the ErrorReason without its prefix."""

    def __init__(self, message: str, *, metadata: Mapping[str, str] = _NO_METADATA, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        self.retry_after_ms = retry_after_ms

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.code not in ALLOWED_CODES and cls.code != "INTERNAL":
            raise TypeError(f"{cls.__name__}.code is {cls.code!r}: services refuse with {sorted(ALLOWED_CODES)}")
        if _PREFIX + cls.reason not in error_reason_pb2.ErrorReason.keys():  # noqa: SIM118 - an enum wrapper is no dict
            raise TypeError(f"{cls.__name__}.reason is {cls.reason!r}: add it to protos/.../error_reason.proto first")


class InvalidFieldError(ChappeError):
    """Refuses a field that breaks its limit or its format."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", metadata={"field": field})
        self.field = field


class MalformedError(ChappeError):
    """Refuses bytes that are not a message of the contract."""

    code = "INVALID_ARGUMENT"
    reason = "MALFORMED"


class TooLargeError(ChappeError):
    """Refuses a frame, message or batch above its limit."""

    code = "INVALID_ARGUMENT"
    reason = "TOO_LARGE"

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message, metadata={"limit": str(limit)})


class UnauthenticatedPeerError(ChappeError):
    """Refuses a peer without a certificate that names a service of the trust domain."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED_PEER"


class InvalidPrincipalError(ChappeError):
    """Refuses a call whose end user is missing, doubled, unreadable, or asserted by a service that may not."""

    code = "UNAUTHENTICATED"
    reason = "INVALID_PRINCIPAL"


class CallerNotAllowedError(ChappeError):
    """Refuses a caller that the contract does not let in."""

    code = "PERMISSION_DENIED"
    reason = "CALLER_NOT_ALLOWED"

    def __init__(self, *, method: str, caller: str) -> None:
        super().__init__(
            f"{caller} may not call {method}: the method's access option does not name it",
            metadata={"method": method, "caller": caller},
        )


class MethodNotAllowedError(ChappeError):
    """Refuses a method that does not exist or is not open to clients."""

    code = "PERMISSION_DENIED"
    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} does not exist or is not open to clients", metadata={"method": method})


class RateLimitedError(ChappeError):
    """Refuses because a budget is used up; says when to come back."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"

    def __init__(self, budget: str, *, retry_after_ms: int) -> None:
        super().__init__(
            f"the budget {budget!r} is used up, come back in {retry_after_ms} ms",
            metadata={"budget": budget},
            retry_after_ms=retry_after_ms,
        )


class UnavailableError(ChappeError):
    """Says that a store or service that is needed does not answer; nothing was decided, so try again.

    Its message reaches the client that waits. What an outage looks like from inside, addresses above all, is `detail`:
    it is part of the text of the exception, which is for logs, and sent to nobody.
    """

    code = "UNAVAILABLE"
    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(
        self,
        dependency: str,
        message: str = "it does not answer; try again",
        *,
        detail: str = "",
        retry_after_ms: int = DEFAULT_RETRY_MS,
    ) -> None:
        super().__init__(f"{dependency}: {message}", metadata={"dependency": dependency}, retry_after_ms=retry_after_ms)
        self.dependency = dependency
        self.detail = detail

    def __str__(self) -> str:
        """Returns all that is known, for logs."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


class DrainingError(ChappeError):
    """Says that this process is going away; another replica will answer."""

    code = "UNAVAILABLE"
    reason = "DRAINING"

    def __init__(self, message: str = "this process is draining, try another replica") -> None:
        super().__init__(message, retry_after_ms=DEFAULT_RETRY_MS)


class InternalError(ChappeError):
    """Stands for a bug on the server's side; its text is hidden, the trace id finds the log line."""

    def __init__(self, trace_id: str) -> None:
        super().__init__(
            f"a bug on the server's side; look for {trace_id} in its logs", metadata={"trace_id": trace_id}
        )


class RemoteError(ChappeError):
    """Carries another service's refusal with its own code and reason."""

    def __init__(self, code: str, message: str, info: error_details_pb2.ErrorInfo, retry_after_ms: int) -> None:
        super().__init__(message, metadata=dict(info.metadata), retry_after_ms=retry_after_ms)
        self.code = code
        self.reason = info.reason

    @property
    def is_about_this_process(self) -> bool:
        """Tells whether the peer refused this process rather than the request that it was working on."""
        return self.reason in _MESH_REASONS


def reason_value(reason: str) -> error_reason_pb2.ErrorReason.ValueType:
    """Returns the number of a reason in the contract, the unspecified one for a name it does not know."""
    try:
        return error_reason_pb2.ErrorReason.Value(_PREFIX + reason)
    except ValueError:
        return error_reason_pb2.ERROR_REASON_UNSPECIFIED


def to_status(error: ChappeError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error, with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if isinstance(error, InvalidFieldError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    retry_ms = error.retry_after_ms
    if retry_ms <= 0 and error.code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}:
        retry_ms = DEFAULT_RETRY_MS
    if retry_ms > 0:
        delay = duration_pb2.Duration(seconds=retry_ms // 1000, nanos=retry_ms % 1000 * 1_000_000)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=grpc.StatusCode[error.code].value[0], message=error.message[:_MAX_MESSAGE_CHARACTERS]
    )
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(status: status_pb2.Status) -> RemoteError | None:
    """Reads an error back from a google.rpc.Status; None when no service of the mesh made it."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.TypeName() == "google.rpc.ErrorInfo":
            detail.Unpack(info)
        elif detail.TypeName() == "google.rpc.RetryInfo":
            detail.Unpack(retry)
    if info.domain != DOMAIN:
        return None
    return RemoteError(code_name(status.code), status.message, info, retry.retry_delay.ToMilliseconds())


def from_rpc_error(error: grpc.aio.AioRpcError, *, dependency: str = "peer") -> ChappeError:
    """Turns what a stub raised into the error that the peer meant.

    Args:
        error: What the stub raised.
        dependency: The name of the peer, for the message when it did not answer at all.

    Returns:
        A RemoteError when the peer refused; UnavailableError when the call did not get through or took too long,
        so that nothing is known of it.
    """
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            refusal = _parse_status(value)
            if refusal is not None:
                return refusal
    return UnavailableError(dependency, detail=f"{error.code().name}: {error.details() or 'no details'}")


def code_name(number: int) -> str:
    """Returns the name of a status code by its number, UNKNOWN for a number that gRPC does not have."""
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code.name
    return "UNKNOWN"


def _parse_status(serialised: bytes) -> RemoteError | None:
    try:
        return from_status(status_pb2.Status.FromString(serialised))
    except message.DecodeError:
        return None
