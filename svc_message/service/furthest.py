"""Reads of one person in one conversation that meet in a batch: the furthest stands for all of them.

While a store is slow the same people go on reading, so that a batch holds many reads of each. Looked up one by one they
would make it slower yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_message.model import SendGroupRead, SendRead, SendRequest

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence


class Furthest(NamedTuple):
    """A read that stands for some of a batch."""

    request: SendRequest
    """The furthest of them; of as many attempts as any."""
    slots: list[int]
    """The places of those that it stands for, its own too."""


def furthest(batch: Sequence[SendRequest], slots: Iterable[int]) -> list[Furthest]:
    """Returns those reads of some of a batch that stand for all of them; what names single messages stands for itself.

    A read that goes on stands for none that begins, and the other way round.
    """
    found: dict[Hashable, Furthest] = {}
    for slot in slots:
        request = batch[slot]
        kind = slot if _read(request).message_ids else _kind(request)
        rival = found.get(kind)
        if rival is None:
            found[kind] = Furthest(request, [slot])
            continue
        rival.slots.append(slot)
        further = max(rival.request, request, key=_upto)
        attempt = max(rival.request.attempt, request.attempt)
        found[kind] = Furthest(further._replace(attempt=attempt), rival.slots)
    return list(found.values())


def left_of(request: SendRequest, rest: bytes) -> SendRequest | None:
    """Returns what is left of a read once everything up to `rest` is read, which is everything when that is empty."""
    action = _read(request)
    if not rest or action.read_upto <= rest:
        return None
    return request._replace(action=action._replace(read_after=rest))


def _kind(request: SendRequest) -> Hashable:
    action = _read(request)
    conversation = action.group_id if isinstance(action, SendGroupRead) else action.peer_id
    return request.user_id, conversation, action.read_after


def _upto(request: SendRequest) -> bytes:
    return _read(request).read_upto


def _read(request: SendRequest) -> SendRead | SendGroupRead:
    action = request.action
    assert isinstance(action, SendRead | SendGroupRead)  # noqa: S101 - the door sorts sends by action
    return action
