"""Targets stand for addresses, and rendezvous hashing spreads keys over them."""

import collections
import hashlib

import pytest

from chappe.runtime.replicas import rendezvous, resolve


async def test_a_list_of_addresses_is_taken_as_it_is() -> None:
    assert await resolve("10.0.0.1:7000, 10.0.0.2:7001") == {"10.0.0.1:7000", "10.0.0.2:7001"}


async def test_a_name_resolves_to_its_addresses() -> None:
    assert "127.0.0.1:7000" in await resolve("dns:///localhost:7000")


async def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(OSError, match=r"not known|failure|No address"):
        await resolve("dns:///no-such-name.invalid:7000")


def test_a_new_replica_takes_only_its_own_share_of_the_keys() -> None:
    keys = [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(3000)]
    two, three = frozenset({"a:1", "b:1"}), frozenset({"a:1", "b:1", "c:1"})

    before = {key: rendezvous(key, two) for key in keys}
    after = {key: rendezvous(key, three) for key in keys}

    moved = [key for key in keys if before[key] != after[key]]
    assert {after[key] for key in moved} == {"c:1"}
    assert all(800 < count < 1200 for count in collections.Counter(after.values()).values())
