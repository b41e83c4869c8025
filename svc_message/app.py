"""Wires the ledger: the store, the ways to its peers, the rules and the doors."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.api.fanout.v1 import fanout_service_pb2
from chappe.api.identity.v1 import directory_service_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2_grpc,
    history_service_pb2_grpc,
    message_service_pb2_grpc,
    receipt_service_pb2_grpc,
    trace_service_pb2_grpc,
)
from chappe.runtime import channels, migrations
from chappe.runtime.metrics import FlushTimings
from chappe.runtime.streams import Identity
from svc_message.adapters.directory_grpc import GrpcDirectory
from svc_message.adapters.dispatcher_grpc import GrpcDispatcher
from svc_message.adapters.group_store_postgres import PostgresGroupStore
from svc_message.adapters.item_protobuf import checked
from svc_message.adapters.journal_postgres import PostgresJournal
from svc_message.adapters.message_store_postgres import SCHEMA, PostgresMessageStore
from svc_message.adapters.receipt_store_postgres import PostgresReceiptStore
from svc_message.adapters.timings import StoreTimings
from svc_message.adapters.trace_store_postgres import PostgresTraceStore
from svc_message.adapters.unreadable import Unreadable
from svc_message.config import Ledger
from svc_message.model.group import Shard
from svc_message.protocol import LedgerClock
from svc_message.rpc import ConversationRpc, HistoryRpc, MessageRpc, ReceiptRpc, TraceRpc
from svc_message.rpc.group_flushes import GroupFlushes, GroupRules
from svc_message.rpc.submit import Flushes
from svc_message.rpc.traces import Traces
from svc_message.service.accept import Accepting
from svc_message.service.accept_group import GroupAccepting, Stores
from svc_message.service.act import Acting, Windows
from svc_message.service.act_direct import acting_directly
from svc_message.service.act_group import GroupActionRules, Groups, Ways
from svc_message.service.expand import Expanding
from svc_message.service.history import Reading
from svc_message.service.keep import Keeping
from svc_message.service.receipts import ReceiptReading
from svc_message.service.record import Recording
from svc_message.service.record_group import GroupRecording
from svc_message.service.retain import Retaining
from svc_message.service.sight import Sight
from svc_message.service.speak import Speaking
from svc_message.service.sync import Syncing
from svc_message.service.tell import Telling
from svc_message.service.trace import TraceReading
from svc_message.worker import check_clock, compare, compare_clocks
from svc_message.worker.expand import JournalWorker
from svc_message.worker.retain import retain
from svc_message.worker.tell import tell_for_ever

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    import grpc.aio

    from chappe.runtime.app import App
    from chappe.runtime.batching import Batcher
    from chappe.runtime.clock import Clock
    from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
    from svc_message.config import Config
    from svc_message.ports import ActionStore, MessageStore, RetentionStore, SettingStore, TraceStore
    from svc_message.ports.group import GroupStore, Journal
    from svc_message.ports.receipt import ReceiptStore


async def build(config: Config, app: App) -> None:
    """Adds the parts of the ledger to its app; raises `SchemaOutdatedError` naming the command that migrates."""
    book = await _add_book(config, app)
    store = book.messages
    directory = await app.add_peer(_directory(config, app), name="svc_identity")
    app.health.add("svc_identity", directory.ready)
    dispatcher = await app.add_peer(_dispatcher(config, app), name="svc_fanout")
    clock = LedgerClock(app.seams.clock, app.seams.randomness.token(8))
    # Before the doors open: what a wrong clock mints is never seen by those whose cursors have passed it.
    await compare(store, clock, app.seams.clock)
    app.health.add("clock", lambda: check_clock(store, clock, app.seams.clock))
    parts = _Parts(store, directory, Sight(directory.groups), dispatcher, clock)
    sound = partial(book.unreadable.each, checked)
    syncing = Syncing(store, parts.sight, dispatcher, clock, sound)
    await syncing.start()
    app.tasks.spawn(compare_clocks(store, clock, app.seams.clock), name="compare clocks")
    flushes = _flushes(config, app, parts, book.actions)
    groups = await _add_groups(config, app, parts, flushes, book)
    door = MessageRpc(flushes, syncing, Speaking(directory.bots, directory), _identity(app), tasks=app.tasks)
    reading = Reading(store, groups.store, parts.sight)
    app.add_door(message_service_pb2_grpc.add_MessageServiceServicer_to_server, door)
    app.add_door(
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server, HistoryRpc(reading, syncing, book.unreadable)
    )
    keeping = Keeping(book.settings, groups.store, directory, directory.groups, dispatcher, clock)
    conversations = ConversationRpc(reading, keeping, book.unreadable)
    app.add_door(conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server, conversations)
    _retain(config, app, book.retention, clock)

    async def say_goodbye() -> None:
        # What was accepted until its end is still expanded.
        await door.drain()
        await groups.worker.drain()

    app.on_drain(say_goodbye)
    _add_traces(app, book)
    _add_metrics(app, flushes, parts)


class Book(NamedTuple):
    """Everything that one store keeps of the ledger."""

    messages: MessageStore
    actions: ActionStore
    settings: SettingStore
    retention: RetentionStore
    groups: GroupStore
    journal: Journal
    receipts: ReceiptStore
    traces: TraceStore
    traced_receipts: ReceiptStore
    """For operators, whose questions hold up nobody."""
    timings: StoreTimings
    unreadable: Unreadable
    raise_epoch: Callable[[], Awaitable[int]]
    """Begins a new epoch, as a restore has to, and returns it."""


def open_book(config: Config, clock: Clock, *, timeout_s: float = 5.0) -> contextlib.AbstractAsyncContextManager[Book]:
    """Opens the ledger's book in the store that the settings name.

    Args:
        config: The settings.
        clock: The process's clock.
        timeout_s: After how long a silent store counts as gone.

    Raises:
        StartError: The store is not fit for a ledger; says what to do.
        SchemaOutdatedError: The schema is behind; names the command that migrates.
        UnavailableError: The store does not answer.
    """
    if config.ledger is Ledger.CASSANDRA:
        return _open_cassandra(config, clock, timeout_s)
    return _open_postgres(config, clock, timeout_s)


@contextlib.asynccontextmanager
async def _open_postgres(config: Config, clock: Clock, timeout_s: float) -> AsyncGenerator[Book]:
    """Yields the book in PostgreSQL.

    Raises:
        SchemaOutdatedError: The schema is behind; names the command that migrates.
    """
    dsn, timings, unreadable = config.store_dsn.reveal(), StoreTimings(), Unreadable(clock)
    await migrations.check(dsn, SCHEMA)
    async with contextlib.AsyncExitStack() as opened:
        writers, readers = config.store_writers, config.store_readers
        store = PostgresMessageStore(
            dsn, writers=writers, readers=readers, timeout_s=timeout_s, timings=timings, unreadable=unreadable
        )
        groups = PostgresGroupStore(
            dsn,
            writers=config.store_group_writers,
            expanders=config.store_expanders,
            readers=readers,
            unreadable=unreadable,
        )
        journal, receipts = PostgresJournal(dsn), PostgresReceiptStore(dsn)
        traces, traced_receipts = PostgresTraceStore(dsn), PostgresReceiptStore(dsn)
        for part in (store, groups, journal, receipts, traces, traced_receipts):
            await opened.enter_async_context(contextlib.aclosing(part))
        yield Book(
            store,
            store.actions,
            store.settings,
            store.retention,
            groups,
            journal,
            receipts,
            traces,
            traced_receipts,
            timings,
            unreadable,
            store.raise_epoch,
        )


@contextlib.asynccontextmanager
async def _open_cassandra(config: Config, clock: Clock, timeout_s: float) -> AsyncGenerator[Book]:
    """Yields the book in Cassandra, of which every part uses the same session."""
    # The driver is a quarter of what a start loads, and only those need it who keep their messages here.
    from svc_message.adapters.cassandra_keyspace import open_ledger  # noqa: PLC0415 - see above
    from svc_message.adapters.ledger_cassandra.connection import Connection  # noqa: PLC0415 - the same
    from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore  # noqa: PLC0415 - the same

    timings, unreadable = StoreTimings(), Unreadable(clock)
    session = await open_ledger(config.cassandra, timeout_s=timeout_s)
    connection = Connection(session, timings=timings, unreadable=unreadable)
    async with contextlib.aclosing(connection):
        yield cassandra_book(CassandraMessageStore(connection, clock=clock), timings, unreadable)


def cassandra_book(store: CassandraMessageStore, timings: StoreTimings, unreadable: Unreadable) -> Book:
    """Returns the book of a store on Cassandra, which has all ports."""
    return Book(
        store,
        store.actions,
        store.settings,
        store.retention,
        store.groups,
        store.journal,
        store.receipts,
        store.traces,
        store.receipts,
        timings,
        unreadable,
        store.raise_epoch,
    )


async def _add_book(config: Config, app: App) -> Book:
    name = config.ledger.value
    book = await app.add_store(open_book(config, app.seams.clock), name=name)
    app.health.add(name, book.messages.ready)
    metrics, writes, reads = app.metrics, book.timings.writes, book.timings.reads
    metrics.histogram("store_write_seconds", "How long a write to the store took, waiting included.", writes.seconds)
    metrics.histogram("store_read_seconds", "How long a read from the store took, waiting included.", reads.seconds)
    metrics.counter("store_failures", "Statements whose outcome is unknown.", lambda: writes.failures + reads.failures)
    doc = "Rows that could not be read and were passed over, each time that one was met."
    metrics.counter("unreadable_rows", doc, lambda: book.unreadable.rows)
    return book


class _Parts(NamedTuple):
    """What the rules are made of."""

    store: MessageStore
    directory: GrpcDirectory
    sight: Sight
    dispatcher: GrpcDispatcher
    clock: LedgerClock


def _retain(config: Config, app: App, store: RetentionStore, clock: LedgerClock) -> None:
    retaining = Retaining(store, clock)
    app.tasks.spawn(retain(retaining, app.seams.clock, config.retention_interval_s), name="retain")


def _flushes(config: Config, app: App, parts: _Parts, actions: ActionStore) -> Flushes:
    store, directory, _, dispatcher, clock = parts
    windows = Windows(config.edit_window_s, config.revoke_window_s)
    accepting = Accepting(store, directory, dispatcher, clock)
    acting = acting_directly(actions, directory, dispatcher, clock, windows)
    flushes = Flushes(accepting, Recording(store, directory, dispatcher, clock), acting, app.seams.clock, app.tasks)
    flushes.traces = Traces(app.telemetry.tracing)
    dispatcher.drawn, dispatcher.expanding = flushes.traces.drawn, flushes.traces.expanding
    dispatcher.expanded = flushes.traces.expanded
    return flushes


class _Groups(NamedTuple):
    """What belongs to groups."""

    store: GroupStore
    worker: JournalWorker


async def _add_groups(config: Config, app: App, parts: _Parts, flushes: Flushes, book: Book) -> _Groups:
    store, shard = book.groups, Shard(app.boot_id)
    expanding = Expanding(store, parts.directory.groups, parts.dispatcher, parts.clock)
    worker = JournalWorker(expanding, book.journal, shard, clock=parts.clock, seams=app.seams, tasks=app.tasks)
    await worker.start()
    accepting = GroupAccepting(Stores(parts.store, store), parts.directory.groups, parts.clock, worker, shard)
    recording = _add_receipts(book.receipts, app, parts)
    ways, windows = Ways(worker, shard, parts.dispatcher), Windows(config.edit_window_s, config.revoke_window_s)
    rules = GroupActionRules(store, Groups(parts.directory.groups, parts.sight), ways, parts.clock, windows)
    acting = Acting(book.actions, rules, parts.clock)
    direct = Recording(parts.store, parts.directory, parts.dispatcher, parts.clock)
    flushes.groups = GroupFlushes(GroupRules(accepting, acting, recording, direct), flushes, app.tasks)
    _add_group_metrics(app, flushes, worker)
    return _Groups(store, worker)


def _add_receipts(receipts: ReceiptStore, app: App, parts: _Parts) -> GroupRecording:
    _, directory, sight, dispatcher, clock = parts
    telling = Telling(receipts, directory, dispatcher, clock)
    app.tasks.spawn(tell_for_ever(telling, app.seams.clock), name="tell")
    door = ReceiptRpc(ReceiptReading(receipts, directory))
    app.add_door(receipt_service_pb2_grpc.add_ReceiptServiceServicer_to_server, door)
    return GroupRecording(receipts, sight, directory, dispatcher, clock, telling)


def _add_group_metrics(app: App, flushes: Flushes, worker: JournalWorker) -> None:
    metrics, messages = app.metrics, flushes.groups.messages
    metrics.counter("group_messages", "Messages to groups that were flushed.", lambda: messages.flushed_items)
    metrics.counter("expanded_entries", "Entries of the journal that were expanded.", lambda: worker.expanded)
    metrics.counter("adopted_entries", "Entries of processes that are gone.", lambda: worker.adopted)
    metrics.counter("parked_entries", "Entries that could not be decoded and were put aside.", lambda: worker.parked)
    metrics.histogram("expand_lag_seconds", "From a message to a group to the pointers of its members.", worker.lag_s)
    metrics.gauge("open_entries", "Entries of the journal that are not expanded yet.", lambda: worker.begun)


def _add_traces(app: App, book: Book) -> None:
    reading = TraceReading([book.traces], book.traced_receipts)
    app.add_door(trace_service_pb2_grpc.add_TraceServiceServicer_to_server, TraceRpc(reading))


def _identity(app: App) -> Identity:
    return Identity(app.peer_name, app.boot_id)


@contextlib.asynccontextmanager
async def _directory(config: Config, app: App) -> AsyncGenerator[GrpcDirectory]:
    contracts = [directory_service_pb2.DESCRIPTOR]
    async with channels.channel(
        config.identity_target, app.tls, server_name="svc-identity", contracts=contracts
    ) as channel:
        directory = GrpcDirectory(channel, _identity(app), tasks=app.tasks, seams=app.seams)
        yield directory
        await directory.aclose()


@contextlib.asynccontextmanager
async def _dispatcher(config: Config, app: App) -> AsyncGenerator[GrpcDispatcher]:
    def connect(address: str) -> grpc.aio.Channel:
        return channels.channel(address, app.tls, server_name="svc-fanout", contracts=[fanout_service_pb2.DESCRIPTOR])

    dispatcher = GrpcDispatcher(config.fanout_target, connect, _identity(app), tasks=app.tasks, seams=app.seams)
    await dispatcher.start()
    yield dispatcher
    await dispatcher.aclose()


def _add_metrics(app: App, flushes: Flushes, parts: _Parts) -> None:
    metrics, dispatcher, clock = app.metrics, parts.dispatcher, parts.clock
    metrics.gauge("clock_is_trusted", "1 while positions are minted and cursors move.", lambda: clock.is_trusted)
    groups = flushes.groups
    metrics.counter(
        "message_flushes", "Flushes of messages to single people.", lambda: flushes.messages.flushed_batches
    )
    metrics.counter("messages", "Messages to single people that were flushed.", lambda: flushes.messages.flushed_items)
    acks, acted = (flushes.acks, groups.acks), (flushes.actions, groups.actions)
    reads, messages = (flushes.reads, groups.reads), (flushes.messages, groups.messages)
    metrics.counter("ack_flushes", "Flushes of acknowledgements.", lambda: sum(one.flushed_batches for one in acks))
    metrics.counter("acks", "Acknowledgements that were flushed.", lambda: sum(one.flushed_items for one in acks))
    metrics.counter("reads", "Reads that were flushed.", lambda: sum(one.flushed_items for one in reads))
    metrics.counter("actions", "Edits, revokes and reactions.", lambda: sum(one.flushed_items for one in acted))
    metrics.counter("dropped_hints", "Hints that no fanout could take.", lambda: dispatcher.dropped_hints)
    metrics.gauge("waiting_messages", "Messages that wait for a flush.", lambda: sum(one.pending for one in messages))
    batchers: dict[str, tuple[str, Sequence[Batcher[Any]]]] = {
        "accept": ("flushes of messages", messages),
        "look_up": ("flushes of messages that had to be looked up", (flushes.unsure, groups.unsure)),
        "act": ("flushes of edits, revokes and reactions", acted),
        "read": ("flushes of reads", reads),
        "acknowledge": ("flushes of acknowledgements", acks),
    }
    for name, (what, both) in batchers.items():
        timings = FlushTimings()
        for batcher in both:
            batcher.timings = timings
        metrics.flushes(name, what, timings)
    metrics.flushes("dispatch", "batches of hints to svc_fanout", dispatcher.timings)
