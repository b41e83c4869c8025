"""What every journal does: shards, marks, orphans, poison."""

import secrets

from svc_message.model import NO_POSITION, Position
from svc_message.model.group import NewGroupMessage, Shard, Undecodable
from svc_message.protocol import HORIZON_S, milliseconds_of, position_at
from svc_message.protocol.journal import SILENCE_S
from tests.svc_message.group_desk import Books, GroupDesk, entry_of

LIMIT = 1000


async def accept(books: Books, desk: GroupDesk, count: int) -> list[NewGroupMessage]:
    messages = [desk.say() for _ in range(count)]
    await books.groups.accept(desk.shard, messages)
    return messages


def later(position: Position, seconds: float) -> Position:
    return position_at(milliseconds_of(position) + int(seconds * 1000))


async def shards(books: Books, silence_s: float = 0.0) -> set[Shard]:
    return {orphan.shard for orphan in await books.journal.adopt(silence_s)}


async def test_entries_are_read_page_by_page_oldest_first(books: Books, group_desk: GroupDesk) -> None:
    messages = await accept(books, group_desk, 5)

    first = await books.journal.read(group_desk.shard, NO_POSITION, 3)
    second = await books.journal.read(group_desk.shard, first[-1].position, 3)

    assert [*first, *second] == [entry_of(message) for message in messages]


async def test_shards_do_not_see_each_others_entries(books: Books, group_desk: GroupDesk) -> None:
    await accept(books, group_desk, 1)

    assert await books.journal.read(Shard(secrets.randbits(64)), NO_POSITION, LIMIT) == []


async def test_a_shard_that_is_silent_is_an_orphan_with_its_mark(books: Books, group_desk: GroupDesk) -> None:
    (message,) = await accept(books, group_desk, 1)
    await books.journal.checkpoint(group_desk.shard, message.position)

    orphans = {orphan.shard: orphan.mark for orphan in await books.journal.adopt(-1.0)}

    assert orphans[group_desk.shard] == message.position
    assert group_desk.shard not in await shards(books, 60.0)


async def test_a_mark_never_goes_back(books: Books, group_desk: GroupDesk) -> None:
    first, second = await accept(books, group_desk, 2)
    await books.journal.checkpoint(group_desk.shard, second.position)

    await books.journal.checkpoint(group_desk.shard, first.position)
    await books.journal.advance(group_desk.shard, NO_POSITION)

    (mark,) = [orphan.mark for orphan in await books.journal.adopt(-1.0) if orphan.shard == group_desk.shard]
    assert mark == second.position


async def test_what_lies_long_before_the_mark_is_forgotten(books: Books, group_desk: GroupDesk) -> None:
    old, new = await accept(books, group_desk, 2)

    await books.journal.checkpoint(group_desk.shard, later(old.position, HORIZON_S))
    assert len(await books.journal.read(group_desk.shard, NO_POSITION, LIMIT)) == 2
    await books.journal.checkpoint(group_desk.shard, later(new.position, HORIZON_S + 1))

    assert await books.journal.read(group_desk.shard, NO_POSITION, LIMIT) == []


async def test_an_orphans_mark_moves_while_it_stays_one(books: Books, group_desk: GroupDesk) -> None:
    (message,) = await accept(books, group_desk, 1)
    await books.journal.advance(group_desk.shard, message.position)

    orphans = {orphan.shard: orphan.mark for orphan in await books.journal.adopt(-1.0)}

    assert orphans[group_desk.shard] == message.position


async def test_an_unknown_shard_is_not_begun_by_an_adopter(books: Books, group_desk: GroupDesk) -> None:
    await books.journal.advance(group_desk.shard, NO_POSITION)

    assert group_desk.shard not in await shards(books, -1.0)


async def test_a_shard_ends_once_everything_is_done(books: Books, group_desk: GroupDesk) -> None:
    first, second = await accept(books, group_desk, 2)

    assert not await books.journal.end(group_desk.shard, first.position)
    assert group_desk.shard in await shards(books, -1.0)
    assert await books.journal.end(group_desk.shard, second.position)

    assert group_desk.shard not in await shards(books, -1.0)
    assert await books.journal.read(group_desk.shard, NO_POSITION, LIMIT) == []


async def test_a_shard_of_a_process_that_has_come_back_is_not_ended(books: Books, group_desk: GroupDesk) -> None:
    (message,) = await accept(books, group_desk, 1)
    await books.journal.checkpoint(group_desk.shard, NO_POSITION)

    assert not await books.journal.end(group_desk.shard, message.position, SILENCE_S)
    assert await books.journal.end(group_desk.shard, message.position)


async def test_a_shard_that_was_ended_can_be_ended_again(books: Books, group_desk: GroupDesk) -> None:
    assert await books.journal.end(group_desk.shard, NO_POSITION)
    assert await books.journal.end(group_desk.shard, NO_POSITION)


async def test_poison_is_read_as_such_and_can_be_put_aside(books: Books, group_desk: GroupDesk) -> None:
    first, second = await accept(books, group_desk, 2)
    await books.spoil(first.position)

    poison, healthy = await books.journal.read(group_desk.shard, NO_POSITION, LIMIT)
    assert isinstance(poison, Undecodable)
    assert (poison.position, healthy) == (first.position, entry_of(second))
    await books.journal.park(group_desk.shard, [poison])
    await books.journal.park(group_desk.shard, [poison])

    assert await books.journal.read(group_desk.shard, NO_POSITION, LIMIT) == [entry_of(second)]


async def test_what_was_parked_comes_back_as_an_orphan(books: Books, group_desk: GroupDesk) -> None:
    (message,) = await accept(books, group_desk, 1)
    mend = await books.spoil(message.position)
    await books.journal.park(group_desk.shard, [Undecodable(message.position, "spoilt")])
    await mend()
    fresh = Shard(secrets.randbits(64))

    count = await books.journal.replay(fresh)

    assert count >= 1
    assert fresh in await shards(books, 1e6)
    assert entry_of(message) in await books.journal.read(fresh, NO_POSITION, LIMIT)
    assert await books.journal.replay(Shard(secrets.randbits(64))) == 0


async def test_nothing_is_replayed_when_nothing_was_parked(books: Books, group_desk: GroupDesk) -> None:
    await books.journal.replay(Shard(secrets.randbits(64)))

    assert await books.journal.replay(group_desk.shard) == 0
    assert group_desk.shard not in await shards(books, -1.0)
