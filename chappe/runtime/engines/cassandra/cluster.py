"""Runs a cluster of Cassandra nodes on this machine, for what only several replicas show."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from chappe.runtime.engines.cassandra.cql import Consistency, CqlError, connected
from chappe.runtime.engines.cassandra.node import EmbeddedCassandra, Install
from chappe.runtime.engines.cassandra.options import DURABLE, CassandraOptions
from chappe.runtime.engines.cassandra.ring import Ring
from chappe.runtime.engines.folders import private_folder
from chappe.runtime.engines.process import EngineError

_ATTEMPTS: Final = 3
_ASK_EVERY_S: Final = 0.1
# A row of a table that every cluster has, three times since there are three nodes; it is gone after a minute.
_WRITE_EVERYWHERE: Final = (
    "INSERT INTO system_distributed.view_build_status (keyspace_name, view_name, host_id, status) "
    "VALUES ('chappe', 'is ready', 00000000-0000-0000-0000-000000000000, '') USING TTL 60"
)


class EmbeddedCassandraCluster:
    """Three nodes that know each other; an async context manager.

    It is for tests and benchmarks: nobody is asked for a password.
    """

    size: Final = 3

    def __init__(
        self,
        data_dir: Path,
        install: Install,
        *,
        options: CassandraOptions = DURABLE,
        start_timeout_s: float = 180.0,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares the nodes; nothing is touched before `start`.

        Args:
            data_dir: holds a folder for each node; made when missing.
            install: asked at every start for what to run.
            options: how every node is run.
            start_timeout_s: how long all may take together, after each has answered.
            report: told when a node has to be started again.
        """
        if options.asks_password or options.is_throw_away:
            raise ValueError("a node of several asks no password and keeps its data; give DURABLE, or a like of it")
        self._folder = data_dir.absolute()
        self._start_timeout_s = start_timeout_s
        self._report = report
        self._ring = Ring(self._folder, self.size)
        self.nodes = [
            EmbeddedCassandra(
                self._folder / f"node{number}",
                install,
                options=options,
                member=(self._ring, number),
                start_timeout_s=start_timeout_s,
            )
            for number in range(1, self.size + 1)
        ]
        """The nodes, the seed first; a test may kill and start each."""

    @property
    def addresses(self) -> list[str]:
        """The addresses of the nodes; known from the first start on."""
        return [node.address for node in self.nodes]

    async def start(self) -> None:
        """Returns once a write that every node must take succeeds through each; idempotent.

        Raises:
            EngineError: if a node does not start or they do not find each other; it says why.
        """
        private_folder(self._folder)
        self._ring.take()
        try:
            if not self.nodes[-1].has_data:
                # Who joins asks the seed, and two that begin together may both find nobody.
                await self._start(self.nodes[0])
            await asyncio.gather(*map(self._start, self.nodes))
            await self.until_whole()
        except BaseException:
            await self.kill()
            raise

    async def until_whole(self) -> None:
        """Returns once a write that every node must take succeeds through each: what they say may be yesterday's.

        Raises:
            EngineError: if that takes too long.
        """
        why = "no node answers"
        try:
            async with asyncio.timeout(self._start_timeout_s):
                unasked = self.addresses
                while unasked:
                    try:
                        async with connected(unasked[0]) as connection:
                            await connection.query(_WRITE_EVERYWHERE, Consistency.ALL)
                            unasked = unasked[1:]
                    except CqlError as error:
                        why = str(error)
                        await asyncio.sleep(_ASK_EVERY_S)
        except TimeoutError as error:
            logs = ", ".join(str(node.log) for node in self.nodes)
            raise EngineError(f"the nodes of Cassandra do not find each other: {why}; their logs are {logs}") from error

    async def stop(self) -> None:
        """Stops the nodes cleanly; idempotent."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        self._ring.release()

    async def kill(self) -> None:
        """Kills the nodes with SIGKILL; idempotent."""
        await asyncio.gather(*(node.kill() for node in self.nodes))
        self._ring.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self, node: EmbeddedCassandra) -> None:
        """Starts a node, again if it ended: on a busy machine one that joins may give up on its seed."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                return await node.start()
            except EngineError as error:
                if not left:
                    raise
                self._report(f"{node.address} is started again: {error}")
        return None
