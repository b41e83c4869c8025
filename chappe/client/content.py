"""Turns what a person wrote into the content of an envelope and back. Suite NONE: nothing is sealed yet."""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from chappe.api.type.v1 import content_pb2, envelope_pb2

SUITE_NONE = envelope_pb2.ENCRYPTION_SUITE_NONE
_UNREADABLE = "(a message that this version cannot read)"


class Said(NamedTuple):
    """What stands in a message."""

    text: str
    reply_to: bytes = b""
    """The message that this one answers."""
    forward_count: int = 0


def encode(said: Said) -> bytes:
    """Returns the content of a message."""
    return content_pb2.Content(
        text=said.text, reply_to_message_id=said.reply_to, forward_count=said.forward_count
    ).SerializeToString()


def encode_text(text: str) -> bytes:
    """Returns the content of a text message."""
    return content_pb2.Content(text=text).SerializeToString()


def decode(suite: int, content: bytes) -> Said:
    """Returns what stands in a message; a sentence that says so when it cannot be read."""
    if suite != SUITE_NONE:
        return Said(_UNREADABLE)
    try:
        found = content_pb2.Content.FromString(content)
    except DecodeError:
        return Said(_UNREADABLE)
    return Said(found.text, found.reply_to_message_id, found.forward_count)
