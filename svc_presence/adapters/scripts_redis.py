"""Runs Lua scripts on Redis or Valkey, one server or a Cluster: many calls in one round trip to each node."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

# redis.asyncio has a Retry of its own.
from redis.asyncio.retry import Retry  # isort: skip

from chappe.runtime.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The server does nothing else while a script runs: 128 sessions take about a millisecond.
MAX_GROUP = 128
# What a Cluster without nodes, or with slots that no node has, raises is no RedisError.
_AWAY = (RedisError, RedisClusterException, OSError)


class Call(NamedTuple):
    """One run of a script."""

    script: str
    """The name of its file without the suffix."""
    keys: list[str]
    arguments: list[str]


class RedisScripts:
    """Loads the scripts of a folder and runs them by their digests."""

    def __init__(self, url: str, folder: Path, *, is_cluster: bool, timeout_s: float) -> None:
        """Prepares; nothing is connected before the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`, with the password in it; of any node of a Cluster.
            folder: Holds the scripts, one `.lua` file each.
            is_cluster: Whether the server is a Cluster.
            timeout_s: How long to wait for a connection, and for an answer.
        """
        self._sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.lua"))}
        self._digests = {name: _digest(source) for name, source in self._sources.items()}
        self._is_cluster = is_cluster
        self._client = _client(url, is_cluster=is_cluster, timeout_s=timeout_s)

    def group(self, hash_tags: Sequence[str]) -> list[list[int]]:
        """Splits items, given by the hash tags of their keys, into groups that may share a call; returns indexes."""
        if not self._is_cluster:
            indexes = range(len(hash_tags))
            return [list(indexes[start : start + MAX_GROUP]) for start in range(0, len(hash_tags), MAX_GROUP)]
        slots: dict[int, list[int]] = defaultdict(list)
        for index, hash_tag in enumerate(hash_tags):
            slots[key_slot(hash_tag.encode())].append(index)
        return [
            indexes[start : start + MAX_GROUP]
            for indexes in slots.values()
            for start in range(0, len(indexes), MAX_GROUP)
        ]

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Runs the calls in order, on each node, and returns their results.

        Raises:
            UnavailableError: The server does not answer, or refuses; any of the calls may have run.
        """
        try:
            results = await self._execute(calls)
            missing = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
            if missing:
                await self._load()
                again = await self._execute([calls[index] for index in missing])
                for index, result in zip(missing, again, strict=True):
                    results[index] = result
        except _AWAY as error:
            raise _unavailable(error) from error
        for result in results:
            if isinstance(result, Exception):
                raise _unavailable(result) from result
        return results

    async def check(self) -> None:
        """Returns when the server answers.

        Raises:
            UnavailableError: It does not.
        """
        try:
            await self._client.ping()
        except _AWAY as error:
            raise _unavailable(error) from error

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _execute(self, calls: Sequence[Call]) -> list[Any]:
        if not calls:
            return []
        if len(calls) == 1:
            # A pipeline of one costs twice as much as the command.
            return [await self._execute_one(calls[0])]
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, arguments in calls:
            pipeline.execute_command("EVALSHA", self._digests[script], len(keys), *keys, *arguments)
        return list(await pipeline.execute(raise_on_error=False))

    async def _execute_one(self, call: Call) -> Any:
        script, keys, arguments = call
        try:
            return await self._client.execute_command("EVALSHA", self._digests[script], len(keys), *keys, *arguments)
        except NoScriptError as error:
            return error

    async def _load(self) -> None:
        for source in self._sources.values():
            await self._client.script_load(source)


def _client(url: str, *, is_cluster: bool, timeout_s: float) -> Any:
    # The one retry replaces a connection that the server has closed; everything here may run twice.
    retry = Retry(NoBackoff(), 1)
    make: Any = RedisCluster if is_cluster else Redis
    return make.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)


def _digest(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError("redis", detail=f"{type(error).__name__}: {error}")
