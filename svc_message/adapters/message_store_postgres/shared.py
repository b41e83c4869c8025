"""Takes rows apart that stand for several messages of a group."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import messages_of
from svc_message.adapters.message_store_postgres.arrays import int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import NO_POSITION, ConversationId, MessageEvent, MessageId, Position, UserId

# Members of a group who read at the same time share what is read: nobody but a member who hides a message sees a group
# otherwise than the others, and who has left it.
_MESSAGES: Final = woven(
    """
    SELECT m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms, {content},
        t.left_version
    FROM unnest(%b, %b, %b) AS t (conversation_id, message_id, left_version)
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.conversation_id = t.conversation_id AND x.message_id = t.message_id LIMIT 1
    ) m
    LEFT JOIN private_views v ON false
    {before}
    WHERE {is_there}
""",
    left="t.left_version",
)
_HIDDEN: Final = b"""
    SELECT v.user_id, v.conversation_id, v.message_id
    FROM unnest(%b, %b) AS t (user_id, conversation_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM private_views x
        WHERE x.user_id = t.user_id AND x.conversation_id = t.conversation_id AND x.is_hidden OFFSET 0
    ) v
"""


class Wanted(NamedTuple):
    """A row that stands for several messages."""

    user_id: UserId
    conversation_id: ConversationId
    left_version: int
    """Of the group, when its reader left it; `FOR_EVER` when it did not."""
    data: bytes


class Shared(NamedTuple):
    """The messages that rows stand for, and who has hidden which."""

    messages: dict[tuple[ConversationId, MessageId, int], MessageEvent]
    """By where the reader is or was a member."""
    hidden: set[tuple[UserId, ConversationId, MessageId]]

    def messages_in(self, row: Wanted, position: Position) -> Iterator[MessageEvent]:
        """Goes through the messages of a row that its reader is still to see."""
        user_id, conversation_id, left_version, data = row
        for message_id in messages_of(data):
            message = self.messages.get((conversation_id, message_id, left_version))
            if message is not None and (user_id, conversation_id, message_id) not in self.hidden:
                yield message._replace(position=position)


async def take_apart(connections: Connections, rows: Sequence[Wanted]) -> Shared:
    """Reads what rows stand for."""
    wanted = list({(row.conversation_id, one, row.left_version) for row in rows for one in messages_of(row.data)})
    readers = list({(row.user_id, row.conversation_id) for row in rows})
    places = (uuids([place[0] for place in wanted]), uuids([place[1] for place in wanted]))
    found, hidden = await connections.run_together(
        Statement(_MESSAGES, (*places, int8s([place[2] for place in wanted]))),
        Statement(_HIDDEN, (uuids([place[0] for place in readers]), uuids([place[1] for place in readers]))),
    )
    events = {(event[1], event[0], left): MessageEvent(NO_POSITION, *event) for *event, left in found}
    return Shared(events, {(user_id, conversation, message) for user_id, conversation, message in hidden})
