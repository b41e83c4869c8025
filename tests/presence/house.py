"""Edges and replicas of the registry, as they are, in one process: each may be killed, and their one clock may leap.

svc_message and svc_identity are fakes; Redis is the store in memory, which every replica shares.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Self

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.type.v1 import presence_pb2
from chappe.runtime.app import App, StartError
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.config import ServerSettings
from chappe.runtime.pki import SpiffeId
from svc_edge.app import build as build_edge
from svc_edge.config import Config
from svc_presence.adapters.directory_memory import MemoryDirectory
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.app import assemble
from svc_presence.model import GroupId, Sight, UserId
from svc_presence.ports import DirectoryListener
from tests.mutations.faults import LeapClock
from tests.svc_edge.client import Client
from tests.svc_edge.fakes import FakeMesh, Person, signed_hello

UNKNOWN, ONLINE, OFFLINE, HIDDEN = 1, 2, 3, 4
STEP_S = 0.5
_DRAIN_S = 2.0


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
    """Waits until a condition holds, in real time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


class Town(MemoryDirectory):
    """Who may see whom, for all replicas; changes are told to each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[DirectoryListener] = []

    def befriend(self, *user_ids: bytes) -> None:
        """Lets people see each other."""
        for viewer_id, target_id in itertools.permutations(map(UserId, user_ids), 2):
            self.allowed[viewer_id, target_id] = Sight.LAST_SEEN
        self.tell(*user_ids)

    def hide(self, target_id: bytes, viewer_id: bytes) -> None:
        """Lets one person see nothing of another any more."""
        self.allowed[UserId(viewer_id), UserId(target_id)] = Sight.NOTHING
        self.tell(target_id)

    def join(self, group_id: bytes, *user_ids: bytes) -> None:
        """Makes people members of a group."""
        self.members.update((GroupId(group_id), UserId(user_id)) for user_id in user_ids)
        for listener in self.listeners:
            listener.group_changed(GroupId(group_id))

    def tell(self, *user_ids: bytes) -> None:
        """Tells every replica that people have changed."""
        for listener, user_id in itertools.product(self.listeners, user_ids):
            listener.user_changed(UserId(user_id))


class Directory(MemoryDirectory):
    """What one replica knows of the town."""

    def __init__(self, town: Town) -> None:
        super().__init__()
        self.allowed, self.members, self.apart = town.allowed, town.members, town.apart


class Process:
    """One process, as far as the others can tell: it has an address, and it can die and come back."""

    def __init__(self, name: str, clock: LeapClock) -> None:
        self._name = name
        self._seams = Seams(clock, SystemRandomness())
        self.address = "127.0.0.1:0"
        self.app: App

    async def bind(self, caller: str) -> App:
        """Takes an address, the same again after an end."""
        identity = SpiffeId(trust_domain="chappe.test", namespace="chappe", service=caller)
        for _ in range(100):
            settings = ServerSettings(listen=self.address, peer_name=self._name, drain_s=_DRAIN_S)
            app = App(self._name.partition("-")[0], settings, seams=self._seams, identify=lambda _: identity)
            try:
                await app.__aenter__()
            except StartError:
                # The port of the one that died is let go by another thread.
                await asyncio.sleep(0.05)
            else:
                self.app, self.address = app, app.address
                return app
        raise StartError(f"{self.address} is not let go")

    async def stop(self) -> None:
        """Ends politely."""
        await self.app.__aexit__(None, None, None)

    async def kill(self) -> None:
        """Ends at once, as `kill -9` would: no goodbye to anybody, and what was in memory is gone."""
        app = self.app
        app.ended.set()
        for task in list(app.tasks._tasks):
            task.cancel()
        await app._server.stop(None)
        await app._listeners.aclose()
        await app.tasks.aclose()
        await app._peers.aclose()
        await app._stores.aclose()


class House:
    """Two edges, up to three replicas, and the people at the edges."""

    def __init__(self) -> None:
        self.clock = LeapClock()
        self.town = Town()
        self.store = MemoryPresenceStore(self.clock)
        self.mesh = FakeMesh()
        self.replicas = [Process(f"presence-{number}", self.clock) for number in range(3)]
        self.edges = [Process(f"edge-{number}", self.clock) for number in range(2)]
        self.running: set[Process] = set()
        self._people: list[Guest] = []

    async def __aenter__(self) -> Self:
        await self.mesh.__aenter__()
        # Everybody is given an address at first, so that the edges can be told of all.
        with contextlib.ExitStack() as stack:
            for replica in self.replicas:
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                replica.address = f"127.0.0.1:{probe.getsockname()[1]}"
        await self.start(0)
        for edge in self.edges:
            await self._open_edge(edge)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for guest in self._people:
            guest.client.abort()
        for process in [*self.edges, *self.replicas]:
            if process in self.running:
                await process.stop()
        await self.mesh.__aexit__()

    async def start(self, replica: int) -> None:
        """Starts a replica, again or for the first time."""
        await self.replicas[replica].bind("svc-edge")
        await self._open(self.replicas[replica])

    async def stop(self, replica: int) -> None:
        """Stops a replica politely."""
        self.running.discard(self.replicas[replica])
        await self.replicas[replica].stop()

    async def kill(self, process: Process) -> None:
        """Kills a process."""
        self.running.discard(process)
        await process.kill()

    async def guest(self, edge: int = 0, person: Person | None = None) -> "Guest":
        """Returns somebody who is signed in at an edge."""
        guest = Guest(self, self.edges[edge].app.addresses["ws"], person or Person.new())
        self._people.append(guest)
        await guest.sign_in()
        return guest

    async def pass_until(self, condition: Callable[[], Any], most_s: float) -> float:
        """Lets time go by in leaps until something holds; returns how long that took."""
        begun_s = self.clock.monotonic_s()
        while not condition():
            assert self.clock.monotonic_s() - begun_s < most_s, f"not within {most_s} s"
            self.clock.leap(STEP_S)
            # The world needs some real time to notice: frames cross sockets between one leap and the next.
            await asyncio.sleep(0.025)
        return self.clock.monotonic_s() - begun_s

    async def _open(self, replica: Process) -> None:
        directory = Directory(self.town)
        assemble(replica.app, self.store, directory)
        self.town.listeners.append(directory.listener)
        await replica.app.start()
        self.running.add(replica)

    async def _open_edge(self, edge: Process) -> None:
        targets = ",".join(replica.address for replica in self.replicas)
        address = str(self.mesh.address)
        app = await edge.bind("svc-fanout")
        config = Config(presence_target=targets, message_target=address, identity_target=address)
        await build_edge(config, app)
        await app.start()
        self.running.add(edge)


class Guest:
    """Somebody with a connection, which notes everything that it is told."""

    def __init__(self, house: House, url: str, person: Person) -> None:
        self._house = house
        self._url = url
        self.person = person
        self.user_id = person.user_id
        self.client = Client(url)
        self.views: dict[bytes, list[int]] = {}
        """The states that were told of each person."""
        self.last_seen_ms: dict[bytes, int] = {}
        self.typing: dict[bytes, list[list[bytes]]] = {}
        """Who was said to be writing, for each peer or group."""
        self._reading: asyncio.Task[None] | None = None

    async def sign_in(self) -> None:
        """Connects and says Hello, and reads from then on; answers pings while `client.may_pong`."""
        client = self.client = Client(self._url)
        await client.request()
        now_ms = self._house.clock.wall_ms()
        claims: dict[str, Any] = {"iat": now_ms // 1000, "nbf": now_ms // 1000 - 5, "exp": now_ms // 1000 + 900}
        token = self._house.mesh.token(self.person, **claims)
        signed = signed_hello(token, self.person.key, client.host, timestamp_ms=now_ms)
        client.send(hello=client_frame_pb2.Hello(protocol=1, signed=signed))
        await client.expect("caught_up")
        self._reading = asyncio.ensure_future(self._read())

    async def leave(self) -> None:
        """Closes the connection, as an application that is shut does."""
        self.client.abort()
        await self._stop_reading()

    async def vanish(self) -> None:
        """Falls silent: nothing is read, nothing is answered, and nothing is closed."""
        self.client.may_pong = False
        await self._stop_reading()
        self.client.pause_reading()

    def watch(self, *user_ids: bytes) -> None:
        self.client.send(watch=client_frame_pb2.Watch(user_ids=user_ids))

    def look_at(self, **named: bytes) -> None:
        ref = presence_pb2.ConversationRef(**named)
        self.client.send(open_conversation=client_frame_pb2.OpenConversation(conversations=[ref]))

    def type(self, **named: bytes) -> None:
        ref = presence_pb2.ConversationRef(**named)
        self.client.send(typing=client_frame_pb2.Typing(conversation=ref))

    def sees(self, guest: "Guest") -> int:
        """Returns what was told last of somebody; 0 for nothing."""
        return self.views.get(guest.user_id, [0])[-1]

    async def _read(self) -> None:
        with contextlib.suppress(AssertionError):
            while (frame := await self.client.read()) is not None:
                for one in frame.presence_delta.presences:
                    self.views.setdefault(one.user_id, []).append(one.state)
                    self.last_seen_ms[one.user_id] = one.last_seen_ms
                for told in frame.typing_delta.conversations:
                    name = told.conversation.group_id or told.conversation.peer_user_id
                    self.typing.setdefault(name, []).append([typist.user_id for typist in told.typists])

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading


def new_person() -> Person:
    """Returns somebody."""
    return Person.new(os.urandom(16))
