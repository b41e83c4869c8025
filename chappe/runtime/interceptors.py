"""What stands between the wire and every handler: who may call, are the limits kept, how errors leave.

One interceptor does all of it, because each has to wrap the handler itself: errors raised while a stream is being
iterated would pass one that only wraps the call. What it wraps is kept for each method, so that a call pays for checks
and for nothing else.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

import grpc
import grpc.aio
from google.rpc import status_pb2

from chappe.api.type.v1 import access_pb2
from chappe.runtime import contract
from chappe.runtime.errors import (
    ALLOWED_CODES,
    STATUS_KEY,
    CallerNotAllowedError,
    ChappeError,
    InternalError,
    InvalidFieldError,
    InvalidPrincipalError,
    RemoteError,
    UnauthenticatedPeerError,
    UnavailableError,
    from_status,
    to_status,
)
from chappe.runtime.pki import SpiffeId
from chappe.runtime.principal import PRINCIPAL_KEY, Caller, read_principal, set_caller
from chappe.runtime.tls import PeerIdentityError, peer_spiffe_id

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"
Identify = Callable[[Context], SpiffeId]

EDGE = "svc-edge"
SERVICE_CALLERS = {
    EDGE: access_pb2.CALLER_EDGE,
    "svc-message": access_pb2.CALLER_MESSAGE,
    "svc-presence": access_pb2.CALLER_PRESENCE,
    "svc-identity": access_pb2.CALLER_IDENTITY,
    "svc-fanout": access_pb2.CALLER_FANOUT,
}
"""The service accounts of the five services."""

# These speak for the process, not for its contract; transport security still applies to them.
OPEN_PREFIXES = ("/grpc.health.v1.Health/", "/grpc.reflection.")

_log = logging.getLogger(__name__)


class Realm(NamedTuple):
    """Whose identities count."""

    trust_domain: str
    namespace: str
    """Where the five services live; the same name elsewhere is somebody else."""
    internal_callers: tuple[str, ...]
    """Service accounts that are internal callers: "name" here, "namespace/name" elsewhere, "*" for all tools here."""

    def name_of(self, identity: SpiffeId) -> str:
        """Returns the name of a caller, with its namespace when that is not the services' own."""
        is_ours = identity.namespace == self.namespace
        return identity.service if is_ours else f"{identity.namespace}/{identity.service}"

    def is_internal(self, name: str) -> bool:
        """Tells whether a caller of this name is let in where the contract says "internal"."""
        if name.startswith("svc-"):
            return False
        return name in self.internal_callers or ("*" in self.internal_callers and "/" not in name)


class Gate:
    """Decides whether a caller may call a method, by the contract alone."""

    def __init__(self, realm: Realm, identify: Identify | None = None) -> None:
        """Makes a gate.

        Args:
            realm: Whose identities count.
            identify: Reads who the peer is; from its certificate unless a test says otherwise.
        """
        self._realm = realm
        self._identify: Identify = identify or (lambda context: peer_spiffe_id(context, realm.trust_domain))

    def admit(self, method: str, access: contract.Access, context: Context) -> Caller:
        """Returns who calls.

        Raises:
            UnauthenticatedPeerError: The peer's certificate names no service of the realm.
            InvalidPrincipalError: The end user is missing, doubled, unreadable, or asserted by another than the edge.
            CallerNotAllowedError: The contract does not let this caller in.
        """
        try:
            identity = self._identify(context)
            name = self._realm.name_of(identity)
        except PeerIdentityError as error:
            raise UnauthenticatedPeerError(str(error)) from None
        values = [value for key, value in context.invocation_metadata() or () if key == PRINCIPAL_KEY]
        if name == EDGE:
            caller = Caller(name, read_principal(values), str(identity))
            is_allowed = self._admits_edge(access, caller)
        else:
            if values:
                raise InvalidPrincipalError(f"{name} may not speak for an end user: only {EDGE} sends {PRINCIPAL_KEY}")
            caller = Caller(name, None, str(identity))
            is_allowed = self._admits_other(access, name)
        if not is_allowed:
            raise CallerNotAllowedError(method=method, caller=name)
        return caller

    def _admits_edge(self, access: contract.Access, caller: Caller) -> bool:
        is_for_edge = bool(access.callers & {access_pb2.CALLER_EDGE, access_pb2.CALLER_OPEN})
        if not (is_for_edge or access.is_for_clients):
            return False
        if caller.principal is None and (access.needs_principal or not is_for_edge):
            raise InvalidPrincipalError(f"this call is made for an end user: send {PRINCIPAL_KEY} exactly once")
        return True

    def _admits_other(self, access: contract.Access, name: str) -> bool:
        if SERVICE_CALLERS.get(name) in access.callers:
            return True
        return access_pb2.CALLER_INTERNAL in access.callers and self._realm.is_internal(name)


class DoorCounters:
    """What the doors of a process did; plain ints, read by the metrics."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        """How long unary calls took, by method; streams are left out, for they take as long as they live."""
        self.refusals: dict[str, int] = {}
        self.bugs = 0


class DoorInterceptor(grpc.aio.ServerInterceptor):
    """Admits callers, checks unary requests, and turns errors into rich statuses, for every kind of handler."""

    def __init__(self, gate: Gate, new_trace_id: Callable[[], str], counters: DoorCounters | None = None) -> None:
        """Makes the interceptor.

        Args:
            gate: Decides who is let in.
            new_trace_id: Names the trace of the current call, 32 hexadecimal digits; a random one without a trace.
            counters: Counts what is answered.
        """
        self._gate = gate
        self._new_trace_id = new_trace_id
        self.counters = counters or DoorCounters()
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Returns the guarded handler of a method; None for a method that nobody serves, which gRPC answers."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_PREFIXES):
            return handler
        access = contract.access_of(method)
        wrapped = replace_behaviour(handler, lambda inner: self._guard(method, access, handler, inner))
        self._wrapped[method] = wrapped
        return wrapped

    def _guard(self, method: str, access: contract.Access, handler: Handler, inner: Behaviour) -> Behaviour:
        check = _accept_all if handler.request_streaming else _check_of(method)
        calls = self.counters.calls
        calls[method] = 0
        seconds: dict[str, float] = {} if handler.request_streaming else self.counters.seconds
        seconds[method] = 0.0

        async def guarded(request: Any, context: Context) -> Any:
            calls[method] += 1
            start_s = time.perf_counter()
            try:
                set_caller(self._gate.admit(method, access, context))
                check(request)
                return await inner(request, context)
            except ChappeError as error:
                await self._refuse(method, context, error)
            except grpc.aio.AbortError:
                raise
            except grpc.aio.InternalError:
                # What gRPC raises when a read or a write finds that the caller has gone.
                await abort(context, UnavailableError("caller", "the caller has gone"))
            except Exception as error:  # noqa: BLE001 - the last place where a bug can become an answer
                await self._report(method, context, error)
            finally:
                seconds[method] += time.perf_counter() - start_s

        return guarded

    async def _refuse(self, method: str, context: Context, error: ChappeError) -> None:
        is_ours = not (isinstance(error, RemoteError) and error.is_about_this_process)
        if error.code not in ALLOWED_CODES or not is_ours:
            await self._report(method, context, error)
            return
        self.counters.refusals[error.reason] = self.counters.refusals.get(error.reason, 0) + 1
        if isinstance(error, UnavailableError) and error.detail:
            # The caller is not told, so this is the only place where it can be found.
            _log.warning("%s was refused: %s", method, error)
        await abort(context, error)

    async def _report(self, method: str, context: Context, error: Exception) -> None:
        self.counters.bugs += 1
        trace_id = self._new_trace_id()
        _log.error("bug in %s", method, exc_info=error, extra={"trace_id": trace_id})
        await abort(context, InternalError(trace_id))


class ConformanceInterceptor(grpc.aio.ServerInterceptor):
    """Watches in tests that nothing leaves a service but allowed codes with their details."""

    def __init__(self) -> None:
        self.violations: list[str] = []

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Returns the watched handler of a method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_PREFIXES):
            return handler
        return replace_behaviour(handler, lambda inner: self._watch(method, inner))

    def check(self) -> None:
        """Raises AssertionError with every violation that was seen."""
        if self.violations:
            raise AssertionError("\n".join(self.violations))

    def _watch(self, method: str, inner: Behaviour) -> Behaviour:
        async def watched(request: Any, context: Context) -> Any:
            try:
                answer = await inner(request, context)
            except grpc.aio.AbortError:
                self._note(method, conformance_problem(context))
                raise
            except Exception as error:
                self._note(method, f"raised {type(error).__name__}, which would leave as UNKNOWN")
                raise
            if context.code() not in {None, 0, grpc.StatusCode.OK}:
                self._note(method, "set a code by hand: raise a ChappeError instead")
            return answer

        return watched

    def _note(self, method: str, problem: str | None) -> None:
        if problem is not None:
            self.violations.append(f"{method} {problem}")


def conformance_problem(context: Context) -> str | None:
    """Returns what is wrong with how an RPC was aborted; None when it is in order."""
    # Before the status has left, grpc.aio gives the code as a number.
    code: Any = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else str(code)
    for key, value in context.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            error = from_status(status_pb2.Status.FromString(value))
            if error is None:
                return f"ended with {name} and no ErrorInfo of the mesh"
            if error.code not in ALLOWED_CODES and error.reason != "INTERNAL":
                return f"ended with {error.code}, which no service may use"
            return None
    return f"ended with {name} without details"


async def abort(context: Context, error: ChappeError) -> None:
    """Ends an RPC with the rich status of an error; always raises AbortError."""
    status = to_status(error)
    trailing = ((STATUS_KEY, status.SerializeToString()),)
    try:
        await context.abort(grpc.StatusCode[error.code], status.message, trailing)
    except grpc.aio.InternalError:
        # The caller has gone before it could be told.
        raise grpc.aio.AbortError(status.message) from None


def replace_behaviour(handler: Handler, wrap: Callable[[Behaviour], Behaviour]) -> Handler:
    """Returns a handler of the same kind whose behaviour is wrapped; a generator becomes a coroutine that writes."""
    inner: Any
    make: Any
    if handler.request_streaming and handler.response_streaming:
        inner, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    elif handler.request_streaming:
        inner, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    elif handler.response_streaming:
        inner, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
    else:
        inner, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
    behaviour = wrap(_as_coroutine(inner))
    replaced: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return replaced


def _as_coroutine(inner: Any) -> Behaviour:
    if not inspect.isasyncgenfunction(inner):
        behaviour: Behaviour = inner
        return behaviour

    async def write_all(request: Any, context: Context) -> None:
        async for response in inner(request, context):
            await context.write(response)

    return write_all


def _accept_all(_: Any) -> None:
    """Lets the messages of a stream through; its handler checks their shape."""


@functools.cache
def _check_of(method: str) -> Callable[[Any], None]:
    find = contract.compile_checks(contract.method_descriptor(method).input_type)
    if find is None:
        return _accept_all

    def check(request: Any) -> None:
        violation = find(request)
        if violation is not None:
            raise InvalidFieldError(*violation)

    return check
