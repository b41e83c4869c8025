"""Carries out actions on messages in the book that is kept in memory."""

from collections.abc import Sequence

from svc_message.adapters.message_store_memory.book import Book, Kept
from svc_message.model import MessageId, Verdict, expires_at
from svc_message.model.action import (
    Acted,
    ActionKind,
    ActionRef,
    FoundAction,
    NewAction,
    Sight,
    Target,
    event_of,
)
from svc_message.model.group import NewGroupMessage


class MemoryActionStore:
    """The port `ActionStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, book: Book) -> None:
        """Works on a book."""
        self._book = book

    async def sight(self, refs: Sequence[ActionRef]) -> list[Sight]:
        """Looks for actions by their ids and for the messages that they are done to, in order."""
        return [Sight(self._earlier(ref), self._target(ref)) for ref in refs]

    async def act(self, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable with what follows from them, and answers for each in order."""
        answers = {action.action_id: self._act(action) for action in sorted(batch, key=_action_id)}
        # What stands is known once the whole batch is in the book.
        return [
            answer._replace(is_standing=self._is_standing(action)) if answer.is_standing else answer
            for action, answer in ((action, answers[action.action_id]) for action in batch)
        ]

    async def declare_actions_void(self, refs: Sequence[ActionRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        actions = self._book.actions
        return [actions.setdefault((ref.conversation_id, ref.action_id), None) is None for ref in refs]

    def _earlier(self, ref: ActionRef) -> FoundAction | None:
        messages = self._book.messages[ref.conversation_id]
        if ref.action_id in messages:
            return FoundAction(messages[ref.action_id] is None, b"", 0)
        key = (ref.conversation_id, ref.action_id)
        if key not in self._book.actions:
            return None
        action = self._book.actions[key]
        return FoundAction(is_void=True, content_hash=b"", accepted_ms=0) if action is None else _found(action)

    def _target(self, ref: ActionRef) -> Target | None:
        message = self._book.there(ref.conversation_id, ref.message_id)
        if message is None:
            return None
        is_hidden = self._book.altered.seen(ref.user_id, (ref.conversation_id, ref.message_id)).is_hidden
        return Target(
            message.sender_id,
            message.recipient_id,
            message.accepted_ms,
            message.is_withheld,
            is_hidden,
            _version_of(message),
        )

    def _act(self, action: NewAction) -> Acted:
        book, key = self._book, (action.conversation_id, action.action_id)
        if action.action_id in book.messages[action.conversation_id]:
            return Acted(Verdict.CONFLICT)
        is_new = key not in book.actions
        first = book.actions.setdefault(key, action)
        if first is None:
            return Acted(Verdict.VOID)
        if first.content_hash != action.content_hash:
            return Acted(Verdict.CONFLICT)
        if is_new:
            book.altered.carry_out(action)
        reached = None if first.is_withheld else first.peer_id
        message = book.messages[action.conversation_id].get(action.message_id)
        expires_ms = expires_at(message.accepted_ms, message.expiry_s) if message is not None else 0
        event = event_of(first._replace(position=action.position), first.accepted_ms, expires_ms)
        book.append(event, first.user_id, *(() if reached is None else (reached,)))
        verdict = Verdict.STORED if is_new else Verdict.DUPLICATE
        return Acted(verdict, first.accepted_ms, reached, True, _version_of(message), expires_ms)  # noqa: FBT003 - it is one of six columns

    def _is_standing(self, again: NewAction) -> bool:
        action = self._book.actions[again.conversation_id, again.action_id] or again
        place = (action.conversation_id, action.message_id)
        altered = self._book.altered
        seen = altered.seen(action.user_id, place) if action.is_withheld else altered.public(place)
        if action.kind in {ActionKind.EDIT, ActionKind.REACTION} and self._book.there(*place) is None:
            return False
        if action.kind is ActionKind.EDIT:
            return not seen.revoked_ms and seen.edit_id == action.action_id
        if action.kind is ActionKind.REACTION:
            reaction = altered.reaction(place, action.user_id, is_withheld=action.is_withheld)
            return not seen.revoked_ms and reaction is not None and reaction.reaction_id == action.action_id
        return True


def _found(action: NewAction) -> FoundAction:
    return FoundAction(is_void=False, content_hash=action.content_hash, accepted_ms=action.accepted_ms)


def _action_id(action: NewAction) -> MessageId:
    return action.action_id


def _version_of(message: Kept | None) -> int:
    return message.members_version if isinstance(message, NewGroupMessage) else 0
