"""Runs Cassandra 5 from its published jars, with the Java of the machine."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from chappe.runtime.config import Secret
from chappe.runtime.engines.cassandra.cql import CqlError, Login, connected
from chappe.runtime.engines.cassandra.options import CassandraOptions, java_arguments, write_files
from chappe.runtime.engines.cassandra.ring import Ring
from chappe.runtime.engines.engine import Engine
from chappe.runtime.engines.folders import kept_token
from chappe.runtime.engines.process import POLL_S, read_pid, stop_orphan

DATACENTER: Final = "datacenter1"
"""What a cluster without a plan of its racks calls its only data centre."""
_CLASS: Final = "org.apache.cassandra.service.CassandraDaemon"
_ROLE: Final = "chappe"
_MADE_BY_CASSANDRA: Final = Login("cassandra", Secret("cassandra"))


class Installed(NamedTuple):
    """What a node is started from."""

    java: Path
    jars: tuple[Path, ...]
    archive: tuple[str, ...]
    """The arguments of Java that concern its archive of loaded classes."""


Install = Callable[[], Awaitable[Installed]]
"""Returns what a node is started from, after having fetched what is missing."""


class EmbeddedCassandra(Engine):
    """One node in a folder, a cluster of its own or a member of a larger one.

    It listens on an address of its own, 127.0.N.1, for CQL and for its peers, and on nothing else: there is no JMX.
    As the other engines it survives `kill -9` of itself, unless its options say that its data may be thrown away.
    """

    name = "Cassandra"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        install: Install,
        *,
        options: CassandraOptions | None = None,
        member: tuple[Ring, int] | None = None,
        start_timeout_s: float = 120.0,
        dies_with_launcher: bool = True,
    ) -> None:
        """Prepares a node; nothing is touched before `start`.

        Args:
            data_dir: holds everything that the node keeps; made when missing.
            install: asked at every start for what to run.
            options: durable and with a password by default.
            member: the cluster and the number of the node in it, from 1 on; a cluster of one by default.
            start_timeout_s: how long recovery after a crash may take.
            dies_with_launcher: whether Linux stops the server when the launcher dies in any way.
        """
        super().__init__(data_dir, start_timeout_s=start_timeout_s, dies_with_launcher=dies_with_launcher)
        self._install = install
        self._options = options or CassandraOptions()
        self._ring, self._number = member or (Ring(self._folder, 1), 1)
        self._is_alone = member is None

    @property
    def address(self) -> str:
        """Where CQL is spoken, on port 9042; known from the first start on."""
        return self._ring.address(self._number)

    @property
    def told_address(self) -> str:
        """Where clients are told to find it; its address, unless the options name a network for that."""
        return self._ring.told_address(self._number, self._options.told_network)

    @property
    def login(self) -> Login | None:
        """The administrator's role and password; None when none is asked."""
        if not self._options.asks_password:
            return None
        return Login(_ROLE, Secret(kept_token(self._folder, self.password_file.name)))

    @property
    def password_file(self) -> Path:
        """Where the administrator's password is kept."""
        return self._folder / "password"

    @property
    def has_data(self) -> bool:
        """Whether the node has run before."""
        return (self._folder / "data").is_dir()

    async def _run(self) -> None:
        installed = await self._install()
        pid_file = self._folder / "cassandra.pid"
        await stop_orphan(read_pid(pid_file), self._folder, self.stop_signal, self.stop_s)
        if self._options.is_throw_away:
            for name in ("data", "commitlog", "hints", "saved_caches"):
                await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)
        if self._is_alone:
            self._ring.take()
        self._ring.refuse_taken(self._number)
        write_files(self._folder, self._ring, self._number, self._options)
        await self._spawn(self._command(installed), self._folder, None, pid_file)
        if self.login is not None:
            await self._shut_out(self.login)

    def _command(self, installed: Installed) -> tuple[str, ...]:
        # Java compares the list with that of its archive, jar by jar: sorted, and without a wildcard.
        jars = ":".join(map(str, installed.jars))
        arguments = java_arguments(self._folder, self._options)
        return (str(installed.java), *installed.archive, *arguments, "-cp", jars, _CLASS)

    async def _answers(self) -> bool:
        try:
            async with connected(self.address, self.login) as connection:
                told = await connection.query("SELECT cluster_name FROM system.local")
        except CqlError:
            if self.login is not None:
                await self._let_in(self.login)
            return False
        # Only our own has this name, whoever else may have taken the address meanwhile.
        return told.endswith(self._ring.name.encode())

    async def _let_in(self, login: Login) -> None:
        """Makes the administrator; a new node has nobody else who could."""
        create = f"CREATE ROLE IF NOT EXISTS {login.role} WITH SUPERUSER = true AND LOGIN = true AND PASSWORD = "
        # Not yet: the node makes its own first role a moment after it answers.
        with contextlib.suppress(CqlError):
            async with connected(self.address, _MADE_BY_CASSANDRA) as connection:
                await connection.query(f"{create}'{login.password.reveal()}'")

    async def _shut_out(self, login: Login) -> None:
        """Ends the role that everybody could guess; done at every start, in case that the first was cut short."""
        async with connected(self.address, login) as connection:
            await connection.query(f"ALTER ROLE {_MADE_BY_CASSANDRA.role} WITH SUPERUSER = false AND LOGIN = false")
        with contextlib.suppress(CqlError):
            while True:
                # The node remembers for a moment that it was let in.
                async with connected(self.address, _MADE_BY_CASSANDRA):
                    await asyncio.sleep(POLL_S)

    def _let_go(self) -> None:
        super()._let_go()
        if self._is_alone:
            self._ring.release()
