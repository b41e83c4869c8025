"""What people do with messages that are there: edit them, take them back, hide them, react to them, answer, hand on."""

from dataclasses import replace
from typing import TYPE_CHECKING

from chappe.client.addressing import Addressing, Named
from chappe.client.content import SUITE_NONE, Said, encode
from chappe.client.destination import Destination
from chappe.client.frames import (
    edit_action,
    group_message_action,
    message_action,
    reaction_action,
    revoke_action,
)
from chappe.client.known_groups import KnownGroups
from chappe.client.mint import time_ms_of
from chappe.client.views import Message, Tick

if TYPE_CHECKING:
    from chappe.client.host import Host
    from chappe.client.people import People

MOST_FORWARDS = 2**32 - 1
"""The greatest number that stands for how often something was forwarded."""


class Acts:
    """The part of a client that acts on messages. All of it waits in the outbox until the server has stored it.

    Every method raises what `Client.send` does. `timeout_s` says how long to wait; None waits for ever.
    """

    _host: "Host"
    _addressing: Addressing
    _known_groups: KnownGroups
    people: "People"
    """The address book; there once the client is entered."""
    user_id: bytes

    async def edit(self, message: Message, text: str, *, timeout_s: float | None = None) -> Message:
        """Puts another text in the place of an own message, within 15 minutes unless the operator says otherwise.

        Returns:
            The message as it is now.

        Raises:
            RefusedError: It is not an own message (NOT_OWN_MESSAGE), too old (TOO_LATE), gone (MESSAGE_NOT_FOUND), or
                in a group in which only admins write (ROLE_REQUIRED).
        """
        content = encode(Said(text, message.reply_to, message.forward_count))
        where = await self.destination(message)
        action = edit_action(where, message.message_id, SUITE_NONE, content)
        sent = await self._host.submit("edit", where, action, timeout_s)
        return replace(message, text=text, edited_ms=sent.accepted_ms)

    async def delete_for_everyone(self, message: Message, *, timeout_s: float | None = None) -> None:
        """Takes an own message back from everybody, within two days unless the operator says otherwise.

        Raises:
            RefusedError: It is not an own message (NOT_OWN_MESSAGE), too old (TOO_LATE), or gone (MESSAGE_NOT_FOUND).
        """
        where = await self.destination(message)
        action = revoke_action(where, message.message_id, is_for_me=False)
        await self._host.submit("revoke", where, action, timeout_s)

    async def delete_for_me(self, message: Message, *, timeout_s: float | None = None) -> None:
        """Removes a message from all of the user's own devices; everybody else keeps it."""
        where = await self.destination(message)
        action = revoke_action(where, message.message_id, is_for_me=True)
        await self._host.submit("revoke", where, action, timeout_s)

    async def react(self, message: Message, emoji: str, *, timeout_s: float | None = None) -> None:
        """Reacts to a message, in the place of an earlier reaction; with an empty emoji takes it away."""
        content = encode(Said(emoji)) if emoji else b""
        where = await self.destination(message)
        action = reaction_action(where, message.message_id, SUITE_NONE, content)
        await self._host.submit("reaction", where, action, timeout_s)

    async def reply(self, message: Message, text: str, *, timeout_s: float | None = None) -> Message:
        """Answers a message in its chat; says which one is answered inside the sealed content."""
        return await self.say(
            await self.destination(message), Said(text, reply_to=message.message_id), timeout_s=timeout_s
        )

    async def forward(self, message: Message, chat: Named, *, timeout_s: float | None = None) -> Message:
        """Hands a message on to a person or a group, and counts inside the sealed content how often that was done."""
        # Whoever wrote the content may have put any number into it.
        said = Said(message.text, forward_count=min(message.forward_count + 1, MOST_FORWARDS))
        return await self.say(await self.destination(chat), said, timeout_s=timeout_s)

    async def say(
        self, where: Destination, said: Said, *, expiry_s: int | None = None, timeout_s: float | None = None
    ) -> Message:
        """Sends a message; without an own `expiry_s` it disappears when the timer of the chat says."""
        version = 0
        if where.group_id:
            version, timer_s = await self._known_groups.terms(where.group_id, self._host.is_reachable)
        else:
            timer_s = await self._host.in_store(self._host.store.settings.expiry_s, where.conversation_id)
        expiry_s = timer_s if expiry_s is None else expiry_s
        content = encode(said)
        if where.peer_id:
            action = message_action(where.peer_id, SUITE_NONE, content, expiry_s)
        else:
            action = group_message_action(where.group_id, version, SUITE_NONE, content, expiry_s)
        sent = await self._host.submit("message", where, action, timeout_s)
        return Message(
            message_id=sent.message_id,
            conversation_id=where.conversation_id,
            sender_id=self.user_id,
            peer_id=where.peer_id,
            text=said.text,
            sent_ms=time_ms_of(sent.message_id),
            accepted_ms=sent.accepted_ms,
            is_mine=True,
            tick=Tick.SENT,
            expires_ms=sent.accepted_ms + expiry_s * 1000 if expiry_s else 0,
            reply_to=said.reply_to,
            forward_count=said.forward_count,
        )

    async def destination(self, chat: Named) -> Destination:
        """Returns the chat that is meant.

        Raises:
            UnknownPersonError: Nobody and no group is meant.
            UnknownGroupError: More than one group is meant.
        """
        return await self._addressing.destination(chat)
