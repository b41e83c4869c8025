"""The rows of the table: what is run, what is counted, and what is written down."""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from svc_edge.protocol.session import FIRST_VERIFY_JITTER_S, FIRST_VERIFY_S
from tests.bench.driver import BenchError
from tests.bench.dying import measure_deaths
from tests.bench.meter import Cores, Memory, memory_of, probe_fsync, read_cores, slab_kib, used_s
from tests.bench.numbers import spread
from tests.bench.registry import registry
from tests.bench.stage import Stage
from tests.bench.starting import measure_starts

DRAINERS = 10
"""Half of them come back one after another, half at the same time."""
BESIDE_RATE = 1000
"""Direct messages each second beside the large group."""
_SENDERS = 20
_WARM_CHATS = 25
_WARM_SHARE = 0.2


class Sizes(NamedTuple):
    """How large a run is."""

    seconds: float
    """How long a row with traffic is measured, after warming up."""
    windows: int
    idle: int
    warm_idle: int
    waiting: int
    history: int
    pages: int
    registered: int
    """How many sessions an edge of the registry's own rows has."""
    open_chats: int
    in_flight: int
    group_people: int
    """How many people the groups of a row have together, unless one has more."""
    group_in_flight: int
    starts: int
    """How often the system is started to see how long it takes."""
    group_rate: float
    """Messages each second to the large group beside direct traffic."""
    calm_s: float
    """How long nothing happens before traffic: by then whoever has signed in has read its log the second time."""
    settle_s: float
    """How long nothing happens before memory is weighed and rows are counted."""
    warm_s: float
    """For how long there is traffic before the first row, where the ledger is in Cassandra."""


FULL = Sizes(
    seconds=10.0,
    windows=5,
    idle=2000,
    warm_idle=200,
    waiting=1000,
    history=10_000,
    pages=600,
    registered=20_000,
    open_chats=250,
    in_flight=2000,
    group_people=1000,
    group_in_flight=16,
    starts=5,
    group_rate=5.0,
    calm_s=FIRST_VERIFY_S + FIRST_VERIFY_JITTER_S + 0.5,
    settle_s=10.5,
    warm_s=60.0,
)
QUICK = Sizes(
    seconds=0.3,
    windows=3,
    idle=20,
    warm_idle=4,
    waiting=20,
    history=60,
    pages=6,
    registered=512,
    open_chats=10,
    in_flight=100,
    group_people=10,
    group_in_flight=4,
    starts=1,
    group_rate=5.0,
    calm_s=0.05,
    settle_s=0.05,
    warm_s=0.3,
)


@dataclass(kw_only=True, slots=True)
class Row:
    """One line of a table."""

    name: str
    table: str
    values: dict[str, float] = field(default_factory=dict)
    cpu_us: dict[str, float] = field(default_factory=dict)
    """CPU microseconds of each part for one message, page or connection; empty when not measured."""


class _Mark(NamedTuple):
    time_s: float
    done: int
    cpu: Any
    cores: Cores


class Runner:
    """Runs rows on a stage."""

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self._stage = stage
        self._sizes = sizes

    async def warm(self, people: int, seconds: float) -> None:
        """Lets people write to each other for so long, and hang up; a Java is slow before it has compiled itself."""
        stage, sizes = self._stage, self._sizes
        chats = min(_WARM_CHATS, people // 2)
        await stage.ask("connect", first=0, count=2 * chats)
        await stage.ask("closed", chats=chats, in_flight=sizes.in_flight)
        await asyncio.sleep(seconds)
        await stage.stop()
        await stage.ask("disconnect", first=0, count=2 * chats)
        await asyncio.sleep(min(1.0, sizes.settle_s))

    async def up(self) -> Row:
        """Measures how long `chappe up` takes, beside the stage, which does nothing meanwhile."""
        new, again = await measure_starts(self._sizes.starts, self._stage.ledger)
        values = {"new_s": new.ready_s, "first_message_s": new.first_message_s, "again_s": again.ready_s}
        return Row(name="up", table="up", values=values)

    async def deaths(self) -> Row:
        """Measures how long senders wait while one of several dies, beside the stage, which does nothing meanwhile."""
        found = await measure_deaths(self._stage.ledger, self._sizes.seconds)
        values = {
            "deaths": float(found.number),
            "acknowledged": float(found.acknowledged),
            "down_p99_ms": found.down_p99_ms,
            "p50_ms": found.whole.p50_s * 1000,
            "p99_ms": found.whole.p99_s * 1000,
            "gap_ms": found.whole.gap_s * 1000,
        }
        if found.resumed_s is not None:
            values["resumed_s"] = found.resumed_s
        return Row(name="deaths", table="deaths", values=values)

    async def durable(self, name: str, chats: int) -> Row:
        """Counts messages at the sender when the recipient's receipt arrives; a fixed number is in flight."""
        await self._stage.ask("connect", first=0, count=2 * chats)
        row = Row(name=name, table="durable")
        start = {"chats": chats, "in_flight": self._sizes.in_flight}
        await self._traffic(row, lambda: self._stage.ask("closed", **start))
        return row

    async def open(self, name: str, rate: int) -> Row:
        """Measures from the moment at which each message was to be sent, at a steady rate."""
        chats = self._sizes.open_chats
        await self._stage.ask("connect", first=0, count=2 * chats)
        row = Row(name=name, table="open")
        await self._traffic(row, lambda: self._stage.ask("open", chats=chats, rate=rate))
        return row

    async def group(self, name: str, size: int) -> Row:
        """Counts deliveries to the members of groups, all online; some messages are on their way at any time."""
        count = max(1, self._sizes.group_people // size)
        await self._stage.ask("connect", first=0, count=count * size)
        await self._stage.ask("groups", first=0, count=count, size=size)
        row = Row(name=name, table="group")
        before = await self._stage.lags()
        await self._traffic(row, lambda: self._stage.ask("closed_groups", in_flight=self._sizes.group_in_flight))
        row.values |= (await self._stage.lags()).since(before).summary_ms()
        return row

    async def beside(self, name: str, size: int) -> Row:
        """Measures direct messages at a steady rate while a large group of other people is written to."""
        chats, row = self._sizes.open_chats, Row(name=name, table="beside")
        await self._stage.ask("connect", first=0, count=2 * chats)
        async with self._stage.crowd() as crowd:
            await crowd.ask("register", count=size)
            await crowd.ask("connect", first=0, count=size)
            await crowd.ask("groups", first=0, count=1, size=size)

            async def start() -> None:
                await crowd.ask("open_groups", rate=self._sizes.group_rate)
                await self._stage.ask("open", chats=chats, rate=BESIDE_RATE)

            await self._traffic(row, start)
        return row

    async def idle(self, first: int) -> Row:
        """Weighs signed-in connections that do nothing."""
        stage, sizes = self._stage, self._sizes
        await stage.ask("connect", first=first, count=sizes.warm_idle)
        await asyncio.sleep(min(1.0, sizes.settle_s))
        before, slab_before, cpu_before = self._weigh(), slab_kib(), stage.cpu.read()
        start_s = time.perf_counter()
        answer = await stage.ask("connect", first=first + sizes.warm_idle, count=sizes.idle)
        took_s = time.perf_counter() - start_s
        cpu = used_s(cpu_before, stage.cpu.read())
        await asyncio.sleep(min(2.0, sizes.settle_s))
        after, slab_after = self._weigh(), slab_kib()
        await stage.ask("disconnect", first=first, count=sizes.warm_idle + sizes.idle)
        await asyncio.sleep(min(1.0, sizes.settle_s))
        connected = answer["connected"]
        values = {"connections": connected, "sign_ins_per_s": connected / took_s}
        for part in ("edge", "presence", "message"):
            values[f"{part}_uss_kb"] = (after[part].unique - before[part].unique) / connected
        values["edge_pss_kb"] = (after["edge"].proportional - before["edge"].proportional) / connected
        # Both ends of the loopback stand on this machine.
        values["slab_both_ends_kb"] = (slab_after - slab_before) / connected
        values |= {f"sign_in_{name}": value for name, value in answer["took"].items() if name.startswith("p")}
        cpu_us = {part: 1e6 * seconds / connected for part, seconds in cpu.items()}
        return Row(name="idle", table="idle", values=values, cpu_us=cpu_us)

    async def drain(self, first: int) -> Row:
        """Lets people whose messages wait come back; counts from dialling to CaughtUp."""
        stage, waiting = self._stage, self._sizes.waiting
        await stage.ask("connect", first=0, count=_SENDERS)
        probe = probe_fsync(stage.data)
        fill = {"sender": [0, _SENDERS], "recipient": [first, DRAINERS], "count": waiting, "in_flight": 200}
        filled = await stage.ask("fill", **fill)
        half = DRAINERS // 2
        cpu_before = stage.cpu.read()
        single = [await stage.ask("drain", first=first + number, count=1) for number in range(half)]
        together = await stage.ask("drain", first=first + half, count=DRAINERS - half)
        cpu = used_s(cpu_before, stage.cpu.read())
        items = sum(sum(answer["items"]) for answer in (*single, together))
        if items < waiting * DRAINERS:
            raise BenchError(f"drain: {waiting * DRAINERS} messages waited, {items} came before CaughtUp")
        took_s, deviation_s = spread([answer["took_s"][0] for answer in single])
        values = {
            "waiting": waiting,
            "caught_up_ms": took_s * 1000,
            "deviation_ms": deviation_s * 1000,
            "messages_per_s": waiting / took_s,
            "together_per_s": sum(together["items"]) / together["seconds"],
            "stored_per_s": waiting * DRAINERS / filled["seconds"],
            **probe,
        }
        cpu_us = {part: 1e6 * seconds / items for part, seconds in cpu.items()}
        return Row(name="drain", table="drain", values=values, cpu_us=cpu_us)

    async def history(self, first: int) -> Row:
        """Reads pages of 50 of a long chat over the bridge, one call at a time."""
        stage, sizes = self._stage, self._sizes
        await stage.ask("connect", first=first, count=2)
        fill = {"sender": [first, 1], "recipient": [first + 1, 1], "count": sizes.history, "in_flight": 200}
        await stage.ask("fill", **fill)
        await stage.ask("pages", reader=first, peer=first + 1, calls=max(1, sizes.pages // 10))
        cpu_before = stage.cpu.read()
        answer = await stage.ask("pages", reader=first, peer=first + 1, calls=sizes.pages)
        cpu = used_s(cpu_before, stage.cpu.read())
        values = {"messages": sizes.history, "pages": sizes.pages, "per_page": answer["messages"] / sizes.pages}
        values |= {name: value for name, value in answer["took"].items() if name != "count"}
        cpu_us = {part: 1e6 * seconds / sizes.pages for part, seconds in cpu.items()}
        return Row(name="history", table="history", values=values, cpu_us=cpu_us)

    async def chats(self, name: str, count: int, reader: int) -> Row:
        """Reads the chat list of somebody to whom so many people, and nobody else, have written."""
        stage = self._stage
        await stage.ask("connect", first=0, count=count)
        await stage.ask("connect", first=reader, count=1)
        await stage.ask("fill", sender=[0, count], recipient=[reader, 1], count=count, in_flight=500)
        await stage.ask("chats", reader=reader, calls=max(1, self._sizes.pages // 10))
        cpu_before = stage.cpu.read()
        answer = await stage.ask("chats", reader=reader, calls=self._sizes.pages)
        cpu = used_s(cpu_before, stage.cpu.read())
        if answer["chats"] != count:
            raise BenchError(f"{name}: {count} people wrote, {answer['chats']} chats are listed")
        values = {"chats": count, **_without_count(answer["took"])}
        values |= {f"window_{quantile}": value for quantile, value in _without_count(answer["windows"]).items()}
        windows = self._sizes.pages + answer["windows"]["count"]
        return Row(name=name, table="chats", values=values, cpu_us=_each(cpu, windows))

    async def reads(self, first: int) -> Row:
        """Writes read receipts, one at a time, each for a message that was just received."""
        stage, pages = self._stage, self._sizes.pages
        await stage.ask("connect", first=first, count=2)
        await stage.ask("reads", reader=first, peer=first + 1, calls=max(1, pages // 10))
        probe = probe_fsync(stage.data)
        cpu_before = stage.cpu.read()
        answer = await stage.ask("reads", reader=first, peer=first + 1, calls=pages)
        cpu = used_s(cpu_before, stage.cpu.read())
        return Row(
            name="reads", table="reads", values={**_without_count(answer["took"]), **probe}, cpu_us=_each(cpu, pages)
        )

    async def presence(self, name: str) -> Row:
        """Counts what svc_presence does each second for edges and for the carrier, in batches of 256."""
        stage = self._stage
        address = stage.mesh.grpc["presence"][0]
        async with registry(address, stage.mesh.foundation.pki, self._sizes.registered) as asked:
            work = {
                "presence-connects": asked.connects,
                "presence-refreshes": asked.refreshes,
                "presence-lookups": asked.lookups,
                "presence-question": asked.questions,
            }
            await asked.connects()
            cpu_before = stage.cpu.read()
            found = await work[name]()
            cpu = used_s(cpu_before, stage.cpu.read())
        operations = found.took["count"] if name == "presence-question" else self._sizes.registered
        values = {"per_s": found.per_s, **_without_count(found.took)}
        return Row(name=name, table="presence", values=values, cpu_us=_each(cpu, operations))

    def _weigh(self) -> dict[str, Memory]:
        return {part: memory_of(self._stage.cpu.processes(part)) for part in ("edge", "presence", "message")}

    async def _traffic(self, row: Row, start: Callable[[], Awaitable[Any]]) -> None:
        """Starts traffic, lets it warm up, measures window by window, stops it, and fills the row."""
        stage, sizes = self._stage, self._sizes
        await asyncio.sleep(sizes.calm_s)
        books = await stage.books()
        probe = probe_fsync(stage.data)
        await start()
        await asyncio.sleep(_WARM_SHARE * sizes.seconds)
        await stage.toggle_sampler()
        marks = [await self._mark()]
        for _ in range(sizes.windows):
            await asyncio.sleep(sizes.seconds / sizes.windows)
            marks.append(await self._mark())
        await stage.toggle_sampler()
        load_average = os.getloadavg()[0]
        answer = await stage.stop()
        after = probe_fsync(stage.data)
        rates, costs = _windows(marks)
        row.values |= _cores(marks[0], marks[-1])
        row.values["messages_per_s"], row.values["deviation"] = spread(rates)
        row.cpu_us = {part: spread([cost[part] for cost in costs])[0] for part in costs[0]}
        # The first window is what came before the warm-up ended.
        for kind in ("ack", "delivery", "receipt", "group_ack", "last_member"):
            for quantile in ("p50_ms", "p99_ms"):
                measured = [window[kind][quantile] for window in answer["windows"][1:]]
                row.values[f"{kind}_{quantile}"], row.values[f"{kind}_{quantile}_deviation"] = spread(measured)
        if books is not None:
            await asyncio.sleep(sizes.settle_s)
            if (later := await stage.books()) is not None:
                row.values |= books.per_message(later, answer["done"])
        row.values |= {"fsync_p50_ms": max(probe["fsync_p50_ms"], after["fsync_p50_ms"])}
        row.values |= {"fsync_p99_ms": max(probe["fsync_p99_ms"], after["fsync_p99_ms"])}
        row.values |= {"unfinished": answer["unfinished"], "retried": answer["retried"], "load_average": load_average}

    async def _mark(self) -> _Mark:
        answer = await self._stage.window()
        return _Mark(answer["time_s"], answer["done"], self._stage.cpu.read(), read_cores())


def _without_count(took: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in took.items() if name != "count"}


def _each(cpu: dict[str, float], operations: float) -> dict[str, float]:
    return {part: 1e6 * seconds / max(1, operations) for part, seconds in cpu.items()}


def _cores(first: _Mark, last: _Mark) -> dict[str, float]:
    """Returns how many cores the benchmark used, how many others did, and how many the machine was denied."""
    span_s = last.time_s - first.time_s
    own = sum(used_s(first.cpu, last.cpu).values()) / span_s
    busy = (last.cores.busy - first.cores.busy) / span_s
    stolen = (last.cores.stolen - first.cores.stolen) / span_s
    return {"own_cores": own, "other_cores": max(0.0, busy - own), "stolen_cores": stolen}


def _windows(marks: list[_Mark]) -> tuple[list[float], list[dict[str, float]]]:
    """Returns messages per second and CPU microseconds per message of each window."""
    rates, costs = [], []
    for one, two in itertools.pairwise(marks):
        done = two.done - one.done
        rates.append(done / (two.time_s - one.time_s))
        costs.append(_each(used_s(one.cpu, two.cpu), done))
    return rates, costs
