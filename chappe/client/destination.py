"""Where a change goes: into the chat with a person, or into that of a group."""

from typing import NamedTuple

from chappe.client.mint import conversation_of


class Destination(NamedTuple):
    """A chat, as whoever changes something in it names it."""

    conversation_id: bytes
    peer_id: bytes = b""
    """With whom a direct chat is; empty for a group, whose id is that of the chat."""

    @property
    def group_id(self) -> bytes:
        """The group; empty for a direct chat."""
        return b"" if self.peer_id else self.conversation_id


def to_person(user_id: bytes, peer_id: bytes) -> Destination:
    """Returns the direct chat of a user with another, or with itself for notes."""
    return Destination(conversation_of(user_id, peer_id), peer_id)


def to_group(group_id: bytes) -> Destination:
    """Returns the chat of a group."""
    return Destination(group_id)
