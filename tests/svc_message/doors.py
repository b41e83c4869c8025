"""Serves the doors of the ledger over real loopback gRPC, and opens streams as an edge does."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from chappe.api.edge.v1 import send_pb2, server_frame_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2_grpc,
    history_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    receipt_service_pb2_grpc,
    trace_service_pb2_grpc,
)
from chappe.api.type.v1 import envelope_pb2, stream_pb2
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.errors import RemoteError, from_rpc_error
from chappe.runtime.interceptors import ConformanceInterceptor, DoorInterceptor, Gate, Realm
from chappe.runtime.pki import SpiffeId
from chappe.runtime.principal import Principal, principal_metadata
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.item_protobuf import checked
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.adapters.trace_store_memory import MemoryTraceStore
from svc_message.adapters.unreadable import Unreadable
from svc_message.model import ConversationId, UserId
from svc_message.model.group import Shard
from svc_message.protocol import LedgerClock
from svc_message.rpc import ConversationRpc, HistoryRpc, MessageRpc, ReceiptRpc, TraceRpc
from svc_message.rpc.group_flushes import GroupFlushes, GroupRules
from svc_message.rpc.submit import Flushes
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
from svc_message.service.sight import Sight
from svc_message.service.speak import Speaking
from svc_message.service.sync import Syncing
from svc_message.service.tell import Telling
from svc_message.service.trace import TraceReading
from svc_message.worker.expand import JournalWorker
from tests.runtime.probe import ALONE
from tests.svc_message.fakes import FakeBots, FakeDirectory, FakeDispatcher, FakeGroupDirectory, ManualClock, message_id
from tests.svc_message.group_desk import group_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

Request = message_service_pb2.SubmitRequest
Batch = message_service_pb2.SubmitBatch
WINDOWS = Windows(900, 172_800)
ALICE, BOB = UserId(b"A" * 16), UserId(b"B" * 16)
GROUP = ConversationId(b"GGGGGG\x70GGGGGGGGG")
"""A group of Alice, who owns it, and Bob."""


class Doors:
    """A whole ledger over a store in memory, with everything around it faked."""

    def __init__(self, tasks: Tasks, store: MemoryMessageStore | None = None) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryMessageStore(self.clock)
        self.directory = FakeDirectory()
        self.directory.add(ALICE, BOB)
        self.dispatcher = FakeDispatcher()
        ledger_clock = LedgerClock(self.clock, bytes(8))
        self.groups = FakeGroupDirectory()
        self.groups.add(group_of(GROUP, ALICE, BOB))
        self.sight = Sight(self.groups)
        self.unreadable = Unreadable(self.clock)
        sound = partial(self.unreadable.each, checked)
        self.syncing = Syncing(self.store, self.sight, self.dispatcher, ledger_clock, sound)
        accepting = Accepting(self.store, self.directory, self.dispatcher, ledger_clock)
        recording = Recording(self.store, self.directory, self.dispatcher, ledger_clock)
        acting = acting_directly(self.store.actions, self.directory, self.dispatcher, ledger_clock, WINDOWS)
        self.flushes = Flushes(accepting, recording, acting, self.clock, tasks)
        self._add_groups(ledger_clock, tasks)
        self.keeping = Keeping(
            self.store.settings, self.group_store, self.directory, self.groups, self.dispatcher, ledger_clock
        )
        self.bots = FakeBots()
        speaking = Speaking(self.bots, self.directory)
        self.rpc = MessageRpc(self.flushes, self.syncing, speaking, Identity("ledger-1", 5), tasks=tasks)
        self.caller = "svc-edge"
        self.channel: grpc.aio.Channel
        self.address = ""

    def _add_groups(self, clock: LedgerClock, tasks: Tasks) -> None:
        journal = MemoryJournal(self.clock)
        self.group_store = MemoryGroupStore(self.store, journal)
        expanding = Expanding(self.group_store, self.groups, self.dispatcher, clock)
        seams = Seams(self.clock, SystemRandomness())
        self.journal = JournalWorker(expanding, journal, Shard(5), clock=clock, seams=seams, tasks=tasks)
        stores = Stores(self.store, self.group_store)
        accepting = GroupAccepting(stores, self.groups, clock, self.journal, Shard(5))
        self.receipts = MemoryReceiptStore(self.store)
        self.telling = Telling(self.receipts, self.directory, self.dispatcher, clock)
        recording = GroupRecording(self.receipts, self.sight, self.directory, self.dispatcher, clock, self.telling)
        ways = Ways(self.journal, Shard(5), self.dispatcher)
        rules = GroupActionRules(self.group_store, Groups(self.groups, self.sight), ways, clock, WINDOWS)
        acting = Acting(self.store.actions, rules, clock)
        direct = Recording(self.store, self.directory, self.dispatcher, clock)
        self.flushes.groups = GroupFlushes(GroupRules(accepting, acting, recording, direct), self.flushes, tasks)

    def identify(self, context: Any) -> SpiffeId:
        return SpiffeId(trust_domain="chappe.test", service=self.caller)

    async def submit(self) -> Edge:
        """Opens a stream, up to the ledger's hello."""
        stub: Any = message_service_pb2_grpc.MessageServiceStub(self.channel)
        edge = Edge(stub.Submit(), self.clock)
        await edge.call.write(Request(hello=stream_pb2.StreamHello(protocol=1, peer_id="edge-1", boot_id=3)))
        edge.hello = (await edge.call.read()).hello
        return edge

    async def refusal(self, stub: Callable[[Any], Any], method: str, request: Any, user: bytes = b"") -> RemoteError:
        """Returns how a unary call is refused."""
        try:
            await self.call(stub, method, request, user)
        except grpc.aio.AioRpcError as error:
            return remote(error)
        raise AssertionError(f"{method} was not refused")

    async def call(self, stub: Callable[[Any], Any], method: str, request: Any, user: bytes = b"") -> Any:
        """Calls a unary method, on behalf of a user when one is named."""
        metadata = [principal_metadata(Principal(user, 1, bytes(16)))] if user else []
        return await getattr(stub(self.channel), method)(request, metadata=metadata)


class Edge:
    """One Submit stream as an edge sees it."""

    def __init__(self, call: Any, clock: ManualClock) -> None:
        self.call = call
        self.clock = clock
        self.hello: stream_pb2.StreamHello
        self.verdicts: dict[int, int] = {}
        self.frames: dict[int, server_frame_pb2.ServerFrame] = {}
        self.acked: set[int] = set()
        self.credits = 0
        self.is_drained = False

    async def write(self, batch: Batch) -> None:
        await self.call.write(Request(batch=batch))

    async def send(self, *sends: bytes, first: int = 1, resends: Sequence[int] = ()) -> None:
        """Sends a batch of Alice's, numbered from `first`."""
        count = len(sends)
        ids = range(first, first + count)
        await self.write(
            Batch(item_ids=ids, user_ids=[ALICE] * count, device_ids=[1] * count, sends=sends, resends=resends)
        )

    async def acknowledge(self, *keys: bytes, reader: bytes = BOB, first: int = 100) -> None:
        """Sends acknowledgements, one for each run of keys."""
        count = len(keys)
        ids = range(first, first + count)
        users, devices = [reader] * count, [1] * count
        await self.write(Batch(ack_item_ids=ids, ack_user_ids=users, ack_device_ids=devices, ack_keys=keys))

    async def until(self, count: int) -> None:
        """Reads until so many items were answered."""
        while len(self.verdicts) + len(self.acked) < count:
            await self.read()

    async def read(self) -> str:
        """Reads one message and returns its kind, empty at the end."""
        response = await self.call.read()
        if response is grpc.aio.EOF:
            return ""
        results = response.results
        self.verdicts.update(zip(results.item_ids, results.verdicts, strict=True))
        frames = map(server_frame_pb2.ServerFrame.FromString, results.frames)
        self.frames.update(zip(results.item_ids, frames, strict=True))
        self.acked.update(results.acked_item_ids)
        self.credits += response.credit.items
        kind: str = response.WhichOneof("frame")
        self.is_drained = self.is_drained or kind == "drain"
        return kind

    async def finish(self) -> grpc.StatusCode:
        """Half-closes, reads to the end and returns the code."""
        await self.call.done_writing()
        while await self.read():
            pass
        code: grpc.StatusCode = await self.call.code()
        return code

    async def refusal(self) -> RemoteError:
        """Returns why the ledger ended the stream."""
        try:
            while await self.read():
                pass
        except grpc.aio.AioRpcError as error:
            return remote(error)
        raise AssertionError("the stream ended well")

    def say(self, number: int, text: bytes = b"hi", *, attempt: int = 1, to: bytes = BOB) -> bytes:
        """Returns a serialised Send of Alice's."""
        envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=text)
        return send_pb2.Send(
            message_id=message_id(ALICE, 1, self.clock.wall_ms(), number),
            attempt=attempt,
            message=send_pb2.SendMessage(user_id=to, envelope=envelope),
        ).SerializeToString()

    def say_to_group(self, number: int, text: bytes = b"hi", *, version: int = 1, to: bytes = GROUP) -> bytes:
        """Returns a serialised Send of Alice's to a group."""
        envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=text)
        return send_pb2.Send(
            message_id=message_id(ALICE, 1, self.clock.wall_ms(), number),
            attempt=1,
            message=send_pb2.SendMessage(group_id=to, envelope=envelope, members_version=version),
        ).SerializeToString()

    def read_group(self, number: int, *, upto: bytes = b"", ids: Sequence[bytes] = ()) -> bytes:
        """Returns a serialised Send of Alice's that reads messages of the group."""
        return send_pb2.Send(
            message_id=message_id(ALICE, 1, self.clock.wall_ms(), number),
            attempt=1,
            read=send_pb2.SendRead(group_id=GROUP, read_upto=upto, message_ids=ids),
        ).SerializeToString()


def remote(error: grpc.aio.AioRpcError) -> RemoteError:
    """Returns the refusal inside an error of gRPC."""
    found = from_rpc_error(error)
    assert isinstance(found, RemoteError)
    return found


@contextlib.asynccontextmanager
async def open_doors(store: MemoryMessageStore | None = None) -> AsyncIterator[Doors]:
    """Serves a ledger, and checks that nothing leaves it but what the contract allows."""
    conformance = ConformanceInterceptor()
    async with Tasks() as tasks:
        doors = Doors(tasks, store)
        await doors.syncing.start()
        gate = Gate(Realm("chappe.test", "chappe", ("*",)), doors.identify)
        server = grpc.aio.server(interceptors=[conformance, DoorInterceptor(gate, lambda: "0" * 32)], options=ALONE)
        reading = Reading(doors.store, doors.group_store, doors.sight)
        message_service_pb2_grpc.add_MessageServiceServicer_to_server(doors.rpc, server)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(
            HistoryRpc(reading, doors.syncing, doors.unreadable), server
        )
        conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server(
            ConversationRpc(reading, doors.keeping, doors.unreadable), server
        )
        receipts = ReceiptRpc(ReceiptReading(doors.receipts, doors.directory))
        receipt_service_pb2_grpc.add_ReceiptServiceServicer_to_server(receipts, server)
        tracing = TraceReading([MemoryTraceStore(doors.store)], doors.receipts)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(TraceRpc(tracing), server)
        doors.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with grpc.aio.insecure_channel(doors.address) as doors.channel:
            yield doors
        await server.stop(None)
    conformance.violations = [one for one in conformance.violations if "ExecuteBatchError" not in one]
    conformance.check()
