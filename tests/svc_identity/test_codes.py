"""Whoever asks for a code learns nothing of a number: the same work is done for one that has an account."""

from typing import Any

import pytest

from chappe.runtime.clock import Seams
from chappe.runtime.errors import RateLimitedError
from svc_identity.adapters.database_postgres import Database, Work
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.adapters.sms_sender_memory import MemorySmsSender
from svc_identity.model import Phone
from svc_identity.service.registration import CodeLimits, RegistrationRules, Started
from tests.svc_identity.people import POLICY, RANDOM, ToldClock, new_phone, register

ADDRESS = "192.0.2.7"


class Overheard:
    """The statements that a database is asked to run, without their values, and how many rows each had to do with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[tuple[str, int]] = []
        for name in ("rows", "row", "run"):
            monkeypatch.setattr(Work, name, self._overhearing(getattr(Work, name)))

    def _overhearing(self, ask: Any) -> Any:
        async def overhear(work: Work, query: str, *parameters: object) -> Any:
            answer = await ask(work, query, *parameters)
            self.statements.append((query, answer if isinstance(answer, int) else len(answer or ())))
            return answer

        return overhear

    def taken(self) -> list[tuple[str, int]]:
        """Returns what was asked since the last time."""
        taken, self.statements = self.statements, []
        return taken


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> Overheard:
    return Overheard(monkeypatch)


@pytest.fixture
def sms() -> MemorySmsSender:
    return MemorySmsSender()


@pytest.fixture
def rules(database: Database, sms: MemorySmsSender, clock: ToldClock) -> RegistrationRules:
    store = postgres_identity_store(database, 100)
    return RegistrationRules(store.registrations, sms, Seams(clock, RANDOM), CodeLimits(POLICY, 20, 50), b"pepper")


async def test_26_a_number_with_an_account_costs_the_same_statements_and_one_code(
    rules: RegistrationRules, database: Database, sms: MemorySmsSender, clock: ToldClock, overheard: Overheard
) -> None:
    known, unknown = await numbers(database, clock)
    # The first of a range and of an hour begins the budgets that the others find.
    await rules.start(new_phone(), ADDRESS, shows_code=False)
    overheard.taken()
    sms.sent.clear()

    asked = {
        phone: (await rules.start(phone, ADDRESS, shows_code=False), overheard.taken()) for phone in (known, unknown)
    }
    # Too soon: a refusal, which must not tell them apart either.
    refused = {phone: (await refusal(rules, phone), overheard.taken()) for phone in (known, unknown)}

    assert [phone for phone, _ in sms.sent] == [known, unknown]
    assert shape(asked[known][0]) == shape(asked[unknown][0])
    assert asked[known][1] == asked[unknown][1] != []
    assert refused[known] == refused[unknown]
    statements = [query for query, _ in asked[known][1] + refused[known][1]]
    assert [query for query in statements if "users" in query or "devices" in query] == []


async def numbers(database: Database, clock: ToldClock) -> tuple[Phone, Phone]:
    """Returns a number with an account and one without, to which no code has gone for a day."""
    known = new_phone()
    await register(postgres_identity_store(database, 100), known)
    clock.pass_s(25 * 3600)
    return known, new_phone()


async def refusal(rules: RegistrationRules, phone: Phone) -> tuple[str, str, Any]:
    """Asks for a code that is refused; returns what is said."""
    with pytest.raises(RateLimitedError) as caught:
        await rules.start(phone, ADDRESS, shows_code=False)
    return caught.value.reason, caught.value.message, caught.value.metadata


def shape(started: Started) -> tuple[int, int, str]:
    """Returns what is told, but for the drawn bytes."""
    return len(started.verification_id), started.resend_after_ms, started.development_code
