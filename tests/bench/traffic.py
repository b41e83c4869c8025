"""What is in flight, and what the load client does when something of it has come further."""

import asyncio
import contextlib
import itertools
import os
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2, receipt_state_pb2
from chappe.client.destination import Destination
from chappe.client.device import Device
from chappe.client.frames import group_message_action, message_action, read_action, send_frame
from chappe.client.mint import IdMint, conversation_of, time_ms_of
from chappe.testing import Action, Event, HistoryWriter
from tests.bench.numbers import summary_ms

BODY_BYTES = 200
NO_MESSAGE = -1
_SUITE = envelope_pb2.ENCRYPTION_SUITE_NONE
_DELIVERED = receipt_state_pb2.RECEIPT_STATE_DELIVERED
_TICK_S = 0.001
_LEAD_S = 0.05
_LEAST_RETRY_S = 0.05


class LoadError(Exception):
    """The load client cannot go on; the message says why."""


class Sender(Protocol):
    """Where frames go."""

    def send(self, frame: bytes) -> None:
        """Sends a frame."""
        ...

    def hang_up(self) -> None:
        """Closes."""
        ...


class Person:
    """One user with one device."""

    def __init__(self, number: int, device: Device, mint: IdMint, history: HistoryWriter | None) -> None:
        self.number = number
        self.device = device
        self.mint = mint
        self.history = history
        self.token = ""
        self.token_end_ms = 0
        self.cursor = b""
        self.connection: Sender | None = None
        self._edge = ""
        self._fresh: list[bytes] = []
        self._seen: set[bytes] = set()

    @property
    def is_connected(self) -> bool:
        """Whether its session stands."""
        return self.connection is not None

    def welcomed(self, connection: Sender, session_id: int) -> None:
        """Begins a session."""
        self.connection = connection
        self._edge = f"{session_id:016x}"
        if self.history is not None:
            self.history.note("connect", session=self._edge, edge="edge-0")

    def left(self) -> None:
        """Ends the session."""
        self.connection = None
        if self.history is not None:
            self.history.note("disconnect", session=self._edge, edge="edge-0")

    def applied(self, item: Any, how: str) -> None:
        """Writes down an event, unless it is known; only with a history."""
        event = item.message
        self._fresh.append(event.message_id)
        if self.history is None or event.message_id in self._seen:
            return
        self._seen.add(event.message_id)
        ms = time_ms_of(event.message_id)
        self.history.apply(
            Event(event.message_id, event.conversation_id, event.sender_user_id, item.position, ms, "message"),
            "push" if how == "push" else "sync",
        )

    def stored(self) -> None:
        """Writes down what is about to be acknowledged; only with a history."""
        if self.history is not None and self._fresh:
            self.history.ack(self._fresh)
            self._fresh = []


class Lane(NamedTuple):
    """One direction of a chat."""

    sender: Person
    action: bytes
    """The action of a Send, ready to be sent."""
    conversation_id: bytes
    to: bytes
    recipients: int = 0
    """How many members of a group get it; zero in a direct chat, and `NO_MESSAGE` for what is no message."""


class Flight(NamedTuple):
    """A message that has not ended yet."""

    intended_s: float
    lane: Lane


def lane_of(sender: Person, recipient: Person, body: bytes) -> Lane:
    """Returns the lane from one person to another."""
    one, other = sender.device.user_id, recipient.device.user_id
    return Lane(sender, message_action(other, _SUITE, body), conversation_of(one, other), other)


def group_lane(sender: Person, group_id: bytes, version: int, recipients: int) -> Lane:
    """Returns the lane from one member to the others of a group."""
    action = group_message_action(group_id, version, _SUITE, os.urandom(BODY_BYTES))
    return Lane(sender, action, group_id, group_id, recipients)


def read_lane(reader: Person, peer: Person, read_upto: bytes) -> Lane:
    """Returns what says once that one person has read what another wrote; kept out of histories like a group's."""
    one, other = reader.device.user_id, peer.device.user_id
    chat = Destination(conversation_of(one, other), other)
    return Lane(reader, read_action(chat, read_upto), chat.conversation_id, other, NO_MESSAGE)


class Latencies:
    """Durations in seconds since the message was to be sent: of direct messages, and of those to groups."""

    def __init__(self) -> None:
        self.ack = array("d")
        self.delivery = array("d")
        self.receipt = array("d")
        self.group_ack = array("d")
        self.last_member = array("d")

    def summary(self) -> dict[str, dict[str, float]]:
        """Returns percentiles in milliseconds."""
        return {
            "ack": summary_ms(self.ack),
            "delivery": summary_ms(self.delivery),
            "receipt": summary_ms(self.receipt),
            "group_ack": summary_ms(self.group_ack),
            "last_member": summary_ms(self.last_member),
        }


class Traffic:
    """All messages in flight; the ends of a message are counted here."""

    def __init__(self) -> None:
        self.flights: dict[bytes, Flight] = {}
        self.sent = 0
        self.done = 0
        """Direct messages that have ended, and deliveries to members of groups."""
        self.retried = 0
        self.failure = ""
        self.latencies = Latencies()
        self.ends_at_ack = False
        self.go_on: Callable[[], None] = _rest
        """Called for each message that ends."""
        self._attempts: dict[bytes, int] = {}
        self._left: dict[bytes, int] = {}
        self._idle = asyncio.Event()

    def launch(self, lane: Lane, intended_s: float) -> bytes:
        """Sends one message and returns its id.

        Args:
            lane: From whom to whom.
            intended_s: When it was to be sent, by time.perf_counter; latencies count from then.
        """
        sender = lane.sender
        message_id = sender.mint.mint(time.time_ns() // 1_000_000)
        self.flights[message_id] = Flight(intended_s, lane)
        self.sent += 1
        self._transmit(message_id, lane, 1)
        return message_id

    def acknowledged(self, message_id: bytes, frame: bytes) -> None:
        """Takes a SendAck."""
        flight = self.flights.get(message_id)
        if flight is None:
            return
        took_s = time.perf_counter() - flight.intended_s
        (self.latencies.group_ack if flight.lane.recipients else self.latencies.ack).append(took_s)
        history = flight.lane.sender.history
        if history is not None and not flight.lane.recipients:
            ack = server_frame_pb2.ServerFrame.FromString(frame).send_ack
            history.stored(message_id, ack.accepted_ms, is_duplicate=ack.is_duplicate)
        if self.ends_at_ack:
            self._end(message_id)

    def delivered(self, message_id: bytes, person: Person, item: Any) -> None:
        """Takes a message at its recipient."""
        flight = self.flights.get(message_id)
        if flight is not None and flight.lane.recipients:
            self._delivered_to_member(message_id, flight)
        elif flight is not None:
            self.latencies.delivery.append(time.perf_counter() - flight.intended_s)
        if person.history is not None and not item.message.group_id:
            person.applied(item, "push" if flight is not None else "sync")

    def _delivered_to_member(self, message_id: bytes, flight: Flight) -> None:
        left = self._left.get(message_id, flight.lane.recipients) - 1
        self.done += 1
        if left:
            self._left[message_id] = left
            return
        self._left.pop(message_id, None)
        self.latencies.last_member.append(time.perf_counter() - flight.intended_s)
        self.done -= 1
        self._end(message_id)

    def receipted(self, receipt: Any, person: Person) -> None:
        """Takes a receipt at the sender of its messages."""
        now_s = time.perf_counter()
        for message_id, state in zip(receipt.message_ids, receipt.states, strict=True):
            if person.history is not None:
                person.history.tick(message_id, "delivered" if state == _DELIVERED else "read", receipt.user_id)
            flight = self.flights.get(message_id)
            if flight is not None and not self.ends_at_ack:
                self.latencies.receipt.append(now_s - flight.intended_s)
                self._end(message_id)

    def refused(self, nack: Any) -> None:
        """Takes a SendNack: sends again what may be sent again, and gives up on anything else."""
        reason = error_reason_pb2.ErrorReason.Name(nack.reason)
        flight = self.flights.get(nack.message_id)
        if flight is not None and flight.lane.sender.history is not None:
            flight.lane.sender.history.refused(nack.message_id, reason, is_final=not nack.is_retryable)
        if not nack.is_retryable:
            self.fail(f"a message was refused with {reason}: {nack.detail}")
        elif flight is not None:
            self.retried += 1
            attempt = self._attempts[nack.message_id] = self._attempts.get(nack.message_id, 1) + 1
            delay_s = max(nack.retry_after_ms / 1000, _LEAST_RETRY_S)
            loop = asyncio.get_running_loop()
            loop.call_later(delay_s, self._transmit, nack.message_id, flight.lane, attempt)

    def fail(self, why: str) -> None:
        """Notes the first failure, which every question is answered with from now on."""
        self.failure = self.failure or why
        self._idle.set()

    async def until_idle(self, timeout_s: float) -> int:
        """Waits until nothing is in flight; returns how many messages still are after the time, and forgets them."""
        if self.flights and not self.failure:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        left = len(self.flights)
        self.flights.clear()
        self._attempts.clear()
        return left

    def take_latencies(self) -> Latencies:
        """Returns what was measured since the last call."""
        taken, self.latencies = self.latencies, Latencies()
        return taken

    def _transmit(self, message_id: bytes, lane: Lane, attempt: int) -> None:
        sender = lane.sender
        if sender.history is not None and not lane.recipients:
            sender.history.send(Action(message_id, lane.conversation_id, lane.to), attempt)
        if sender.connection is None:
            self.fail(f"person {sender.number} is not connected")
        else:
            sender.connection.send(send_frame(message_id, attempt, lane.action))

    def _end(self, message_id: bytes) -> None:
        del self.flights[message_id]
        self.done += 1
        self.go_on()
        if not self.flights:
            self._idle.set()


def run_closed(traffic: Traffic, lanes: list[Lane], in_flight: int, total: int = 0) -> None:
    """Keeps so many messages in flight: each that ends starts the next, lane after lane.

    Args:
        traffic: Counts.
        lanes: Taken in turn.
        in_flight: How many.
        total: How many messages in all; zero for no end.
    """
    turns: Iterator[Lane] = itertools.cycle(lanes)
    if total:
        turns = itertools.islice(turns, total)

    def launch_next() -> None:
        lane = next(turns, None)
        if lane is not None:
            traffic.launch(lane, time.perf_counter())

    traffic.go_on = launch_next
    for _ in range(in_flight):
        launch_next()


async def run_open(traffic: Traffic, lanes: list[Lane], rate: float) -> None:
    """Sends at a steady rate, whatever becomes of it, until it is cancelled.

    Latencies count from the moment at which a message was to be sent, so that a stall is felt by everything that
    should have been sent during it. The clock is looked at every millisecond.
    """
    turns = itertools.cycle(lanes)
    start_s = time.perf_counter() + _LEAD_S
    sent = 0
    while not traffic.failure:
        due = int((time.perf_counter() - start_s) * rate)
        while sent < due:
            sent += 1
            traffic.launch(next(turns), start_s + sent / rate)
        await asyncio.sleep(_TICK_S)


def run_out(traffic: Traffic) -> None:
    """Lets nothing more be started."""
    traffic.go_on = _rest


def _rest() -> None:
    """Starts nothing."""
