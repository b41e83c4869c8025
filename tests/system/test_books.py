"""What a crowd still expects is known however it is asked for."""

from tests.system.books import DELIVERED, READ, Books, Due

ALICE, BOB = "a/1", "b/1"
FIRST, SECOND = (bytes([number]) * 16 for number in (1, 2))
NOBODY = frozenset[str]()


def acknowledged() -> Books:
    """Alice has sent two messages to Bob."""
    books = Books()
    for message_id in (FIRST, SECOND):
        books.stored(message_id, Due(frozenset({BOB}), NOBODY, frozenset({ALICE})))
    return books


def test_everything_has_arrived_once_the_last_of_it_has() -> None:
    books = acknowledged()

    seen = [books.has_arrived(NOBODY)]
    for message_id in (SECOND, FIRST):
        books.applied(message_id, BOB)
        seen.append(books.has_arrived(NOBODY))

    assert seen == [False, False, True]


def test_what_was_settled_is_so_no_more_when_it_is_read() -> None:
    books = acknowledged()
    for message_id in (FIRST, SECOND):
        books.applied(message_id, BOB)
        books.ticked(message_id, ALICE, DELIVERED)
    before = books.is_settled(NOBODY)

    books.read([FIRST], BOB)
    between = books.is_settled(NOBODY)
    books.ticked(FIRST, ALICE, READ)

    assert (before, between, books.is_settled(NOBODY)) == (True, False, True)


def test_a_device_that_is_away_is_not_waited_for() -> None:
    books = acknowledged()

    assert not books.is_settled(NOBODY)
    assert books.is_settled(frozenset({BOB}))
