"""Turns what a person wrote into the content of an envelope and back. Suite NONE: nothing is sealed yet."""

from google.protobuf.message import DecodeError

from chappe.api.type.v1 import content_pb2, envelope_pb2

SUITE_NONE = envelope_pb2.ENCRYPTION_SUITE_NONE
_UNREADABLE = "(a message that this version cannot read)"


def encode_text(text: str) -> bytes:
    """Returns the content of a text message."""
    return content_pb2.Content(text=text).SerializeToString()


def decode_text(suite: int, content: bytes) -> str:
    """Returns the text of a message; a sentence that says so when it cannot be read."""
    if suite != SUITE_NONE:
        return _UNREADABLE
    try:
        return content_pb2.Content.FromString(content).text
    except DecodeError:
        return _UNREADABLE
