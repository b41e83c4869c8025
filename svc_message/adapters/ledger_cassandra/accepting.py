"""Makes messages durable: a row for each participant, and a pointer in the inbox of everyone entitled.

A first attempt that is young is written without looking. Whatever may have been there before is looked for, and what
is found is written again as the first attempt decided, under the fresh position: a row that is visible proves nothing
about the others.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra import copies
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies, set_body_void
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import Header, pointer_ttl_s
from svc_message.adapters.ledger_cassandra.connection import DEPENDENCY, Connection, Write
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.late import note_late
from svc_message.adapters.ledger_cassandra.lines import Touches, Touching, pair, touches_of
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.adapters.ledger_cassandra.recent import Recent
from svc_message.model import Accepted, Found, MessageRef, NewMessage, Verdict
from svc_message.model.group import NewGroupMessage
from svc_message.protocol import milliseconds_of

BLIND_AGE_MS: Final = 2_000
"""How old the id of a first attempt may be that is written without looking.

Less than the 4 s after which a client sends again: what stood still in between may find that the second attempt has
been decided, for another version of a group, or for ever.
"""


class Known(NamedTuple):
    """What is there under the id of a message, in whichever of its rows."""

    header: Header | None
    is_void: bool
    is_altered: bool
    """For everybody; what its sender alone has changed does not count."""
    is_over: bool


async def accept(
    connection: Connection, bounds: Bounds, touches: Touches, recent: Recent, batch: Sequence[NewMessage]
) -> list[Accepted]:
    """Stores a batch of new messages; completes those that are there."""
    if not batch:
        return []
    bounds.check(*[message.message_id for message in batch], *[message.position for message in batch])
    now_ms = bounds.now_ms()
    unsure = [message for message in batch if is_unsure(message)]
    looks = dict(zip(unsure, await look(connection, unsure, now_ms), strict=True)) if unsure else {}
    answers: list[Accepted] = []
    units: list[list[Write]] = []
    touching: list[Touching] = []
    unread: dict[CopyKey, Header] = {}
    for message in batch:
        known = looks.get(message) if looks else None
        header = Header.of(message) if known is None or known.header is None else known.header
        answer = _answer(message, header, known)
        answers.append(answer)
        if answer.verdict in {Verdict.STORED, Verdict.DUPLICATE} and not (known and known.is_over):
            units.append(list(_rows(message, header, now_ms)))
            touching.append(_touching(message, header))
        if known is None and not header.is_withheld:
            unread[CopyKey(message.recipient_id, message.conversation_id, message.message_id)] = header
    moved = list(touches_of(touching, touches))
    for unit, lines in zip(units, moved, strict=True):
        unit.extend(lines)
    await connection.write(units)
    touches.done([message for message, lines in zip(touching, moved, strict=True) if lines])
    recent.keep(unread)
    missing = [message for message, known in looks.items() if known.header is None and not known.is_void]
    await _look_again(connection, missing, now_ms)
    return answers


def is_unsure(message: NewMessage | NewGroupMessage) -> bool:
    """Tells whether an attempt before this one may be there."""
    return message.is_retry or message.accepted_ms - milliseconds_of(message.message_id) > BLIND_AGE_MS


async def look(
    connection: Connection, messages: Sequence[NewMessage] | Sequence[MessageRef], now_ms: int
) -> list[Known]:
    """Looks messages up wherever any of their rows may be, in order."""
    keys = [key for message in messages for key in _keys(message)]
    found = await read_copies(connection, keys)
    bodies = await read_bodies(connection, [key for message in messages for key in _body_keys(message)])
    return [
        _known([found.get(key) for key in _keys(message)] + [bodies.get(key) for key in _body_keys(message)], now_ms)
        for message in messages
    ]


async def find(connection: Connection, bounds: Bounds, refs: Sequence[MessageRef]) -> list[Found | None]:
    """Looks messages up, in order."""
    return [_found(known) for known in await look(connection, refs, bounds.now_ms())]


async def declare_void(connection: Connection, bounds: Bounds, refs: Sequence[MessageRef]) -> list[bool]:
    """Writes void where nothing is; says of each whether it is void now."""
    if not refs:
        return []
    bounds.check(*[ref.message_id for ref in refs])
    before = await look(connection, refs, bounds.now_ms())
    missing = [ref for ref, known in zip(refs, before, strict=True) if known.header is None and not known.is_void]
    if not missing:
        return [known.is_void for known in before]
    await connection.write([list(_set_void(ref, is_withdrawn=False)) for ref in missing])
    after = dict(zip(missing, await look(connection, missing, bounds.now_ms()), strict=True))
    late = [ref for ref, known in after.items() if known.header is not None]
    await connection.write([list(_set_void(ref, is_withdrawn=True)) for ref in late])
    return [
        known.is_void if ref not in after else after[ref].header is None
        for ref, known in zip(refs, before, strict=True)
    ]


def _answer(message: NewMessage, header: Header, known: Known | None) -> Accepted:
    if known is None:
        return Accepted(Verdict.STORED, message.accepted_ms, message.is_withheld)
    if known.is_void:
        return Accepted(Verdict.VOID, 0, is_withheld=False)
    if known.header is None:
        return Accepted(Verdict.STORED, message.accepted_ms, message.is_withheld)
    is_same = (header.content_hash, header.sender_id) == (message.content_hash, message.sender_id)
    verdict = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
    return Accepted(verdict, header.accepted_ms, header.is_withheld, known.is_altered or known.is_over)


def _rows(message: NewMessage, header: Header, now_ms: int) -> Iterator[Write]:
    message_id, conversation_id = message.message_id, message.conversation_id
    cells = (header.cell(), header.envelope_cell(message.envelope))
    place = Place(message.position)
    ttl_s = pointer_ttl_s(header.expires_ms, now_ms)
    for user_id in header.seers:
        yield from copies.store(CopyKey(user_id, conversation_id, message_id), header, cells, now_ms)
        yield place.message(user_id, conversation_id, message_id, ttl_s)
    yield from note_late(message, header, now_ms)


def _touching(message: NewMessage, header: Header) -> Touching:
    return Touching(
        message.message_id,
        message.conversation_id,
        header.sender_id,
        header.recipient_id,
        header.is_withheld,
        message.accepted_ms,
    )


async def _look_again(connection: Connection, messages: Sequence[NewMessage], now_ms: int) -> None:
    """Makes sure that what was not there, and is now, was not declared void meanwhile."""
    if messages and any(known.is_void for known in await look(connection, messages, now_ms)):
        raise UnavailableError(DEPENDENCY, "an id is being declared void at this moment; send again")


def _known(rows: Sequence[Copy | None], now_ms: int) -> Known:
    there = [row for row in rows if row is not None]
    # Of two first attempts that met, the one whose cells win on every row; the sender's row may not have both.
    headers = sorted((row.header for row in there if row.header is not None), key=Header.cell, reverse=True)
    public = rows[-1] if rows and rows[-1] is not None else rows[0]
    return Known(
        headers[0] if headers else None,
        any(row.is_void for row in there),
        public is not None and public.is_altered,
        any(row.is_over(now_ms) for row in there),
    )


def _found(known: Known) -> Found | None:
    if known.is_void:
        return Found(is_void=True, content_hash=b"", accepted_ms=0, is_withheld=False)
    if known.header is None:
        return None
    header = known.header
    return Found(
        is_void=False,
        content_hash=header.content_hash,
        accepted_ms=header.accepted_ms,
        is_withheld=header.is_withheld,
        is_spent=known.is_over,
    )


def _keys(message: NewMessage | MessageRef) -> list[CopyKey]:
    """Returns the rows of a direct message, the recipient's last."""
    conversation_id, message_id = message.conversation_id, message.message_id
    if _is_to_group(message):
        return []
    users = dict.fromkeys((message.sender_id, message.recipient_id))
    return [CopyKey(user_id, conversation_id, message_id) for user_id in users]


def _body_keys(message: NewMessage | MessageRef) -> list[BodyKey]:
    """Returns the row of a message to a group: the group stands where the recipient would."""
    if not _is_to_group(message):
        return []
    return [BodyKey(message.conversation_id, message.message_id)]


def _is_to_group(message: NewMessage | MessageRef) -> bool:
    return bytes(message.recipient_id) == message.conversation_id


def _set_void(ref: MessageRef, *, is_withdrawn: bool) -> Iterator[Write]:
    for key in _keys(ref):
        yield copies.set_void(key, is_withdrawn=is_withdrawn)
    if not _is_to_group(ref):
        yield pair(ref)
    for body_key in _body_keys(ref):
        yield set_body_void(body_key, is_withdrawn=is_withdrawn)
