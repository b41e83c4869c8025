"""Targets stand for addresses, and rendezvous hashing spreads keys over them."""

import asyncio
import collections
import hashlib
from typing import Any

import pytest

from chappe.runtime import replicas
from chappe.runtime.clock import SystemClock
from chappe.runtime.replicas import Replicas, rendezvous, resolve
from chappe.runtime.tasks import Tasks


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


class StubStream:
    """A stream whose polite end takes as long as its replicas need to be resolved once more."""

    is_accepting = True

    def __init__(self, clock: "TickingClock") -> None:
        self.clock = clock
        self.is_closed = False

    async def aclose(self) -> None:
        self.clock.tick.set()
        for _ in range(3):
            await resolve("dns:///localhost:7000")
        self.is_closed = True


class TickingClock(SystemClock):
    """A clock whose only sleep lasts until a test ends it."""

    def __init__(self) -> None:
        self.tick = asyncio.Event()

    async def sleep(self, delay_s: float) -> None:
        await self.tick.wait()
        self.tick.clear()


async def test_nothing_is_dialled_again_once_the_replicas_are_closed() -> None:
    clock = TickingClock()
    dialled: list[StubStream] = []

    def connect(address: str) -> Any:
        dialled.append(StubStream(clock))
        return dialled[-1]

    async with Tasks() as tasks:
        kept: Replicas[Any] = Replicas("dns:///localhost:7000", connect, tasks=tasks, clock=clock)
        await kept.start()
        count = len(dialled)

        await kept.aclose()

        assert (len(dialled), kept.accepting) == (count, [])
        assert all(stream.is_closed for stream in dialled)


async def test_streams_follow_the_addresses_of_a_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = TickingClock()
    changes = asyncio.Event()
    told: list[set[str] | OSError] = [{"a:1", "b:1"}, OSError("no such name"), {"b:1", "c:1"}]
    answers = iter(told)

    async def found(target: str) -> frozenset[str]:
        answer = next(answers)
        if isinstance(answer, OSError):
            clock.tick.set()
            raise answer
        return frozenset(answer)

    monkeypatch.setattr(replicas, "resolve", found)
    async with Tasks() as tasks:
        kept: Replicas[Any] = Replicas("dns:///name:1", lambda _: StubStream(clock), tasks=tasks, clock=clock)
        await kept.start()
        first = kept.streams["b:1"]
        kept.on_change = changes.set

        clock.tick.set()
        await asyncio.wait_for(changes.wait(), 10)

        assert sorted(kept.streams) == ["b:1", "c:1"]
        assert kept.streams["b:1"] is first
        assert "does not resolve" in caplog.text
