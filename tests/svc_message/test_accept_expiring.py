"""Messages that disappear: what they say, and what a retry gets whenever it comes."""

from __future__ import annotations

import pytest

from svc_message.model import MessageEvent, Refused, SendGroupMessage, SendMessage, SendRequest, Stored, expires_at
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, LedgerClock
from svc_message.service.retain import Retaining
from tests.svc_message.test_accept import ALICE, BOB, Ledger
from tests.svc_message.test_accept_group import GROUP, GroupLedger

EXPIRY_S = 60


@pytest.fixture
def ledger() -> Ledger:
    """Returns a ledger that knows Alice and Bob."""
    return Ledger()


def hush(ledger: Ledger, number: int = 0, expiry_s: int = EXPIRY_S) -> SendRequest:
    """Builds a send of Alice's that disappears."""
    return ledger.request(number)._replace(action=SendMessage(BOB, b"hush", expiry_s))


@pytest.mark.parametrize("is_looked_up", [False, True], ids=["known by heart", "looked up"])
async def test_a_message_says_when_it_disappears(ledger: Ledger, *, is_looked_up: bool) -> None:
    request = hush(ledger)
    if is_looked_up:
        ledger.directory.copies.clear()

    (answer,) = await ledger.send(request)

    assert isinstance(answer, Stored)
    (hint,) = ledger.dispatcher.hints
    assert isinstance(hint.event, MessageEvent)
    assert hint.event.expires_ms == expires_at(answer.accepted_ms, EXPIRY_S) == answer.accepted_ms + EXPIRY_S * 1000
    assert await ledger.inbox(BOB) == [request.message_id]
    ledger.clock.pass_s(EXPIRY_S)
    assert await ledger.inbox(BOB) == []


async def test_another_time_to_live_is_other_content(ledger: Ledger) -> None:
    await ledger.send(hush(ledger))

    (answer,) = await ledger.send(hush(ledger, expiry_s=EXPIRY_S + 1))

    assert isinstance(answer, Refused)
    assert answer.reason == "DUPLICATE_CONFLICT"


@pytest.mark.parametrize("wait_s", [EXPIRY_S + 1, FIRST_ACCEPT_AGE_MS / 1000 + 600])
@pytest.mark.parametrize("is_removed", [False, True], ids=["there", "removed"])
async def test_a_retry_of_what_has_disappeared_gets_the_first_answer_and_reaches_nobody(
    ledger: Ledger, wait_s: float, *, is_removed: bool
) -> None:
    request = hush(ledger)
    (first,) = await ledger.send(request)
    assert isinstance(first, Stored)
    ledger.clock.pass_s(wait_s)
    if is_removed:
        await Retaining(ledger.store.retention, LedgerClock(ledger.clock, bytes(8))).step()
    ledger.dispatcher.hints.clear()

    (answer,) = await ledger.send(request._replace(attempt=2))
    (other,) = await ledger.send(request._replace(attempt=2, action=SendMessage(BOB, b"other", EXPIRY_S)))

    assert answer == first._replace(is_duplicate=True)
    assert isinstance(other, Refused)
    assert other.reason == "DUPLICATE_CONFLICT"
    assert await ledger.inbox(BOB) == await ledger.inbox(ALICE) == []
    assert all(b"hush" not in repr(hint.event).encode() for hint in ledger.dispatcher.hints)


async def test_messages_to_groups_disappear_too() -> None:
    ledger = GroupLedger()
    request = ledger.request()._replace(action=SendGroupMessage(GROUP, b"hush", 0, EXPIRY_S))
    (first,) = await ledger.send(request)
    assert isinstance(first, Stored)
    (entry,) = ledger.expander.entries
    assert isinstance(entry.event, MessageEvent)
    assert entry.event.expires_ms == first.accepted_ms + EXPIRY_S * 1000

    ledger.clock.pass_s(EXPIRY_S)
    await Retaining(ledger.store.retention, LedgerClock(ledger.clock, bytes(8))).step()

    assert await ledger.send(request._replace(attempt=2)) == [first._replace(is_duplicate=True)]
    assert len(ledger.expander.entries) == 1
