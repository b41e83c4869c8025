"""The other services, as small as the edge lets them be, on one real gRPC server; and a fanout that pushes."""

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format

from chappe.api.edge.v1 import client_frame_pb2, edge_service_pb2, item_pb2, send_pb2, server_frame_pb2
from chappe.api.edge.v1.edge_service_pb2_grpc import EdgeServiceStub
from chappe.api.identity.v1 import (
    directory_service_pb2,
    directory_service_pb2_grpc,
    registration_service_pb2,
    registration_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from chappe.api.message.v1 import (
    history_service_pb2,
    history_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
)
from chappe.api.presence.v1 import presence_service_pb2_grpc, track_pb2
from chappe.api.type.v1 import error_reason_pb2, stream_pb2
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import InvalidFieldError, UnavailableError
from chappe.runtime.interceptors import abort
from chappe.runtime.principal import PRINCIPAL_KEY, client_address
from svc_edge.model import identity_of
from tests.runtime.probe import ALONE
from tests.svc_edge.fake_watches import FakeWatches

HELLO = stream_pb2.StreamHello(protocol=1, peer_id="fake", boot_id=7, credits=100_000)
KEY_ID = "key-1"


class LeapClock(SystemClock):
    """A clock that can be set forward; who sleeps wakes then."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._leapt = asyncio.Event()

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._ahead_s

    async def sleep(self, delay_s: float) -> None:
        until_s = self.monotonic_s() + delay_s
        while (left_s := until_s - self.monotonic_s()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leapt.wait(), left_s)

    def leap(self, seconds: float) -> None:
        """Sets the clock forward."""
        self._ahead_s += seconds
        self._leapt.set()
        self._leapt = asyncio.Event()


class Person(NamedTuple):
    """A device of a user, with its key."""

    user_id: bytes
    device_id: int
    sign_in_id: bytes
    key: Ed25519PrivateKey

    @classmethod
    def new(cls, user_id: bytes = b"", device_id: int = 1) -> "Person":
        return cls(user_id or os.urandom(16), device_id, os.urandom(16), Ed25519PrivateKey.generate())


class Logged(NamedTuple):
    """An entry of somebody's inbox log."""

    key: bytes
    item: bytes
    flags: int


def position_at(milliseconds: int, counter: int = 0) -> bytes:
    return milliseconds.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(3) + counter.to_bytes(4, "big")


def message_id_of(number: int) -> bytes:
    return int(time.time() * 1000).to_bytes(6, "big") + b"\x70\x00\x80" + bytes(3) + number.to_bytes(4, "big")


_REGISTER: list[Any] = [
    message_service_pb2_grpc.add_MessageServiceServicer_to_server,
    history_service_pb2_grpc.add_HistoryServiceServicer_to_server,
    presence_service_pb2_grpc.add_PresenceServiceServicer_to_server,
    session_service_pb2_grpc.add_SessionServiceServicer_to_server,
    directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server,
    registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server,
]


def open_gate() -> asyncio.Event:
    """Returns what nobody waits for until a test clears it."""
    gate = asyncio.Event()
    gate.set()
    return gate


class FakeMesh(FakeWatches):
    """svc_message, svc_presence and svc_identity with nothing behind them; its attributes say how they behave."""

    next_answer: asyncio.Event | None = None
    """Holds the next answer about users until it is set."""
    held_answers = 0
    refused_questions = 0
    """How many questions about users were not answered."""
    track_hello = HELLO
    ledger_complaint = 0
    """Why every Send is refused for now; 0 while none is."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        super().__init__()
        self.signing_key = Ed25519PrivateKey.generate()
        self.logs: dict[bytes, list[Logged]] = defaultdict(list)
        self.stored: list[send_pb2.Send] = []
        self.acked: list[bytes] = []
        self.resends: list[int] = []
        self.trace_links: list[stream_pb2.TraceLink] = []
        self.ack_trace_links: list[stream_pb2.TraceLink] = []
        self.answers, self.confirms, self.may_sync, self.tells_changes = (open_gate() for _ in range(4))
        self.ledger_is_up = self.presence_is_up = self.identity_is_up = True
        self.horizon_ms = 0
        self.reads: list[int] = []
        self.routes: dict[tuple[bytes, int], int] = {}
        self.nonces: dict[bytes, int] = {}
        self.ages_ms: dict[int, int] = {}
        """How long ago sessions had begun when they were registered."""
        self.refreshed: list[int] = []
        self.byes: list[int] = []
        self.generations: dict[tuple[bytes, int], int] = {}
        self.changes: asyncio.Queue[directory_service_pb2.DirectoryChange] = asyncio.Queue()
        self.principals: list[Any] = []
        self.caller_address: str | None = None
        self.submit_contexts: list[Any] = []
        self.address = address
        self._server = grpc.aio.server(options=ALONE)
        self._counter = 0
        for register in _REGISTER:
            register(self, self._server)

    async def __aenter__(self) -> Self:
        host = self.address.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(self.address)}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.stop(None)

    # What a test does.

    def token(self, person: Person, *, signed_by: Ed25519PrivateKey | None = None, **changes: Any) -> str:
        now = int(time.time())
        public = person.key.public_key().public_bytes_raw()
        claims: dict[str, Any] = {
            "iss": "chappe",
            "aud": "chappe-edge",
            "sub": person.user_id.hex(),
            "did": person.device_id,
            "sid": person.sign_in_id.hex(),
            "gen": 1,
            "cnf": {"x": base64.urlsafe_b64encode(public).rstrip(b"=").decode()},
            "iat": now,
            "nbf": now - 5,
            "exp": now + 900,
        }
        kid = changes.pop("kid", KEY_ID)
        self.generations.setdefault((person.user_id, person.device_id), 1)
        return jwt.encode(claims | changes, signed_by or self.signing_key, algorithm="EdDSA", headers={"kid": kid})

    def append(self, user_id: bytes, content: bytes = b"hi", *, sender_id: bytes = bytes(16)) -> Logged:
        """Puts a message of somebody else into a log."""
        self._counter += 1
        event = item_pb2.MessageEvent(
            message_id=message_id_of(self._counter),
            conversation_id=bytes(16),
            sender_user_id=sender_id,
            accepted_ms=int(time.time() * 1000),
        )
        event.envelope.content = content
        position = position_at(int(time.time() * 1000), self._counter)
        item = item_pb2.Item(position=position, message=event).SerializeToString()
        key = position + event.message_id + event.conversation_id + sender_id
        logged = Logged(key, item, 1)
        self.logs[user_id].append(logged)
        return logged

    def json_hello(self, person: Person, host: str) -> Any:
        """Returns a Hello of the JSON sub-protocol."""
        hello = client_frame_pb2.Hello(protocol=1, signed=signed_hello(self.token(person), person.key, host))
        return json_format.MessageToDict(hello)

    async def break_streams(self, contexts: list[Any]) -> None:
        """Ends streams without a marker."""
        while contexts:
            with contextlib.suppress(grpc.aio.AbortError):
                await contexts.pop().abort(grpc.StatusCode.UNAVAILABLE, "gone")

    def __getattr__(self, name: str) -> Any:
        """Returns a method that nobody calls here."""
        if not name[0].isupper():
            raise AttributeError(name)
        return lambda *_: None

    # MessageService

    async def Submit(self, request_iterator: Any, context: Any) -> None:
        if not self.ledger_is_up:
            await abort(context, UnavailableError("ledger", "down"))
        await context.read()
        await context.write(message_service_pb2.SubmitResponse(hello=HELLO))
        self.submit_contexts.append(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.WhichOneof("frame") == "batch":
                await self.answers.wait()
                await context.write(message_service_pb2.SubmitResponse(results=await self._results(request.batch)))

    async def _results(self, batch: message_service_pb2.SubmitBatch) -> message_service_pb2.SubmitResults:
        results = message_service_pb2.SubmitResults(item_ids=batch.item_ids)
        self.resends += batch.resends
        self.trace_links += batch.trace_links
        self.ack_trace_links += batch.ack_trace_links
        for data in batch.sends:
            verdict, frame = self._store(data)
            results.verdicts.append(verdict)
            results.frames.append(frame.SerializeToString())
        if batch.ack_item_ids:
            await self.confirms.wait()
        for keys in batch.ack_keys:
            self.acked += [keys[start : start + 64] for start in range(0, len(keys), 64)]
        results.acked_item_ids.extend(batch.ack_item_ids)
        return results

    def _store(self, data: bytes) -> Any:
        try:
            send = send_pb2.Send.FromString(data)
        except Exception:  # noqa: BLE001 - whatever the parser says
            return message_service_pb2.SUBMIT_VERDICT_MALFORMED, server_frame_pb2.ServerFrame()
        if self.ledger_complaint:
            reason = error_reason_pb2.ErrorReason.ValueType(self.ledger_complaint)
            nack = server_frame_pb2.SendNack(message_id=send.message_id, reason=reason, is_retryable=True)
            return message_service_pb2.SUBMIT_VERDICT_REFUSED, server_frame_pb2.ServerFrame(send_nack=nack)
        self.stored.append(send)
        if not send.message.envelope.content:
            nack = server_frame_pb2.SendNack(
                message_id=send.message_id,
                reason=error_reason_pb2.ERROR_REASON_INVALID_FIELD,
                detail="message.envelope.content: must be set",
            )
            return message_service_pb2.SUBMIT_VERDICT_REFUSED, server_frame_pb2.ServerFrame(send_nack=nack)
        ack = server_frame_pb2.SendAck(message_id=send.message_id, accepted_ms=1)
        return message_service_pb2.SUBMIT_VERDICT_STORED, server_frame_pb2.ServerFrame(send_ack=ack)

    # HistoryService

    async def SyncInbox(self, request: Any, context: Any) -> Any:
        self.reads.append(len(request.queries))
        await self.may_sync.wait()
        if not self.ledger_is_up:
            await abort(context, UnavailableError("ledger", "down"))
        bound = position_at(int(time.time() * 1000) - self.horizon_ms)
        answers = [self._read(query, bound) for query in request.queries]
        return history_service_pb2.SyncInboxResponse(answers=answers)

    def _read(self, query: Any, bound: bytes) -> Any:
        if query.cursor == b"expired" and not query.after_position:
            answer = self._read(history_service_pb2.InboxQuery(user_id=query.user_id, limit=query.limit), bound)
            answer.is_resync = True
            return answer
        after = query.after_position or query.cursor
        known = {query.known_message_ids[n : n + 16] for n in range(0, len(query.known_message_ids), 16)}
        found = [
            entry
            for entry in self.logs[query.user_id]
            if entry.key[:16] > after and identity_of(entry.item, entry.key) not in known
        ]
        page = found[: query.limit or 100]
        bound = query.pass_bound or bound
        has_more = len(found) > len(page)
        return history_service_pb2.InboxAnswer(
            items=[entry.item for entry in page],
            keys=[entry.key for entry in page],
            flags=[entry.flags for entry in page],
            has_more=has_more,
            cursor=min(bound, page[-1].key[:16]) if has_more else bound,
            pass_bound=bound,
        )

    async def ListMessages(self, request: Any, context: Any) -> Any:
        self.principals = [value for key, value in context.invocation_metadata() if key == PRINCIPAL_KEY]
        self.caller_address = client_address(context.invocation_metadata())
        if not self.ledger_is_up:
            await abort(context, UnavailableError("ledger", "down"))
        if request.page_token:
            await abort(context, InvalidFieldError("page_token", "is not one of ours"))
        return history_service_pb2.ListMessagesResponse(next_page_token="more")

    # PresenceService

    async def Track(self, request_iterator: Any, context: Any) -> None:
        if not self.presence_is_up:
            await abort(context, UnavailableError("registry", "down"))
        first = await context.read()
        self.news_credit = first.hello.credits
        await self.write(context, track_pb2.TrackResponse(hello=self.track_hello))
        self.track_contexts.append(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.WhichOneof("frame") == "batch":
                await self.write(context, track_pb2.TrackResponse(results=self._track(request.batch)))

    def _track(self, batch: Any) -> Any:
        self.take_watches(batch)
        results = track_pb2.TrackResults(number=batch.number)
        for connect in batch.connects:
            result = results.connects.add(item_id=connect.item_id)
            device = connect.session.user_id, connect.session.device_id
            self.ages_ms[connect.session.session_id] = connect.age_ms
            if self.nonces.setdefault(connect.nonce, connect.session.session_id) != connect.session.session_id:
                result.refused_reason = error_reason_pb2.ERROR_REASON_INVALID_PROOF
                continue
            result.replaced_session_id = self.routes.get(device, 0)
            self.routes[device] = connect.session.session_id
        for refresh in batch.refreshes:
            self.refreshed.append(refresh.session_id)
            known = self.routes.setdefault((refresh.user_id, refresh.device_id), refresh.session_id)
            if known != refresh.session_id:
                results.replaced_session_ids.append(refresh.session_id)
        for bye in batch.byes:
            self.byes.append(bye.session_id)
            if self.routes.get((bye.user_id, bye.device_id)) == bye.session_id:
                del self.routes[bye.user_id, bye.device_id]
        return results

    # SessionService and DirectoryService

    async def GetSigningKeys(self, request: Any, context: Any) -> Any:
        if not self.identity_is_up:
            await abort(context, UnavailableError("directory", "down"))
        public = self.signing_key.public_key().public_bytes_raw()
        return session_service_pb2.GetSigningKeysResponse(
            keys=[session_service_pb2.SigningKey(key_id=KEY_ID, public_key=public)]
        )

    async def BatchGetUsers(self, request: Any, context: Any) -> Any:
        if self.next_answer is not None:
            held, self.next_answer = self.next_answer, None
            self.held_answers += 1
            await held.wait()
        if not self.identity_is_up:
            self.refused_questions += 1
            await abort(context, UnavailableError("directory", "down"))
        users = []
        for user_id in request.user_ids:
            devices = {device: gen for (user, device), gen in self.generations.items() if user == user_id}
            users.append(
                directory_service_pb2.DirectoryUser(
                    user_id=user_id,
                    state=directory_service_pb2.USER_STATE_ACTIVE,
                    device_ids=list(devices),
                    device_generations=list(devices.values()),
                )
            )
        return directory_service_pb2.BatchGetUsersResponse(users=users)

    async def WatchChanges(self, request_iterator: Any, context: Any) -> None:
        await context.read()
        await self.tells_changes.wait()
        await context.write(directory_service_pb2.WatchChangesResponse(hello=HELLO))
        number = 0
        while True:
            change = await self.changes.get()
            number += 1
            batch = directory_service_pb2.ChangeBatch(number=number, changes=[change], cursor=b"c%d" % number)
            await context.write(directory_service_pb2.WatchChangesResponse(batch=batch))

    # RegistrationService

    async def StartVerification(self, request: Any, context: Any) -> Any:
        self.principals = [value for key, value in context.invocation_metadata() if key == PRINCIPAL_KEY]
        self.caller_address = client_address(context.invocation_metadata())
        return registration_service_pb2.StartVerificationResponse(verification_id=b"v" * 16)


class FakeFanout:
    """Pushes to one edge."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = EdgeServiceStub(self._channel)
        self._call: Any = None
        self._number = 0
        self.edge_boot_id = 0
        self.arrived: list[bytes] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._call is not None:
            self._call.cancel()
        await self._channel.close()

    async def dial(self, boot_id: int = 0) -> edge_service_pb2.PushResponse:
        """Opens the stream; returns what the edge says first."""
        self._call = self._stub.Push()
        await self._call.write(edge_service_pb2.PushRequest(hello=HELLO, edge_boot_id=boot_id))
        response: edge_service_pb2.PushResponse = await self._call.read()
        return response

    async def push(
        self,
        session_ids: list[int],
        user_id: bytes,
        entries: list[Logged],
        links: Sequence[stream_pb2.TraceLink] = (),
    ) -> edge_service_pb2.PushTaken:
        """Pushes every entry to every session; returns what became of the batch."""
        self._number += 1
        tag = int.from_bytes(hashlib.sha256(b"chappe-user" + user_id).digest()[:4], "big")
        pairs = [(session_id, index) for index in range(len(entries)) for session_id in session_ids]
        batch = edge_service_pb2.PushBatch(
            number=self._number,
            session_ids=[session_id for session_id, _ in pairs],
            user_tags=[tag] * len(pairs),
            item_indexes=[index for _, index in pairs],
            items=[entry.item for entry in entries],
            keys=[entry.key for entry in entries],
            flags=[entry.flags for entry in entries],
            trace_links=links,
        )
        await self._call.write(edge_service_pb2.PushRequest(batch=batch))
        while True:
            response: edge_service_pb2.PushResponse = await self._call.read()
            self.arrived += response.arrived_user_ids
            if response.WhichOneof("frame") == "taken" and response.taken.number == self._number:
                return response.taken

    async def arrivals(self, count: int) -> list[bytes]:
        """Returns the users of whose arrivals the edge has told, once there are so many."""
        while len(self.arrived) < count:
            response: edge_service_pb2.PushResponse = await self._call.read()
            self.arrived += response.arrived_user_ids
        return self.arrived

    async def verify_all(self, spread_ms: int) -> None:
        request = edge_service_pb2.VerifyAll(reason="test", spread_ms=spread_ms)
        await self._call.write(edge_service_pb2.PushRequest(verify_all=request))

    def break_off(self) -> None:
        """Ends the stream without a marker."""
        self._call.cancel()


def signed_hello(token: str, key: Ed25519PrivateKey, host: str, **changes: Any) -> client_frame_pb2.SignedHello:
    """Returns a Hello as a client makes it; `changes` replace what is signed."""
    signed = client_frame_pb2.SignedHello(
        access_token=token, timestamp_ms=int(time.time() * 1000), nonce=os.urandom(16), host=host
    )
    for name, value in changes.items():
        setattr(signed, name, value)
    message = (
        b"chappe-hello/1\0"
        + hashlib.sha256(signed.access_token.encode()).digest()
        + signed.timestamp_ms.to_bytes(8, "big", signed=True)
        + signed.nonce
        + signed.host.encode()
    )
    signed.signature = key.sign(message)
    return signed
