"""Which rows flushes that run side by side lock, and in which order: none of them may wait for another in a circle."""

import asyncio
from collections.abc import Awaitable

import psycopg

from svc_message.adapters.group_store_postgres import PostgresGroupStore
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.model import DeviceId, UserId
from svc_message.model.action import ActionKind
from svc_message.model.group import NewGroupMessage, Window
from svc_message.model.receipt import MemberAck, MemberReadUpdate, ReadMessage, ReadOutcome
from svc_message.model.setting import SettingChange
from svc_message.protocol import direct_conversation, position_at
from tests.svc_message.desk import START_MS, Desk
from tests.svc_message.group_desk import Books, GroupDesk

ALWAYS = (Window(1, 0),)
WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'svc_message'
"""


class Line:
    """Holds a row, and lets others queue up behind it one after the other."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def queue(self, held: str, row: tuple[bytes, ...], *work: Awaitable[object]) -> list[object]:
        """Starts works while a row is held, each once those before it wait or are done; returns their results."""
        async with await psycopg.AsyncConnection.connect(self._dsn) as holder:
            await holder.execute(held.encode(), [part.hex() for part in row])
            tasks: list[asyncio.Task[object]] = []
            for n, one in enumerate(work, start=1):
                tasks.append(asyncio.ensure_future(_of(one)))
                await self._until_waiting(n, tasks[-1])
            await holder.rollback()
            return await asyncio.gather(*tasks)

    async def _until_waiting(self, count: int, last: asyncio.Task[object]) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as watcher:
            async with asyncio.timeout(30):
                while True:
                    cursor = await watcher.execute(WAITING)
                    row = await cursor.fetchone()
                    if last.done() or (row is not None and row[0] >= count):
                        return
                    await asyncio.sleep(0)


async def _of(work: Awaitable[object]) -> object:
    return await work


def reading(desk: GroupDesk, user_id: UserId, upto: bytes = b"") -> MemberReadUpdate:
    return MemberReadUpdate(
        user_id,
        DeviceId(1),
        desk.group_id,
        ALWAYS,
        upto,
        (),
        is_forced=False,
        position=desk.position(),
        recorded_ms=START_MS,
    )


async def two_groups(books: Books) -> tuple[tuple[GroupDesk, NewGroupMessage], tuple[GroupDesk, NewGroupMessage]]:
    """Returns two groups of the same people, by id, each with a message and its lines in their chat lists."""
    first, second = sorted((GroupDesk(), GroupDesk()), key=lambda desk: desk.group_id)
    second.alice, second.bob, second.carol = second.members = first.members
    said: list[tuple[GroupDesk, NewGroupMessage]] = []
    for desk in (first, second):
        message = desk.say()
        await books.groups.accept(desk.shard, [message])
        await books.groups.expand([desk.expand(message)], [desk.touch(message)])
        said.append((desk, message))
    return said[0], said[1]


async def test_reads_and_lines_of_chat_lists_lock_lines_in_one_order(ledger_dsn: str, postgres_books: Books) -> None:
    (first, one), (second, other) = await two_groups(postgres_books)
    bob, carol = first.bob, first.carol
    reads = [reading(second, bob, upto=other.message_id), reading(first, carol, upto=one.message_id)]
    groups = PostgresGroupStore(ledger_dsn)

    held = "SELECT FROM conversations WHERE user_id = %s AND conversation_id = %s FOR UPDATE"
    outcome, _ = await Line(ledger_dsn).queue(
        held,
        (bob, second.group_id),
        postgres_books.receipts.read(reads),
        groups.expand([], [first.touch(one, to=(carol,)), second.touch(other, to=(bob,))]),
    )
    await groups.aclose()

    assert isinstance(outcome, ReadOutcome)
    assert None not in outcome.own_reads


async def test_reads_lock_receipts_in_one_order(ledger_dsn: str, postgres_books: Books) -> None:
    (desk, message), _ = await two_groups(postgres_books)
    acks = [MemberAck(user_id, desk.group_id, ALWAYS, (message.message_id,)) for user_id in (desk.bob, desk.carol)]
    await postgres_books.receipts.acknowledge(acks, desk.position(), START_MS)
    # Their senders learn nothing of it, so that no note of news keeps the two apart.
    named = (ReadMessage(message.message_id, is_told=False),)
    bob, carol = (reading(desk, user_id)._replace(messages=named) for user_id in (desk.bob, desk.carol))

    held = "SELECT FROM group_receipts WHERE user_id = %s AND conversation_id = %s FOR UPDATE"
    outcomes = await Line(ledger_dsn).queue(
        held,
        (desk.carol, desk.group_id),
        postgres_books.receipts.read([carol, bob]),
        postgres_books.receipts.read([bob, carol]),
    )

    assert all(isinstance(outcome, ReadOutcome) for outcome in outcomes)


async def test_actions_of_several_kinds_lock_messages_in_one_order(
    ledger_dsn: str, postgres_books: Books, desk: Desk
) -> None:
    store = postgres_books.store
    first, second = sorted((desk.write(), desk.write()), key=lambda message: message.message_id)
    await store.accept([first, second])
    one = [desk.act(first, ActionKind.EDIT, b"x"), desk.act(second, ActionKind.REACTION, b"y", user=desk.bob)]
    other = [desk.act(second, ActionKind.EDIT, b"x"), desk.act(first, ActionKind.REACTION, b"y", user=desk.bob)]

    held = "SELECT FROM messages WHERE message_id = %s AND conversation_id = %s FOR UPDATE"
    row = (first.message_id, first.conversation_id)
    await Line(ledger_dsn).queue(held, row, store.actions.act(one), store.actions.act(other))


async def test_two_timers_of_a_new_chat_do_not_wait_for_each_other(ledger_dsn: str, postgres_books: Books) -> None:
    held = (
        "INSERT INTO conversations (user_id, conversation_id, peer_id, last_ms) VALUES (%s, %s, gen_random_uuid(), 0)"
    )
    timer = SettingChange(expiry_s=60)
    for _ in range(5):
        desk = Desk()
        low, high = sorted((desk.alice, desk.bob))
        changes = [
            desk.keep(timer, user=user, peer=peer, reaches_peer=True) for user, peer in ((low, high), (high, low))
        ]
        row = (low, changes[0].conversation_id)
        works = [postgres_books.store.settings.change(change, bytes(16)) for change in changes]
        await Line(ledger_dsn).queue(held, row, *works)


async def test_chats_that_come_back_do_not_wait_for_those_who_write(ledger_dsn: str, postgres_books: Books) -> None:
    store, desks = postgres_books.store, sorted((Desk(), Desk()), key=lambda desk: desk.bob)
    for desk in desks:
        await store.accept([desk.write()])
    # The greater reader archives first, and is found first.
    desks[0].position()
    for desk in desks:
        await store.settings.change(desk.keep(SettingChange(is_archived=True)), bytes(16))
        await store.accept([desk.write()])
    late = PostgresMessageStore(ledger_dsn)

    held = "SELECT FROM conversations WHERE user_id = %s AND conversation_id = %s FOR UPDATE"
    row = (desks[0].bob, direct_conversation(desks[0].alice, desks[0].bob))
    wake = store.retention.wake(START_MS, position_at(START_MS - 1000))
    await Line(ledger_dsn).queue(held, row, late.accept([desk.write() for desk in desks]), wake)
    await late.aclose()
