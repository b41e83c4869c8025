"""Asks svc_presence what edges and the carrier ask it, as fast as it answers: the rows of the registry.

This runs in the benchmark's own process, which is not counted; services and engines are.
"""

import asyncio
import contextlib
import os
import time
from array import array
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from chappe.api.presence.v1 import presence_service_pb2, track_pb2
from chappe.api.presence.v1.presence_service_pb2_grpc import PresenceServiceStub
from chappe.api.type.v1 import stream_pb2
from chappe.cli.launcher.environment import tls_files
from chappe.runtime.channels import channel
from tests.bench.driver import BenchError
from tests.bench.numbers import summary_ms

BATCH: Final = 256
_ON_THEIR_WAY: Final = 4
"""Batches without an answer."""
_BOOT: Final = 0x7E57
_EDGE: Final = "127.0.0.1:9"
_SINGLES: Final = 300


class Asked(NamedTuple):
    """What came of many operations."""

    per_s: float
    took: dict[str, float]
    """Percentiles of one batch, or of a single question, in milliseconds."""


class Registry:
    """Speaks to one svc_presence as an edge and as the carrier."""

    def __init__(self, edge: Any, carrier: Any, users: int) -> None:
        self._edge = edge
        self._carrier = carrier
        self._call: Any = None
        self._number = 0
        self._sessions = [
            track_pb2.SessionRef(user_id=os.urandom(16), device_id=1, session_id=number + 1) for number in range(users)
        ]

    async def open(self) -> None:
        """Says hello as an edge."""
        self._call = self._edge.Track()
        hello = stream_pb2.StreamHello(protocol=1, peer_id="bench", boot_id=_BOOT, credits=0)
        await self._call.write(track_pb2.TrackRequest(hello=hello, edge_id=_EDGE))
        answer = await self._call.read()
        if not isinstance(answer, track_pb2.TrackResponse) or answer.WhichOneof("frame") != "hello":
            raise BenchError(f"svc_presence answered the hello with {answer}")

    async def connects(self) -> Asked:
        """Connects everybody."""

        def connect(sessions: list[track_pb2.SessionRef]) -> track_pb2.TrackBatch:
            connects = [
                track_pb2.Connect(item_id=session.session_id, session=session, nonce=os.urandom(16))
                for session in sessions
            ]
            return track_pb2.TrackBatch(connects=connects)

        return await self._track(connect)

    async def refreshes(self) -> Asked:
        """Says of everybody that they live."""
        return await self._track(lambda sessions: track_pb2.TrackBatch(refreshes=sessions))

    async def lookups(self) -> Asked:
        """Asks where everybody is, in batches."""
        requests = [
            presence_service_pb2.LocateRequest(user_ids=[session.user_id for session in sessions])
            for sessions in self._batches()
        ]
        waiting = iter(requests)
        took_s = array("d")

        async def ask() -> None:
            for request in waiting:
                begun_s = time.perf_counter()
                answer = await self._carrier.Locate(request)
                took_s.append(time.perf_counter() - begun_s)
                if len(answer.session_ids) != len(request.user_ids):
                    raise BenchError(f"{len(request.user_ids)} users are online, {len(answer.session_ids)} were found")

        start_s = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(_ON_THEIR_WAY)))
        return Asked(len(self._sessions) / (time.perf_counter() - start_s), summary_ms(took_s))

    async def questions(self) -> Asked:
        """Asks where one user is, one question at a time."""
        took_s = array("d")
        start_s = time.perf_counter()
        for session in self._sessions[:_SINGLES]:
            begun_s = time.perf_counter()
            await self._carrier.Locate(presence_service_pb2.LocateRequest(user_ids=[session.user_id]))
            took_s.append(time.perf_counter() - begun_s)
        return Asked(len(took_s) / (time.perf_counter() - start_s), summary_ms(took_s))

    def _batches(self) -> list[list[track_pb2.SessionRef]]:
        return [self._sessions[start : start + BATCH] for start in range(0, len(self._sessions), BATCH)]

    async def _track(self, make: Callable[[list[track_pb2.SessionRef]], track_pb2.TrackBatch]) -> Asked:
        batches = [make(sessions) for sessions in self._batches()]
        sent_s: dict[int, float] = {}
        took_s = array("d")
        start_s = time.perf_counter()
        while batches or sent_s:
            while batches and len(sent_s) < _ON_THEIR_WAY:
                batch = batches.pop()
                self._number += 1
                batch.number = self._number
                sent_s[self._number] = time.perf_counter()
                await self._call.write(track_pb2.TrackRequest(batch=batch))
            answer = await self._call.read()
            if answer.WhichOneof("frame") == "results":
                _check(answer.results)
                took_s.append(time.perf_counter() - sent_s.pop(answer.results.number))
        return Asked(len(self._sessions) / (time.perf_counter() - start_s), summary_ms(took_s))


def _check(results: track_pb2.TrackResults) -> None:
    if results.is_failed or any(connect.refused_reason for connect in results.connects):
        raise BenchError(f"svc_presence did not write a batch: {results}")


@contextlib.asynccontextmanager
async def registry(address: str, pki: Path, users: int) -> AsyncGenerator[Registry]:
    """Opens the two ways to a svc_presence, with the certificates of the mesh."""
    async with (
        channel(address, tls_files(pki, "svc-edge"), server_name="svc-presence") as as_edge,
        channel(address, tls_files(pki, "svc-fanout"), server_name="svc-presence") as as_carrier,
    ):
        asked = Registry(PresenceServiceStub(as_edge), PresenceServiceStub(as_carrier), users)
        await asked.open()
        yield asked
