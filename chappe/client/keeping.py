"""How the user keeps its chats: muted, pinned, archived, cleared, or with a timer; on all of its devices."""

from typing import TYPE_CHECKING

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import conversation_service_pb2
from chappe.client.addressing import Addressing, Named
from chappe.client.destination import Destination
from chappe.client.methods import UPDATE_CONVERSATION
from chappe.client.showing import from_settings
from chappe.client.views import ChatSettings, Message

if TYPE_CHECKING:
    from chappe.client.groups import Groups
    from chappe.client.host import Host

FOR_EVER_MS = 253_402_300_799_000
"""Until the end of the year 9999."""


class Keeping:
    """The part of a client that changes how chats are kept.

    A chat is named as in `Client.send`. Every method returns everything as it is then, and raises what `Client.call`
    does, and RefusedError(NOT_IN_CONVERSATION) where there is no such chat.
    """

    _host: "Host"
    _addressing: Addressing
    groups: "Groups"
    """The groups of the user; there once the client is entered."""

    async def mute(self, chat: Named, until_ms: int = FOR_EVER_MS) -> ChatSettings:
        """Switches notifications off until a time, Unix milliseconds."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(muted_until_ms=until_ms))

    async def unmute(self, chat: Named) -> ChatSettings:
        """Switches notifications on."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(muted_until_ms=0))

    async def pin(self, chat: Named) -> ChatSettings:
        """Puts a chat above those that are not pinned."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(is_pinned=True))

    async def unpin(self, chat: Named) -> ChatSettings:
        """Puts a chat back among the others."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(is_pinned=False))

    async def archive(self, chat: Named) -> ChatSettings:
        """Puts a chat out of sight until somebody writes."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(is_archived=True))

    async def unarchive(self, chat: Named) -> ChatSettings:
        """Brings a chat back into the list."""
        return await self._update(chat, conversation_service_pb2.UpdateConversationRequest(is_archived=False))

    async def clear(self, chat: Named) -> ChatSettings:
        """Removes the messages of a chat from the user's own devices and history; others keep theirs.

        Args:
            chat: The last message that is to go, or the chat: everything in it that this device has.
        """
        where = await self._addressing.destination(chat)
        upto = chat.message_id if isinstance(chat, Message) else b""
        if not upto:
            newest = await self._host.in_store(self._host.store.messages, where.conversation_id, b"", 1)
            upto = newest[0].message_id if newest else bytes(16)
        return await self._update(where, conversation_service_pb2.UpdateConversationRequest(cleared_upto=upto))

    async def set_timer(self, chat: Named, expiry_s: int) -> ChatSettings:
        """Lets new messages of a chat disappear, for everybody in it; in a group that is for admins.

        Args:
            chat: Which.
            expiry_s: How many seconds after they were sent, 90 days at most; 0 for never.
        """
        where = await self._addressing.destination(chat)
        if where.group_id:
            group = await self.groups.update(where.group_id, expiry_s=expiry_s)
            return ChatSettings(expiry_s=group.expiry_s)
        return await self._update(where, conversation_service_pb2.UpdateConversationRequest(expiry_s=expiry_s))

    async def _update(self, chat: Named, request: conversation_service_pb2.UpdateConversationRequest) -> ChatSettings:
        where: Destination = await self._addressing.destination(chat)
        if where.group_id:
            request.group_id = where.group_id
        else:
            request.peer_user_id = where.peer_id
        answer = await self._host.call(UPDATE_CONVERSATION, request)
        event = item_pb2.ConversationSettingEvent(conversation_id=where.conversation_id, settings=answer.settings)
        await self._host.in_store(self._host.store.settings.keep, event, answer.position)
        return from_settings(answer.settings)
