"""Builds the frames that a client sends; those of the hot path by hand, byte for byte what protobuf would write."""

from chappe.api.edge.v1 import client_frame_pb2, send_pb2
from chappe.api.type.v1 import envelope_pb2
from chappe.client.destination import Destination

PROTOCOL = 1

_ONE_BYTE = 1 << 7
_TWO_BYTES = 1 << 14
_SMALL = tuple(bytes((number,)) for number in range(_ONE_BYTE))


def varint(number: int) -> bytes:
    """Returns a number as protobuf writes it."""
    if number < _ONE_BYTE:
        return _SMALL[number]
    if number < _TWO_BYTES:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= _ONE_BYTE:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message_action(peer_id: bytes, suite: int, content: bytes, expiry_s: int = 0) -> bytes:
    """Returns the action of a Send that carries a message, as the field of a Send."""
    envelope = b"\x08" + varint(suite) + b"\x12" + varint(len(content)) + content
    body = b"\x0a\x10" + peer_id + b"\x1a" + varint(len(envelope)) + envelope
    if expiry_s:
        body += b"\x28" + varint(expiry_s)
    return b"\x1a" + varint(len(body)) + body


def group_message_action(group_id: bytes, members_version: int, suite: int, content: bytes, expiry_s: int = 0) -> bytes:
    """Returns the action of a Send that carries a message to a group, as the field of a Send."""
    envelope = b"\x08" + varint(suite) + b"\x12" + varint(len(content)) + content
    body = b"\x12\x10" + group_id + b"\x1a" + varint(len(envelope)) + envelope
    if members_version:
        body += b"\x20" + varint(members_version)
    if expiry_s:
        body += b"\x28" + varint(expiry_s)
    return b"\x1a" + varint(len(body)) + body


def read_action(destination: Destination, read_upto: bytes) -> bytes:
    """Returns the action of a Send that says what was read, as the field of a Send."""
    read = send_pb2.SendRead(read_upto=read_upto)
    name_chat(read, destination)
    return send_pb2.Send(read=read).SerializeToString()


def name_chat(
    change: send_pb2.SendRead | send_pb2.SendEdit | send_pb2.SendRevoke | send_pb2.SendReaction, chat: Destination
) -> None:
    """Says in a change which chat it is about."""
    if chat.peer_id:
        change.peer_user_id = chat.peer_id
    else:
        change.group_id = chat.group_id


def edit_action(chat: Destination, message_id: bytes, suite: int, content: bytes) -> bytes:
    """Returns the action of a Send that puts other content in the place of a message."""
    edit = send_pb2.SendEdit(message_id=message_id, envelope=_envelope(suite, content))
    name_chat(edit, chat)
    return send_pb2.Send(edit=edit).SerializeToString()


def revoke_action(chat: Destination, message_id: bytes, *, is_for_me: bool) -> bytes:
    """Returns the action of a Send that takes a message back, for everyone or for the user's own devices."""
    scope = send_pb2.REVOKE_SCOPE_ME if is_for_me else send_pb2.REVOKE_SCOPE_EVERYONE
    revoke = send_pb2.SendRevoke(message_id=message_id, scope=scope)
    name_chat(revoke, chat)
    return send_pb2.Send(revoke=revoke).SerializeToString()


def reaction_action(chat: Destination, message_id: bytes, suite: int, content: bytes) -> bytes:
    """Returns the action of a Send that reacts to a message; without content it takes the reaction away."""
    envelope = _envelope(suite, content) if content else None
    reaction = send_pb2.SendReaction(message_id=message_id, envelope=envelope)
    name_chat(reaction, chat)
    return send_pb2.Send(reaction=reaction).SerializeToString()


def _envelope(suite: int, content: bytes) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=envelope_pb2.EncryptionSuite.ValueType(suite), content=content)


def parse_action(action: bytes) -> send_pb2.Send:
    """Returns a Send that holds nothing but this action."""
    return send_pb2.Send.FromString(action)


def send_frame(message_id: bytes, attempt: int, action: bytes) -> bytes:
    """Returns a Send; two frames with the same id and action differ in the attempt and in nothing else."""
    body = b"\x0a\x10" + message_id + b"\x10" + varint(attempt) + action
    return b"\x12" + varint(len(body)) + body


def ack_frame(count: int) -> bytes:
    """Returns an Ack of all items up to a count."""
    body = b"\x08" + varint(count)
    return b"\x1a" + varint(len(body)) + body


def ack_ids_frame(message_ids: list[bytes]) -> bytes:
    """Returns an Ack of messages that came by history; at most 256."""
    ack = client_frame_pb2.Ack(message_ids=message_ids)
    return client_frame_pb2.ClientFrame(ack=ack).SerializeToString()


def call_frame(call_id: int, method: str, payload: bytes) -> bytes:
    """Returns a Call."""
    call = client_frame_pb2.Call(id=call_id, method=method, payload=payload)
    return client_frame_pb2.ClientFrame(call=call).SerializeToString()


def ping_frame(client_ms: int) -> bytes:
    """Returns a Ping; the milliseconds come back in the Pong."""
    return client_frame_pb2.ClientFrame(ping=client_frame_pb2.Ping(client_ms=client_ms)).SerializeToString()


def anonymous_hello(user_agent: str) -> bytes:
    """Returns the Hello of a client that has no user yet."""
    hello = client_frame_pb2.Hello(
        protocol=PROTOCOL, anonymous=client_frame_pb2.AnonymousHello(), user_agent=user_agent
    )
    return client_frame_pb2.ClientFrame(hello=hello).SerializeToString()
