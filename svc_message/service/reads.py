"""Which reads of a batch are refused, and which stand for others: of one person in one conversation the furthest.

While a store is slow the same people go on reading, so that a batch holds many reads of each. Looked up one by one they
would make it slower yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_message.model import Refused, SendGroupRead, SendRead, SendRequest
from svc_message.protocol import FUTURE_BOUND_MS, milliseconds_of
from svc_message.service.sift import not_minted_here, of_the_future

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from svc_message.model import Answer
    from svc_message.protocol import TagCache


class Furthest(NamedTuple):
    """A read that stands for some of a batch."""

    request: SendRequest
    """The furthest of them; of as many attempts as any."""
    slots: list[int]
    """The places of those that it stands for, its own too."""


def refusal_of(request: SendRequest, tags: TagCache, now_ms: int) -> Refused | None:
    """Returns why a read is refused for ever.

    Its id may be old, of a device that was offline, but it says since when a read that comes again has been tried: it
    must not lie after that.
    """
    if not tags.owns(request.user_id, request.device_id, request.message_id):
        return not_minted_here()
    minted_ms = milliseconds_of(request.message_id)
    if minted_ms > now_ms + FUTURE_BOUND_MS:
        return of_the_future(minted_ms - now_ms)
    action = _read(request)
    if not action.read_upto and not action.message_ids:
        return Refused("INVALID_FIELD", "read: name read_upto or message_ids")
    return None


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


def put_off(
    batch: Sequence[SendRequest], answers: list[Answer | SendRequest | None], reads: Iterable[Furthest]
) -> None:
    """Answers some reads with themselves, which leaves them to a later batch."""
    for read in reads:
        for slot in read.slots:
            answers[slot] = batch[slot]


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
