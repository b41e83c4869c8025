"""What a ledger on Cassandra remembers of the messages that it has just stored."""

from svc_message.adapters.ledger_cassandra.cells import Header
from svc_message.adapters.ledger_cassandra.copies import CopyKey
from svc_message.adapters.ledger_cassandra.recent import KEPT, KEPT_MS, Recent
from svc_message.model import ConversationId, DeviceId, MessageId, UserId

ALICE, BOB, THEIRS = UserId(b"a" * 16), UserId(b"b" * 16), ConversationId(b"c" * 16)


def stored(number: int, accepted_ms: int = 1_000) -> tuple[CopyKey, Header]:
    key = CopyKey(BOB, THEIRS, MessageId(number.to_bytes(16, "big")))
    return key, Header(
        accepted_ms,
        bytes(16),
        is_withheld=False,
        expiry_s=0,
        sender_id=ALICE,
        recipient_id=BOB,
        sender_device_id=DeviceId(1),
    )


def test_a_row_is_given_out_once() -> None:
    recent = Recent()
    key, header = stored(1)
    recent.keep({key: header})

    first, second = recent.take(key, 1_001), recent.take(key, 1_001)

    assert first is not None
    assert (first.header, first.delivered_ms, first.read_ms, first.is_void) == (header, 0, 0, False)
    assert second is None


def test_an_old_row_is_read_again() -> None:
    recent = Recent()
    key, header = stored(1)
    recent.keep({key: header})

    assert recent.take(key, header.accepted_ms + KEPT_MS + 1) is None


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    recent = Recent()
    recent.keep(dict(stored(number) for number in range(KEPT + 2)))

    assert [recent.take(stored(number)[0], 1_001) is not None for number in (0, 1, 2, KEPT + 1)] == [
        False,
        False,
        True,
        True,
    ]
