"""An edge and the ledger behind it, in one process and without I/O: what the core is tested against."""

from typing import Any, NamedTuple

from chappe.api.edge.v1 import client_frame_pb2, item_pb2, send_pb2, server_frame_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2, receipt_state_pb2
from chappe.client.mint import conversation_of, mint_tag_of

ME, PEER = b"\x01" * 16, b"\x02" * 16
DEVICE = 1
CONVERSATION = conversation_of(ME, PEER)


def frame(**kind: Any) -> server_frame_pb2.ServerFrame:
    """Returns a frame of the edge."""
    return server_frame_pb2.ServerFrame(**kind)


def message_item(number: int, sender: bytes = PEER) -> item_pb2.Item:
    """Returns the event of one message of the peer."""
    message_id = (((1_790_000_000_000 + number) << 80) | (0x7 << 76) | (1 << 63) | number).to_bytes(16, "big")
    event = item_pb2.MessageEvent(
        message_id=message_id,
        conversation_id=CONVERSATION,
        sender_user_id=sender,
        sender_device_id=1,
        recipient_user_id=ME,
        accepted_ms=1_790_000_000_000 + number,
        envelope=envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=b"hello"),
    )
    return item_pb2.Item(position=number.to_bytes(16, "big"), message=event)


def receipt_item(number: int, message_ids: list[bytes], state: int = 2) -> item_pb2.Item:
    """Returns the event that the peer's device has these messages."""
    states = [receipt_state_pb2.ReceiptState.ValueType(state)] * len(message_ids)
    receipt = item_pb2.ReceiptEvent(
        conversation_id=CONVERSATION, user_id=PEER, message_ids=message_ids, states=states, recorded_ms=number
    )
    return item_pb2.Item(position=number.to_bytes(16, "big"), receipt=receipt)


def read_item(number: int, read_upto: bytes) -> item_pb2.Item:
    """Returns the event that another device of the user has read the chat up to a message."""
    read = item_pb2.OwnReadEvent(conversation_id=CONVERSATION, read_upto=read_upto)
    return item_pb2.Item(position=number.to_bytes(16, "big"), own_read=read)


class Refusal(NamedTuple):
    """What a send is answered with."""

    reason: int
    is_retryable: bool = False
    retry_after_ms: int = 0


class ModelEdge:
    """Speaks the edge's side of one device's connection; the ledger outlives every connection."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self.now_ms = now_ms
        self.window = 32
        self.is_ledger_silent = False
        self.log: list[item_pb2.Item] = []
        self.stored: dict[bytes, bytes] = {}
        self.void: set[bytes] = set()
        self.bodies: dict[bytes, list[tuple[int, bytes]]] = {}
        self.read_upto: list[bytes] = []
        self.hellos: list[client_frame_pb2.Hello] = []
        self.pings: list[int] = []
        self.acked_ids: list[bytes] = []
        self.watched: list[bytes] = []
        self.looked_at: list[list[bytes]] = []
        """What each OpenConversation named."""
        self.typings: list[tuple[bytes, int, bool]] = []
        self.frames: list[bytes] = []
        self.sent = 0
        self.acked = 0
        self.places: list[int] = []
        self.start = 0
        self._refusals: list[Refusal] = []

    def refuse_next(self, reason: int, *, is_retryable: bool, retry_after_ms: int = 0) -> None:
        """Refuses the next first attempt."""
        self._refusals.append(Refusal(reason, is_retryable, retry_after_ms))

    def take(self, data: bytes) -> None:
        """Takes one frame of the client."""
        client = client_frame_pb2.ClientFrame.FromString(data)
        kind = str(client.WhichOneof("frame"))
        getattr(self, f"_{kind}")(getattr(client, kind))

    def push(self, start: int, end: int, cursor: int | None = None) -> None:
        """Sends a part of the log as one Events."""
        events = server_frame_pb2.Events(items=self.log[start:end])
        if cursor is not None:
            events.cursor = cursor.to_bytes(4, "big")
        self.sent += end - start
        self.places += range(start, end)
        self._put(events=events)

    def was_asked(self, times: int) -> bool:
        """Returns whether it was asked for its time so often."""
        return len(self.pings) == times

    def verified(self) -> int:
        """Returns the cursor that may be given out: before it, this device has acknowledged everything."""
        acked = set(self.places[: self.acked])
        place = self.start
        while place in acked:
            place += 1
        return place

    def _hello(self, hello: client_frame_pb2.Hello) -> None:
        self.hellos.append(hello)
        self.watched = []
        self.sent = self.acked = 0
        self.places = []
        self.start = int.from_bytes(hello.cursor, "big")
        self._put(
            welcome=server_frame_pb2.Welcome(
                session_id=len(self.hellos),
                server_ms=self.now_ms,
                mint_tag=mint_tag_of(ME, DEVICE),
                send_window=self.window,
            )
        )
        for at in range(self.start, len(self.log), 3):
            self.push(at, min(at + 3, len(self.log)), self.start)
        self._put(caught_up=server_frame_pb2.CaughtUp())

    def _send(self, send: send_pb2.Send) -> None:
        action = send.SerializeToString()
        body = send_pb2.Send.FromString(action)
        body.ClearField("attempt")
        plain = body.SerializeToString()
        self.bodies.setdefault(send.message_id, []).append((send.attempt, plain))
        if self._refusals and send.message_id not in self.stored:
            self._refuse(send, self._refusals.pop(0))
            return
        if send.message_id in self.void:
            self._refuse(send, Refusal(error_reason_pb2.ERROR_REASON_STALE_MESSAGE_ID))
            return
        is_duplicate = send.message_id in self.stored
        self.stored.setdefault(send.message_id, plain)
        if self.is_ledger_silent:
            return
        if send.HasField("read"):
            self.read_upto.append(send.read.read_upto)
        self._put(
            send_ack=server_frame_pb2.SendAck(
                message_id=send.message_id,
                accepted_ms=self.now_ms,
                conversation_id=CONVERSATION,
                is_duplicate=is_duplicate,
            )
        )

    def _refuse(self, send: send_pb2.Send, refusal: Refusal) -> None:
        if not refusal.is_retryable:
            self.void.add(send.message_id)
        self._put(
            send_nack=server_frame_pb2.SendNack(
                message_id=send.message_id,
                reason=error_reason_pb2.ErrorReason.ValueType(refusal.reason),
                detail="because",
                is_retryable=refusal.is_retryable,
                retry_after_ms=refusal.retry_after_ms,
                server_ms=self.now_ms,
            )
        )

    def _ack(self, ack: client_frame_pb2.Ack) -> None:
        assert ack.count <= self.sent, "the client acknowledges what was never sent to it"
        assert not ack.count or ack.count >= self.acked
        self.acked = max(self.acked, ack.count)
        self.acked_ids.extend(ack.message_ids)

    def _ping(self, ping: client_frame_pb2.Ping) -> None:
        self.pings.append(ping.client_ms)
        self._put(pong=server_frame_pb2.Pong(client_ms=ping.client_ms, server_ms=self.now_ms))

    def tell(self, **kind: Any) -> None:
        """Sends a frame."""
        self._put(**kind)

    def _watch(self, watch: client_frame_pb2.Watch) -> None:
        self.watched += [user_id for user_id in watch.user_ids if user_id not in self.watched]

    def _unwatch(self, unwatch: client_frame_pb2.Unwatch) -> None:
        self.watched = [user_id for user_id in self.watched if user_id not in unwatch.user_ids]

    def _open_conversation(self, opened: client_frame_pb2.OpenConversation) -> None:
        self.looked_at.append([one.group_id or one.peer_user_id for one in opened.conversations])

    def _typing(self, typing: client_frame_pb2.Typing) -> None:
        ref = typing.conversation
        self.typings.append((ref.group_id or ref.peer_user_id, typing.kind, typing.is_over))

    def _put(self, **kind: Any) -> None:
        self.frames.append(frame(**kind).SerializeToString())
