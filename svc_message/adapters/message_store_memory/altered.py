"""What became of messages: for everybody, and for the eyes of one user alone."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

from svc_message.model import ConversationId, MessageId, UserId
from svc_message.model.action import ActionKind, NewAction, Reaction

REACTIONS_SHOWN: Final = 50


class Altered(NamedTuple):
    """What became of one message."""

    edit_id: bytes = b""
    edited_ms: int = 0
    envelope: bytes = b""
    """Of the edit."""
    revoked_ms: int = 0
    is_hidden: bool = False


class _Reaction(NamedTuple):
    """A user's reaction to a message."""

    reaction_id: MessageId
    reacted_ms: int
    envelope: bytes


_Said = TypeVar("_Said", Altered, _Reaction)
_Place = tuple[ConversationId, MessageId]
_AS_SENT: Final = Altered()


class Alterations:
    """What became of the messages of a book."""

    def __init__(self) -> None:
        self._public: dict[_Place, Altered] = {}
        self._private: dict[tuple[UserId, _Place], Altered] = {}
        # By the version of the group in which it was said, 0 in a direct conversation: who has left sees what was said
        # before.
        self._contents: defaultdict[_Place, dict[int, Altered]] = defaultdict(dict)
        self._reactions: defaultdict[tuple[_Place, UserId, bool], dict[int, _Reaction]] = defaultdict(dict)

    def public(self, place: _Place) -> Altered:
        """Returns what became of a message for everybody."""
        return self._public.get(place, _AS_SENT)

    def seen(self, user_id: UserId, place: _Place, left_version: int = 0) -> Altered:
        """Returns what became of a message as one user sees it; without an edit when it was taken back."""
        public, own = self.public(place), self._private.get((user_id, place), _AS_SENT)
        revoked_ms = public.revoked_ms or own.revoked_ms
        if left_version:
            public = _before(self._contents.get(place, {}), left_version) or _AS_SENT
        edit_id, edited_ms, envelope, _, _ = _AS_SENT if revoked_ms else max(public, own)
        return Altered(edit_id, edited_ms, envelope, revoked_ms, own.is_hidden)

    def reaction(self, place: _Place, user_id: UserId, *, is_withheld: bool, left_version: int = 0) -> _Reaction | None:
        """Returns a user's reaction to a message, the one that everybody sees or the one that it alone does."""
        return _before(self._reactions.get((place, user_id, is_withheld), {}), left_version)

    def reactions(self, reader_id: UserId, place: _Place, left_version: int = 0) -> tuple[Reaction, ...]:
        """Returns who reacted to a message, as one user sees it, the newest first."""
        if self.seen(reader_id, place).revoked_ms:
            return ()
        newest: dict[UserId, _Reaction] = {}
        for (where, user_id, is_withheld), by_version in self._reactions.items():
            reaction = _before(by_version, left_version)
            if reaction and where == place and (not is_withheld or user_id == reader_id):
                newest[user_id] = max(reaction, newest.get(user_id, reaction))
        shown = sorted(((r, user_id) for user_id, r in newest.items() if r.envelope), reverse=True)
        return tuple(
            Reaction(r.reaction_id, user_id, r.reacted_ms, r.envelope) for r, user_id in shown[:REACTIONS_SHOWN]
        )

    def forget(self, place: _Place) -> None:
        """Forgets everything that became of a message."""
        self._public.pop(place, None)
        self._contents.pop(place, None)
        for key in [key for key in self._private if key[1] == place]:
            del self._private[key]
        for name in [name for name in self._reactions if name[0] == place]:
            del self._reactions[name]

    def carry_out(self, action: NewAction) -> None:
        """Lets an action take its effect."""
        place = (action.conversation_id, action.message_id)
        if action.kind is ActionKind.REACTION:
            self._react(place, action)
        elif action.kind is ActionKind.HIDE:
            self._change_own(action, self._own(action, place)._replace(is_hidden=True))
        elif action.kind is ActionKind.REVOKE:
            self._revoke(place, action)
        else:
            self._edit(place, action)

    def _edit(self, place: _Place, action: NewAction) -> None:
        edit = (action.action_id, action.accepted_ms, action.envelope)
        public = self.public(place)
        before = self._own(action, place) if action.is_withheld else public
        after = Altered(*edit, 0, before.is_hidden)
        if public.revoked_ms or before.revoked_ms:
            return
        if not action.is_withheld:
            contents = self._contents[place]
            contents[action.group_version] = max(after, contents.get(action.group_version, after))
        if action.action_id < before.edit_id:
            return
        if action.is_withheld:
            self._change_own(action, after)
        else:
            self._public[place] = after

    def _revoke(self, place: _Place, action: NewAction) -> None:
        if action.is_withheld:
            own = self._own(action, place)
            revoked_ms = own.revoked_ms or action.accepted_ms
            self._change_own(action, own._replace(revoked_ms=revoked_ms, envelope=b""))
            return
        public = self.public(place)
        revoked_ms = public.revoked_ms or action.accepted_ms
        self._public[place] = public._replace(revoked_ms=revoked_ms, envelope=b"")
        self._contents.pop(place, None)
        for key in [key for key in self._private if key[1] == place]:
            self._private[key] = self._private[key]._replace(envelope=b"")
        for name, by_version in self._reactions.items():
            if name[0] == place:
                self._reactions[name] = {n: reaction._replace(envelope=b"") for n, reaction in by_version.items()}

    def _react(self, place: _Place, action: NewAction) -> None:
        if self.public(place).revoked_ms:
            return
        by_version = self._reactions[place, action.user_id, action.is_withheld]
        reaction = _Reaction(action.action_id, action.accepted_ms, action.envelope)
        by_version[action.group_version] = max(reaction, by_version.get(action.group_version, reaction))

    def _own(self, action: NewAction, place: _Place) -> Altered:
        return self._private.get((action.user_id, place), _AS_SENT)

    def _change_own(self, action: NewAction, after: Altered) -> None:
        self._private[action.user_id, (action.conversation_id, action.message_id)] = after


def _before(by_version: Mapping[int, _Said], left_version: int) -> _Said | None:
    """Returns the greatest of what was said before a version, or ever for 0."""
    return max((said for n, said in by_version.items() if not left_version or n < left_version), default=None)
