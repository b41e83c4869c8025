"""Cuts lists into pages whose tokens only their list and their user can go on from."""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from svc_identity.model import UserId
from svc_identity.protocol.page import page_size, page_start, page_token

_Entry = TypeVar("_Entry")


class Page(NamedTuple, Generic[_Entry]):
    """Some entries of a list."""

    entries: list[_Entry]
    next_token: str
    """Empty after the last page."""


class Listing(NamedTuple):
    """One list of one user."""

    pepper: bytes
    what: str
    """Which list it is, among all."""
    user_id: UserId

    def start(self, token: str) -> bytes:
        """Returns the entry after which a page begins; raises InvalidPageTokenError."""
        return page_start(self.pepper, self.what, self.user_id, token)

    def page(self, found: Sequence[_Entry], asked_size: int, key_of: Callable[[_Entry], bytes]) -> Page[_Entry]:
        """Returns a page.

        Args:
            found: Entries in order, one more than fits when there are more.
            asked_size: How many were asked for.
            key_of: After what the list goes on behind an entry.
        """
        size = page_size(asked_size)
        if len(found) <= size:
            return Page(list(found), "")
        return Page(list(found[:size]), page_token(self.pepper, self.what, self.user_id, key_of(found[size - 1])))
