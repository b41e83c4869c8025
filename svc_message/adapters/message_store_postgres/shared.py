"""Takes rows apart that stand for several messages of a group."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import messages_of
from svc_message.adapters.message_store_postgres.arrays import uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import NO_POSITION, ConversationId, MessageEvent, MessageId, Position, UserId

# Members of a group who read at the same time share what is read: nobody but a member who hides a message sees a group
# otherwise than the others.
_MESSAGES: Final = woven(
    """
    SELECT m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms, {content}
    FROM unnest(%b, %b) AS t (conversation_id, message_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.conversation_id = t.conversation_id AND x.message_id = t.message_id LIMIT 1
    ) m
    LEFT JOIN private_views v ON false
    WHERE {is_there}
"""
)
_HIDDEN: Final = b"""
    SELECT v.user_id, v.conversation_id, v.message_id
    FROM unnest(%b, %b) AS t (user_id, conversation_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM private_views x
        WHERE x.user_id = t.user_id AND x.conversation_id = t.conversation_id AND x.is_hidden OFFSET 0
    ) v
"""


class Shared(NamedTuple):
    """The messages that rows stand for, and who has hidden which."""

    messages: dict[tuple[ConversationId, MessageId], MessageEvent]
    hidden: set[tuple[UserId, ConversationId, MessageId]]

    def messages_in(
        self, user_id: UserId, conversation_id: ConversationId, data: bytes, position: Position
    ) -> Iterator[MessageEvent]:
        """Goes through the messages of a row that its reader is still to see."""
        for message_id in messages_of(data):
            message = self.messages.get((conversation_id, message_id))
            if message is not None and (user_id, conversation_id, message_id) not in self.hidden:
                yield message._replace(position=position)


async def take_apart(connections: Connections, rows: Sequence[tuple[UserId, ConversationId, bytes]]) -> Shared:
    """Reads what rows stand for, each of a reader, in a conversation, with its data."""
    wanted = list({(conversation_id, one) for _, conversation_id, data in rows for one in messages_of(data)})
    readers = list({(user_id, conversation_id) for user_id, conversation_id, _ in rows})
    found, hidden = await connections.run_together(
        Statement(_MESSAGES, (uuids([place[0] for place in wanted]), uuids([place[1] for place in wanted]))),
        Statement(_HIDDEN, (uuids([place[0] for place in readers]), uuids([place[1] for place in readers]))),
    )
    messages = {(row[1], row[0]): MessageEvent(NO_POSITION, *row) for row in found}
    return Shared(messages, {(user_id, conversation, message) for user_id, conversation, message in hidden})
