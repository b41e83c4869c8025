"""Who calls, and on behalf of which end user; set by the access interceptor, read by handlers."""

from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple

from google.protobuf.message import DecodeError

from chappe.api.type.v1 import principal_pb2
from chappe.runtime import contract
from chappe.runtime.errors import InvalidFieldError, InvalidPrincipalError

PRINCIPAL_KEY = "chappe-principal-bin"
"""The binary metadata in which the edge names the end user."""

ADDRESS_KEY = "chappe-client-address"
"""The metadata in which the edge names where a client comes from, for methods that need no user."""

MAX_ADDRESS_CHARACTERS = 64
MAX_PRINCIPAL_BYTES = 64
"""A principal takes 43 bytes; anything larger was not made by the edge."""


class Principal(NamedTuple):
    """The end user on whose behalf the edge calls."""

    user_id: bytes
    device_id: int
    session_id: bytes
    """16 bytes; empty when the call does not come from a session."""


class Caller(NamedTuple):
    """Who made the call that is being handled."""

    service: str
    """The service account of the certificate, like svc-edge."""
    principal: Principal | None
    spiffe_id: str = ""
    """The whole identity in the certificate."""


_caller: ContextVar[Caller] = ContextVar("chappe_caller")


def set_caller(caller: Caller) -> None:
    """Names the caller of the RPC that the current task handles; for interceptors and tests."""
    _caller.set(caller)


def caller() -> Caller:
    """Returns who made the call that the current task handles.

    Raises:
        LookupError: No call is being handled here; background tasks have no caller.
    """
    return _caller.get()


def principal() -> Principal:
    """Returns the end user of the call that the current task handles.

    Raises:
        InvalidPrincipalError: The call carries none, as a call of an internal tool.
        LookupError: No call is being handled here.
    """
    found = _caller.get().principal
    if found is None:
        raise InvalidPrincipalError("this call is made for an end user, and it names none")
    return found


def principal_metadata(principal: Principal) -> tuple[str, bytes]:
    """Returns the metadata with which the edge names the end user; no other service may send it."""
    message = principal_pb2.Principal(
        user_id=principal.user_id, device_id=principal.device_id, session_id=principal.session_id
    )
    return PRINCIPAL_KEY, message.SerializeToString()


def client_address(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Returns where the client comes from for whom the edge calls; empty when that is not said, or not said once."""
    given = [value for key, value in metadata or () if key == ADDRESS_KEY]
    if len(given) != 1 or not isinstance(given[0], str) or len(given[0]) > MAX_ADDRESS_CHARACTERS:
        return ""
    return given[0]


def read_principal(values: Iterable[str | bytes]) -> Principal | None:
    """Reads the end user from every value that the metadata carries under the key; None when there is none.

    Raises:
        InvalidPrincipalError: There are several values, or the one is not a principal.
    """
    given = list(values)
    if not given:
        return None
    # Taking the first of several would let whoever can append metadata choose the user.
    if len(given) > 1:
        raise InvalidPrincipalError(f"{PRINCIPAL_KEY} is there {len(given)} times: send it exactly once")
    return _parse(given[0])


def _parse(value: str | bytes) -> Principal:
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_PRINCIPAL_BYTES:
        raise InvalidPrincipalError(
            f"{PRINCIPAL_KEY} has {len(value)} bytes: send a serialised Principal of at most {MAX_PRINCIPAL_BYTES}"
        )
    try:
        message = principal_pb2.Principal.FromString(value)
        contract.validate(message)
    except DecodeError:
        raise InvalidPrincipalError(f"{PRINCIPAL_KEY} cannot be parsed: send a serialised Principal") from None
    except InvalidFieldError as error:
        raise InvalidPrincipalError(f"{PRINCIPAL_KEY} is not valid: {error.message}") from None
    return Principal(message.user_id, message.device_id, message.session_id)
