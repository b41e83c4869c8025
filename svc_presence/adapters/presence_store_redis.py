"""Holds routes in Redis or Valkey, by the scripts of `svc_presence/schema`, which say what every key is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chappe.runtime.errors import UnavailableError
from svc_presence.adapters.scripts_redis import Call, RedisScripts
from svc_presence.model import (
    Connected,
    DeviceId,
    Edge,
    Lasting,
    Located,
    Replaced,
    Seen,
    SessionId,
    TypingKind,
    Typist,
    UserId,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.model import Changes, ConversationId, NewSession, Route, Session, Typing

SCHEMA = Path(__file__).parent.parent / "schema"

_REFUSED = b"!"


class RedisPresenceStore:
    """The `PresenceStore` on Redis 7 or Valkey 8 and later, one server or a Cluster."""

    def __init__(self, url: str, *, is_cluster: bool = False, timeout_s: float = 2.0) -> None:
        """Prepares; nothing is connected before the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`, with the password in it; of any node of a Cluster.
            is_cluster: Whether the server is a Cluster.
            timeout_s: How long to wait for a connection, and for an answer.

        Raises:
            UnavailableError: The address is none.
        """
        try:
            self._scripts = RedisScripts(url, SCHEMA, is_cluster=is_cluster, timeout_s=timeout_s)
        except ValueError:
            # It may quote a part of the address, and a password may stand there.
            raise UnavailableError("redis", "its address is no redis://, rediss:// or unix:// URL") from None

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        """Writes what an edge says of its sessions, in one round trip."""
        connects, refreshes, byes = changes
        connect_groups = self._scripts.group([connect.session.user_id.hex() for connect in connects])
        refresh_groups = self._scripts.group([session.user_id.hex() for session in refreshes])
        bye_groups = self._scripts.group([session.user_id.hex() for session in byes])
        results = await self._scripts.run(
            [
                *(_connect_call(edge, [connects[index] for index in group], sent_ms) for group in connect_groups),
                *(_refresh_call(edge, [refreshes[index] for index in group]) for group in refresh_groups),
                *(_bye_call(edge, [byes[index] for index in group]) for group in bye_groups),
            ]
        )
        answers: dict[int, Connected] = {}
        for group, values in zip(connect_groups, results, strict=False):
            answers.update(zip(group, map(_connected, values), strict=True))
        replaced: list[Session] = []
        for group, flags in zip(refresh_groups, results[len(connect_groups) :], strict=False):
            replaced += [refreshes[index] for index, is_replaced in zip(group, flags, strict=True) if is_replaced]
        return Written([answers[index] for index in range(len(connects))], replaced)

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        """Forgets the routes that were found gone, then returns the live routes, in one round trip."""
        tags = [user_id.hex() for user_id in user_ids]
        groups = self._scripts.group(tags)
        forget_groups = self._scripts.group([route.user_id.hex() for route in gone])
        results = await self._scripts.run(
            [
                *(_forget_call([gone[index] for index in group]) for group in forget_groups),
                *(Call("locate", [f"connection:{{{tags[index]}}}" for index in group], []) for group in groups),
            ]
        )
        edges: dict[bytes, Edge] = {}
        located: list[Located] = []
        flat: list[Any]
        for group, flat in zip(groups, results[len(forget_groups) :], strict=True):
            located += [
                _located(group[int(flat[at])], flat[at + 1], flat[at + 2], edges) for at in range(0, len(flat), 3)
            ]
        # Groups of a Cluster, and the fields of a hash, come in any order.
        located.sort()
        return located

    async def read_presence(self, user_ids: Sequence[UserId]) -> list[Seen]:
        """Returns what is known of each person, in one round trip."""
        tags = [user_id.hex() for user_id in user_ids]
        groups = self._scripts.group(tags)
        results = await self._scripts.run(
            [Call("presence", [key for index in group for key in _presence_keys(tags[index])], []) for group in groups]
        )
        found: dict[int, Seen] = {}
        flat: list[int]
        for group, flat in zip(groups, results, strict=True):
            found.update((index, Seen(*flat[3 * at : 3 * at + 3])) for at, index in enumerate(group))
        return [found[index] for index in range(len(user_ids))]

    async def write_typing(self, typings: Sequence[Typing]) -> None:
        """Notes that people are writing, or no longer, in one round trip."""
        groups = self._scripts.group([typing.conversation.conversation_id.hex() for typing in typings])
        await self._scripts.run([_typing_call([typings[index] for index in group]) for group in groups])

    async def read_typing(self, conversation_ids: Sequence[ConversationId]) -> list[list[Lasting]]:
        """Returns who is writing in each conversation, in one round trip."""
        tags = [conversation_id.hex() for conversation_id in conversation_ids]
        groups = self._scripts.group(tags)
        results = await self._scripts.run(
            [Call("typists", [f"typists:{{{tags[index]}}}" for index in group], []) for group in groups]
        )
        found: list[list[Lasting]] = [[] for _ in conversation_ids]
        flat: list[Any]
        for group, flat in zip(groups, results, strict=True):
            for at in range(0, len(flat), 4):
                typist = Typist(UserId(bytes.fromhex(flat[at + 1].decode())), TypingKind(flat[at + 2]))
                found[group[flat[at]]].append(Lasting(typist, flat[at + 3]))
        return [sorted(lasting) for lasting in found]

    async def check(self) -> None:
        """Returns when the server answers."""
        await self._scripts.check()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._scripts.aclose()


def _connect_call(edge: Edge, connects: list[NewSession], sent_ms: int) -> Call:
    keys: list[str] = []
    arguments = [_prefix(edge), str(sent_ms)]
    for session, nonce, age_ms in connects:
        tag = f"{{{session.user_id.hex()}}}"
        keys += (f"connection:{tag}", f"online:{tag}", f"lastseen:{tag}", f"nonce:{tag}:{nonce.hex()}")
        arguments += (str(session.device_id), f"{session.session_id:016x}", str(age_ms))
    return Call("connect", keys, arguments)


def _refresh_call(edge: Edge, sessions: list[Session]) -> Call:
    keys: list[str] = []
    arguments = [_prefix(edge)]
    for user_id, device_id, session_id in sessions:
        tag = f"{{{user_id.hex()}}}"
        keys += (f"connection:{tag}", f"online:{tag}", f"lastseen:{tag}")
        arguments += (str(device_id), f"{session_id:016x}")
    return Call("refresh", keys, arguments)


def _bye_call(edge: Edge, sessions: list[Session]) -> Call:
    prefix = _prefix(edge)
    keys: list[str] = []
    arguments: list[str] = []
    for user_id, device_id, session_id in sessions:
        tag = f"{{{user_id.hex()}}}"
        keys += (f"connection:{tag}", f"online:{tag}", f"lastseen:{tag}")
        arguments += (str(device_id), f"{prefix}{session_id:016x}")
    return Call("bye", keys, arguments)


def _forget_call(routes: list[Route]) -> Call:
    keys: list[str] = []
    arguments: list[str] = []
    for user_id, device_id, session_id, edge in routes:
        tag = f"{{{user_id.hex()}}}"
        keys += (f"connection:{tag}", f"online:{tag}")
        arguments += (str(device_id), f"{_prefix(edge)}{session_id:016x}")
    return Call("forget", keys, arguments)


def _presence_keys(tag: str) -> tuple[str, str]:
    return f"online:{{{tag}}}", f"lastseen:{{{tag}}}"


def _typing_call(typings: list[Typing]) -> Call:
    keys: list[str] = []
    arguments: list[str] = []
    for user_id, conversation, kind, is_over in typings:
        tag, user = f"{{{conversation.conversation_id.hex()}}}", user_id.hex()
        keys += (f"typing:{tag}:{user}", f"typists:{tag}")
        arguments += (user, "0" if is_over else str(int(kind)))
    return Call("typing", keys, arguments)


def _prefix(edge: Edge) -> str:
    return f"{edge.edge_id}|{edge.boot_id:016x}|"


def _connected(value: bytes) -> Connected:
    if value == _REFUSED:
        return Connected(is_refused=True, replaced=None)
    if not value:
        return Connected(is_refused=False, replaced=None)
    place, session, _ = value.rsplit(b"|", 2)
    return Connected(is_refused=False, replaced=Replaced(_edge(place), SessionId(int(session, 16))))


def _located(user_index: int, device: bytes, value: bytes, edges: dict[bytes, Edge]) -> Located:
    place, session, _ = value.rsplit(b"|", 2)
    edge = edges.get(place)
    if edge is None:
        edge = edges[place] = _edge(place)
    return Located(user_index, DeviceId(int(device)), SessionId(int(session, 16)), edge)


def _edge(place: bytes) -> Edge:
    edge_id, _, boot = place.rpartition(b"|")
    return Edge(edge_id.decode(), int(boot, 16))
