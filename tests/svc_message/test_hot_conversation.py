"""A conversation of 100,000 messages is read as one of a hundred is: what a page costs depends on the page."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import psycopg
import pytest

from svc_message.adapters.ledger_cassandra import copies
from svc_message.adapters.ledger_cassandra.cells import Header, bucket_of, smallint
from svc_message.adapters.ledger_cassandra.connection import Read, Write
from svc_message.adapters.ledger_cassandra.copies import CopyKey
from svc_message.adapters.ledger_cassandra.lines import Touching, touch
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.adapters.message_store_postgres.history import paging
from svc_message.model import ConversationId, MessageId, PageRead, UserId
from svc_message.protocol import direct_conversation
from tests.svc_message.cut import Cut
from tests.svc_message.desk import START_MS, Desk, ids
from tests.svc_message.test_message_store_postgres import rows_read

MESSAGES: Final = 100_000
DAYS: Final = 360
"""They are written in so many days, which are four buckets or five."""
MAX_ROWS: Final = 100_000
MAX_BYTES: Final = 100 * 2**20
"""What a partition is to hold at most."""
ENVELOPE: Final = bytes(300)
PAGE: Final = 50
TOGETHER: Final = 80
"""How many rows go in a batch, which a cluster takes."""
_STEP_MS: Final = DAYS * 86_400_000 // MESSAGES


class Hot(NamedTuple):
    """A conversation of alice with bob that has many messages, oldest first."""

    alice: UserId
    conversation_id: ConversationId
    ids: list[MessageId]

    def pages(self) -> list[tuple[PageRead, list[MessageId]]]:
        """Returns reads of pages at both ends, in the middle, and where one bucket ends, with what each is to find."""
        edge = next(n for n, one in enumerate(self.ids) if bucket_of(one) != bucket_of(self.ids[0]))
        places = [PAGE, edge + PAGE // 2, len(self.ids) // 2, len(self.ids) - 1]
        before = [(self._read(before=self.ids[n]), self.ids[n - PAGE : n][::-1]) for n in places]
        after = [(self._read(after=self.ids[n - PAGE]), self.ids[n - PAGE + 1 : n + 1][::-1]) for n in places]
        return [(self._read(), self.ids[-PAGE:][::-1]), *before, *after]

    def _read(self, *, before: bytes = b"", after: bytes = b"") -> PageRead:
        return PageRead(self.alice, self.conversation_id, before, after, PAGE)


def hot_of(desk: Desk) -> Hot:
    times = [START_MS - n * _STEP_MS for n in reversed(range(MESSAGES))]
    minted = [MessageId(desk.uuid7(unix_ms)) for unix_ms in times]
    return Hot(desk.alice, direct_conversation(desk.alice, desk.bob), minted)


async def store_on_cassandra(cut: Cut, desk: Desk, hot: Hot) -> int:
    """Writes alice's rows as the store does, and her line with every bucket; returns how many bytes a row has."""
    rows = [row for message_id in hot.ids for row in rows_of(desk, hot, message_id)]
    for place in range(0, MESSAGES, 50 * TOGETHER):
        # Not more at once than a connection has numbers for.
        await cut.write([rows[start : start + TOGETHER] for start in range(place, place + 50 * TOGETHER, TOGETHER)])
    newest = {bucket_of(one): one for one in hot.ids}
    moving = [Touching(one, hot.conversation_id, desk.alice, desk.bob, False, 0) for one in newest.values()]  # noqa: FBT003 - by column
    await cut.write([[touch(desk.alice, desk.bob, one)] for one in moving])
    return sum(map(len, rows[0].values))


def rows_of(desk: Desk, hot: Hot, message_id: MessageId) -> Iterator[Write]:
    message = desk.write(ENVELOPE, message_id=message_id)
    header = Header.of(message._replace(accepted_ms=int.from_bytes(message_id[:6], "big")))
    key = CopyKey(hot.alice, hot.conversation_id, message_id)
    return copies.store(key, header, (header.cell(), header.envelope_cell(message.envelope)), 0)


@pytest.mark.timeout(180)
async def test_62_on_cassandra_no_partition_grows_without_end_and_every_page_is_a_read_or_two(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    hot = hot_of(desk)
    row_bytes = await store_on_cassandra(cut, desk, hot)

    in_bucket = Counter(map(bucket_of, hot.ids))
    count = "SELECT count(*) FROM messages WHERE user_id = ? AND conversation_id = ? AND bucket = ?"
    found = await cut.read([Read(count, (hot.alice, hot.conversation_id, smallint(bucket))) for bucket in in_bucket])
    assert [rows for ((rows,),) in found] == list(in_bucket.values())
    assert len(in_bucket) >= DAYS // 90
    assert max(in_bucket.values()) <= MAX_ROWS
    assert max(in_bucket.values()) * row_bytes <= MAX_BYTES

    reads = list[int]()
    for read, expected in hot.pages():
        cut.partitions_read = 0
        assert ids(await cut_store.read_page(read)) == expected
        reads.append(cut.partitions_read)
    # The line of the chat list, the bucket of the place, and the next one where that ends within the page.
    assert (max(reads), sum(one > 2 for one in reads)) == (3, 2)


@pytest.mark.timeout(180)
async def test_62_on_postgres_every_page_reads_a_few_rows(
    postgres_store: PostgresMessageStore, ledger_dsn: str, desk: Desk
) -> None:
    hot = hot_of(desk)
    columns = """
        conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms, sender_device_id, kind, is_withheld,
        content_hash, envelope
    """
    async with await psycopg.AsyncConnection.connect(ledger_dsn, autocommit=True) as connection:
        await connection.execute(
            f"INSERT INTO messages ({columns}) "  # noqa: S608 - constants
            "SELECT %s, id, %s, %s, id, 1, 1, 1, false, '', %s FROM unnest(%s::uuid[]) AS t (id)".encode(),
            (hot.conversation_id.hex(), desk.alice.hex(), desk.bob.hex(), ENVELOPE, [one.hex() for one in hot.ids]),
        )
        await connection.execute(b"ANALYZE messages")

    rows = list[int]()
    for read, expected in hot.pages():
        assert ids(await postgres_store.read_page(read)) == expected
        rows.append(await rows_read(ledger_dsn, paging(read)))

    assert max(rows) <= 2 * PAGE
