"""Rules that need no door: keys and their rotation."""

import asyncio

import pytest

from chappe.runtime.clock import Seams
from chappe.runtime.errors import RateLimitedError
from svc_identity.ports import IdentityStore
from svc_identity.service.session import KEYS_LIFE_S, SessionRules
from tests.svc_identity.people import RANDOM, ToldClock


async def test_replicas_that_start_at_once_make_one_key(store: IdentityStore, clock: ToldClock) -> None:
    rules = [SessionRules(store.sessions, Seams(clock, RANDOM)) for _ in range(3)]

    await asyncio.gather(*(rule.ensure_key() for rule in rules))

    assert len(await rules[0].public_keys()) == 1


async def test_rotation_keeps_the_key_whose_tokens_live(store: IdentityStore, clock: ToldClock) -> None:
    rules = SessionRules(store.sessions, Seams(clock, RANDOM))
    await rules.ensure_key()
    (first,) = await rules.public_keys()

    with pytest.raises(RateLimitedError):
        await rules.rotate_key()
    clock.pass_s(20 * 60)
    second = await rules.rotate_key()

    assert [key.key_id for key in await rules.public_keys()] == [second, first.key_id]
    assert (await rules._signer(clock.wall_ms())).key_id == first.key_id
    clock.pass_s(60 + KEYS_LIFE_S)
    assert (await rules._signer(clock.wall_ms())).key_id == second
