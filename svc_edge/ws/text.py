"""Frames as JSON text: the sub-protocol `chappe.v1.json`, for people and for languages without protobuf.

It is protobuf's own JSON mapping (bytes as base64), but for the payload of a Call and of its result: these are objects,
mapped by the descriptors of the method.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format, message_factory

from chappe.api.edge.v1 import client_frame_pb2, server_frame_pb2
from chappe.runtime import contract
from svc_edge.errors import CloseCode, Closing, SessionClosed
from svc_edge.model import CallDone, CaughtUp
from svc_edge.ws.wire import events_frame, server_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

    from svc_edge.model import Frame


class JsonCodec:
    """The sub-protocol `chappe.v1.json`."""

    is_text = True

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    def read(self, payload: bytes) -> client_frame_pb2.ClientFrame:
        """Parses a message of a client; raises `SessionClosed`."""
        try:
            loaded = json.loads(payload)
            if not isinstance(loaded, dict):
                raise SessionClosed(CloseCode.MALFORMED, 'a frame is a JSON object, like {"ping": {}}')
            given = cast("dict[str, Any]", loaded)
            _serialise_payload(given)
            return json_format.ParseDict(given, client_frame_pb2.ClientFrame(), ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
            raise SessionClosed(CloseCode.MALFORMED, f"the text is not a ClientFrame as JSON: {error}") from None

    def write(self, frame: Frame | CaughtUp | Closing) -> bytes:
        """Returns a ServerFrame as JSON text."""
        if isinstance(frame, bytes):
            return _text(json_format.MessageToDict(server_frame_pb2.ServerFrame.FromString(frame)))
        given = json_format.MessageToDict(server_frame(frame, self._now_ms()))
        if isinstance(frame, CallDone):
            response = message_factory.GetMessageClass(contract.method_descriptor(frame.method).output_type)
            given["callResult"]["payload"] = json_format.MessageToDict(response.FromString(frame.payload))
        return _text(given)

    def events(self, items: Sequence[bytes], cursor: bytes) -> bytes:
        """Returns a ServerFrame with Events as JSON text."""
        return self.write(events_frame(items, cursor))


def _serialise_payload(given: dict[str, Any]) -> None:
    """Puts the bytes of a call's request in the place of the object."""
    found = given.get("call")
    call = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    payload = call.get("payload", {})
    if not call or not isinstance(payload, dict):
        return
    try:
        request = contract.method_descriptor(str(call.get("method", ""))).input_type
    except contract.ContractError:
        # The bridge refuses the method; its payload does not matter.
        call["payload"] = ""
        return
    message: Message = json_format.ParseDict(
        cast("dict[str, Any]", payload), message_factory.GetMessageClass(request)()
    )
    call["payload"] = base64.b64encode(message.SerializeToString()).decode()


def _text(given: dict[str, Any]) -> bytes:
    return json.dumps(given, separators=(",", ":"), ensure_ascii=False).encode()
