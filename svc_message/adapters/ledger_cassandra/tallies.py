"""Counts receipts and lists them; a direct message has one recipient, and its receipt is on its sender's row."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import Header, integer, list_of_ids, ordered
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row
from svc_message.adapters.ledger_cassandra.copies import IDS_IN_READ, Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.group_receipts import receipts_of
from svc_message.adapters.ledger_cassandra.lines import read_pairs
from svc_message.model import ReceiptState, UserId
from svc_message.model.receipt import MemberReceipt, MessageName, Tally
from svc_message.protocol import is_group

COUNTED_ROWS: Final = 4096
"""About how many receipts one read counts: of one message, or of many to the same group."""

_PARTITION: Final = "FROM group_receipts WHERE conversation_id = ? AND hour = ?"
_COUNT: Final = f"""
    SELECT uuid_as_blob(message_id), count(*), count(read_ms) {_PARTITION} AND message_id IN ?
    GROUP BY conversation_id, hour, message_id
"""
_LIST: Final = f"""
    SELECT uuid_as_blob(user_id), delivered_ms, read_ms {_PARTITION} AND message_id = ? AND user_id > ? LIMIT ?
"""
_NOBODY: Final = UserId(bytes(16))


class _Sent(NamedTuple):
    """A message as its sender has it."""

    header: Header
    copy: Copy


async def tally(connection: Connection, bounds: Bounds, names: Sequence[MessageName]) -> list[Tally | None]:
    """Counts for many messages at once."""
    sent = await _sent(connection, names, bounds.now_ms())
    counted = {name: one.header for name, one in sent.items() if is_group(name.conversation_id)}
    counts = await _counts(connection, counted)
    return [_tally(sent.get(name), counts.get(name, (0, 0)) if name in counted else None) for name in names]


async def _counts(connection: Connection, counted: dict[MessageName, Header]) -> dict[MessageName, tuple[int, int]]:
    """Counts with how many a message was received and read; those of a partition together, for there are few."""
    partitions: dict[tuple[bytes, bytes], list[MessageName]] = {}
    for name, header in counted.items():
        partitions.setdefault(receipts_of(*name, header.recipient_count), []).append(name)
    parts = [
        (partition, names[start : start + size])
        for partition, names in partitions.items()
        for size in [min(max(COUNTED_ROWS // max(counted[names[0]].recipient_count, 1), 1), IDS_IN_READ)]
        for start in range(0, len(names), size)
    ]
    reads = [Read(_COUNT, (*partition, list_of_ids([name.message_id for name in part]))) for partition, part in parts]
    return {
        MessageName(part[0].conversation_id, message_id): (delivered, read)
        for (_, part), rows in zip(parts, await connection.read(reads), strict=True)
        for message_id, delivered, read in rows
    }


async def list_receipts(
    connection: Connection, bounds: Bounds, name: MessageName, page: tuple[UserId | None, int]
) -> list[MemberReceipt]:
    """Lists a page of one message: what comes after a user, and how many."""
    after, limit = page
    sent = (await _sent(connection, [name], bounds.now_ms())).get(name)
    if sent is None:
        return []
    if not is_group(name.conversation_id):
        receipt = _direct(sent)
        return [receipt] if receipt is not None and receipt.user_id > (after or b"") else []
    values = (*_slice(name, sent.header), ordered(after or _NOBODY), integer(limit))
    (rows,) = await connection.read([Read(_LIST, values)])
    return [_receipt(row) for row in rows]


async def _sent(connection: Connection, names: Sequence[MessageName], now_ms: int) -> dict[MessageName, _Sent]:
    """Reads messages: of groups the bodies, of others the rows of their senders."""
    to_groups = [name for name in names if is_group(name.conversation_id)]
    direct = [name for name in names if not is_group(name.conversation_id)]
    bodies = await read_bodies(connection, [BodyKey(*name) for name in to_groups], is_whole=False)
    found = {name: bodies.get(BodyKey(*name)) for name in to_groups}
    pairs = await read_pairs(connection, [name.conversation_id for name in direct])
    keys = [(name, CopyKey(user_id, *name)) for name, pair in zip(direct, pairs, strict=True) for user_id in set(pair)]
    copies = await read_copies(connection, [key for _, key in keys])
    for name, key in keys:
        copy = copies.get(key)
        if copy is not None and copy.header is not None and copy.header.sender_id == key.user_id:
            found[name] = copy
    return {
        name: _Sent(copy.header, copy)
        for name, copy in found.items()
        if copy is not None and copy.header is not None and copy.is_there(now_ms)
    }


def _slice(name: MessageName, header: Header) -> tuple[bytes, ...]:
    return (*receipts_of(*name, header.recipient_count), name.message_id)


def _tally(sent: _Sent | None, counts: tuple[int, int] | None) -> Tally | None:
    if sent is None:
        return None
    header = sent.header
    if counts is not None:
        return Tally(header.sender_id, header.recipient_count, *counts)
    receipt = _direct(sent)
    recipients = int(header.recipient_id != header.sender_id)
    is_read = receipt is not None and receipt.state is ReceiptState.READ
    return Tally(header.sender_id, recipients, int(receipt is not None), int(is_read))


def _direct(sent: _Sent) -> MemberReceipt | None:
    header, copy = sent
    if not (copy.delivered_ms or copy.read_ms):
        return None
    return _receipt((header.recipient_id, copy.delivered_ms, copy.read_ms))


def _receipt(row: Row) -> MemberReceipt:
    user_id, delivered_ms, read_ms = row
    state = ReceiptState.READ if read_ms else ReceiptState.DELIVERED
    return MemberReceipt(user_id, state, delivered_ms or read_ms or 0, read_ms or 0)
