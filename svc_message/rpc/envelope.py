"""Takes the envelope of a Send: how large it may be, and what it may hold that this server does not know."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from chappe.api.type.v1 import envelope_pb2
from svc_message.model import Refused

MAX_UNKNOWN_BYTES = 1024
"""Of fields that this server does not know: they are stored too, and may not make an envelope much larger."""
MAX_ENVELOPE_BYTES = 65_536 + MAX_UNKNOWN_BYTES
"""Of a whole envelope."""

_AROUND_CONTENT = 4
"""The suite, and the tag and length of a content of less than 128 bytes."""
_LONGER = 128
_LONGEST = 16_384
"""From these sizes on a length takes a byte more."""


def take_envelope(envelope: envelope_pb2.Envelope, path: str, most: int = MAX_ENVELOPE_BYTES) -> bytes | Refused:
    """Returns the bytes of an envelope as they will be stored, or why they cannot be.

    What is stored is never rewritten: a field that the contract reserves would be taken by a later version for one
    that was checked when it came. Nobody but a liar can send one now. Other fields belong to clients that know more.

    Args:
        envelope: What the Send holds; its content is within its limit.
        path: Where it stands, like "message.envelope".
        most: How many bytes it may have in all.
    """
    serialised = envelope.SerializeToString()
    if len(serialised) > most:
        return Refused("TOO_LARGE", f"{path}: has {len(serialised)} bytes in all, the most is {most}")
    size = len(envelope.content)
    unknown = len(serialised) - size - _AROUND_CONTENT - (size >= _LONGER) - (size >= _LONGEST)
    return serialised if unknown == 0 else _refuse_unknown(envelope, path, unknown) or serialised


def _refuse_unknown(envelope: envelope_pb2.Envelope, path: str, size: int) -> Refused | None:
    # The size comes first: to look at 66 KiB of the smallest fields would take 17 ms.
    if size > MAX_UNKNOWN_BYTES:
        detail = f"has {size} bytes of fields that this server does not know, the most is {MAX_UNKNOWN_BYTES}"
        return Refused("TOO_LARGE", f"{path}: {detail}")
    fields = UnknownFieldSet(envelope)
    numbers = (fields[index].field_number for index in range(len(fields)))
    found = next((number for number in numbers if number in _RESERVED), None)
    if found is None:
        return None
    return Refused("INVALID_FIELD", f"{path}: has the field {found}, which is reserved for a later version")


def _reserved() -> frozenset[int]:
    contract = descriptor_pb2.DescriptorProto()
    envelope_pb2.Envelope.DESCRIPTOR.CopyToProto(contract)
    return frozenset(number for one in contract.reserved_range for number in range(one.start, one.end))


_RESERVED = _reserved()
