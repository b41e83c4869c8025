"""What processes that share a profile say to each other: one JSON object per line, with the SDK's own types in it.

Only the types that are listed here are ever made from a line, so that a line can say nothing but what it means.
"""

import enum
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

from chappe.client import group_views, presence_views, views
from chappe.client.destination import Destination
from chappe.client.errors import (
    ChappeClientError,
    NotConnectedError,
    ProtocolError,
    RefusedError,
    SessionEndedError,
    StoreError,
)
from chappe.client.link import Stored, Submission

PROTOCOL: Final = 1
"""Processes of different protocols do not share a profile."""
MOST_BYTES: Final = 4 << 20
"""A longer line is none of ours."""

_BYTES, _TUPLE, _TYPE = "b", "t", "$"
_MODULES: Final = (group_views, presence_views, views)
_ROWS: Final = (Destination, Stored, Submission)
_TYPES: Final[dict[str, Any]] = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, enum.IntEnum))
} | {kind.__name__: kind for kind in _ROWS}
_ERRORS: Final = {kind.__name__: kind for kind in (ChappeClientError, NotConnectedError, StoreError)}


def to_line(said: dict[str, Any]) -> bytes:
    """Returns what is said as one line."""
    return json.dumps({key: _packed(value) for key, value in said.items()}).encode() + b"\n"


def from_line(line: bytes) -> dict[str, Any]:
    """Returns what a line says.

    Raises:
        ProtocolError: It is none of ours.
    """
    try:
        said = json.loads(line)
        return {key: _unpacked(value) for key, value in said.items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ProtocolError(f"a process that shares this profile said what is none of ours: {error!r}") from error


def error_fields(error: ChappeClientError) -> dict[str, Any]:
    """Returns an error as it is said."""
    if isinstance(error, RefusedError):
        return {"reason": error.reason, "detail": error.detail, "retry_after_ms": error.retry_after_ms}
    if isinstance(error, SessionEndedError):
        return {"code": error.code, "detail": error.detail}
    kind = type(error).__name__
    return {"kind": kind if kind in _ERRORS else ChappeClientError.__name__, "text": str(error)}


def to_error(said: dict[str, Any]) -> ChappeClientError:
    """Returns an error that was said."""
    if "reason" in said:
        return RefusedError(said["reason"], said["detail"], retry_after_ms=said["retry_after_ms"])
    if "code" in said:
        return SessionEndedError(said["code"], said["detail"])
    return _ERRORS[said["kind"]](said["text"])


def _packed(value: Any) -> Any:
    packed: Any = value
    if isinstance(value, bytes):
        packed = {_BYTES: value.hex()}
    elif isinstance(value, enum.IntEnum):
        packed = {_TYPE: type(value).__name__, "value": int(value)}
    elif isinstance(value, _ROWS):
        packed = {_TYPE: type(value).__name__} | {key: _packed(each) for key, each in value._asdict().items()}
    elif is_dataclass(value):
        named = {field.name: _packed(getattr(value, field.name)) for field in fields(value)}
        packed = {_TYPE: type(value).__name__} | named
    elif isinstance(value, dict):
        said = cast("dict[str, Any]", value)
        packed = {key: _packed(each) for key, each in said.items()}
    elif isinstance(value, list | tuple | frozenset):
        many = cast("Iterable[Any]", value)
        packed = {_TUPLE: [_packed(each) for each in many]}
    return packed


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    said = cast("dict[str, Any]", value)
    if _BYTES in said:
        return bytes.fromhex(said[_BYTES])
    if _TUPLE in said:
        return tuple(_unpacked(each) for each in said[_TUPLE])
    found = {key: _unpacked(each) for key, each in said.items()}
    if _TYPE not in found:
        return found
    kind = _TYPES[found.pop(_TYPE)]
    return kind(**found)
