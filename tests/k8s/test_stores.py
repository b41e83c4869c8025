"""The stores of the development overlay: their start-up scripts and rights, run on the real engines."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RefusedError
from redis.exceptions import NoPermissionError

from chappe.runtime import migrations
from chappe.runtime.clock import SystemClock
from chappe.runtime.engines import EmbeddedPostgres
from chappe.runtime.engines.binaries import postgres_install, valkey_server
from k8s import dev_secrets
from svc_presence.adapters.presence_store_redis import RedisPresenceStore
from svc_presence.model import (
    Changes,
    Conversation,
    ConversationId,
    DeviceId,
    Edge,
    NewSession,
    Session,
    SessionId,
    Typing,
    TypingKind,
    UserId,
)
from tests.k8s.manifests import Manifests

ALICE = UserId(bytes(range(16)))
SECRETS = "/run/secrets/chappe"
READY = b"Ready to accept connections"


async def test_the_first_start_makes_a_database_for_each_owner_which_may_migrate_its_own_only(
    dev: Manifests, root: Path, tmp_path: Path
) -> None:
    secrets = dev_secrets.make(tmp_path / "kept")

    async with EmbeddedPostgres(tmp_path / "pg") as postgres:
        await run_first_start(dev, secrets["postgres"], postgres.dsn, tmp_path)

        for service in ("identity", "message"):
            dsn = as_local(secrets[f"svc-{service}"]["store-dsn"], postgres.dsn)
            assert await migrations.migrate(dsn, root / f"svc_{service}" / "schema")
        message = as_local(secrets["svc-message"]["store-dsn"], postgres.dsn)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            await psycopg.AsyncConnection.connect(make_conninfo(message, dbname="svc_identity"))


async def test_presence_may_do_its_work_in_valkey(dev: Manifests, tmp_path: Path) -> None:
    secrets = dev_secrets.make(tmp_path)
    session = Session(ALICE, DeviceId(1), SessionId(7))
    here = ConversationId(bytes(16))

    async with valkey(dev, secrets["valkey"], tmp_path) as url:
        store = RedisPresenceStore(url(secrets["svc-presence"]["redis-url"]), is_cluster=False, timeout_s=10)
        await store.check()
        changes = Changes([NewSession(session, bytes(16))], [], [])
        written = await store.write(Edge("10.0.0.1:50051", 1), changes, SystemClock().wall_ms())
        located = await store.locate([ALICE], [])
        await store.write_typing([Typing(ALICE, Conversation(here, None), TypingKind.TEXT)])
        (typists,) = await store.read_typing([here])
        (presence,) = await store.read_presence([ALICE])
        await store.aclose()

    assert not written.connects[0].is_refused
    assert [route.session_id for route in located] == [7]
    assert [one.typist.user_id for one in typists] == [ALICE]
    assert presence.online_left_ms > 0


async def test_presence_may_do_nothing_else_in_valkey(dev: Manifests, tmp_path: Path) -> None:
    secrets = dev_secrets.make(tmp_path)

    async with (
        valkey(dev, secrets["valkey"], tmp_path) as url,
        Redis.from_url(url(secrets["svc-presence"]["redis-url"])) as client,
        Redis.from_url(url("redis://valkey")) as nobody,
    ):
        with pytest.raises(NoPermissionError):
            await client.flushall()
        with pytest.raises(NoPermissionError):
            await client.set("somebody", "else")
        # The client greets the server first, and even that wants a login.
        with pytest.raises(RefusedError, match="already authenticated"):
            await nobody.ping()


async def run_first_start(dev: Manifests, secret: dict[str, str], dsn: str, folder: Path) -> None:
    """Runs the script of the image's first start, with its secrets in a folder, as the image's entry point does."""
    for name, content in secret.items():
        (folder / name).write_text(content)
    script = dev.named("ConfigMap", "postgres-init")["data"]["roles.sh"].replace(SECRETS, str(folder))
    parts = conninfo_to_dict(dsn)
    environment = os.environ | {
        "PATH": f"{postgres_install() / 'bin'}:{os.environ['PATH']}",
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGUSER": str(parts["user"]),
        "PGDATABASE": "postgres",
    }
    process = await asyncio.create_subprocess_exec("bash", "-c", script, env=environment)
    assert await process.wait() == 0


def as_local(dsn: str, server: str) -> str:
    """Returns an address with the host of another."""
    parts = conninfo_to_dict(server)
    return make_conninfo(dsn, host=str(parts["host"]), port=str(parts["port"]))


@asynccontextmanager
async def valkey(dev: Manifests, secret: dict[str, str], folder: Path) -> AsyncIterator[Callable[[str], str]]:
    """Runs Valkey with the arguments of its manifest; yields what turns its address into that of this one."""
    users = folder / "users.acl"
    users.write_text(secret["users.acl"])
    (container,) = (one for one in dev.containers() if one.place == "valkey/valkey")
    arguments = [argument.replace(f"{SECRETS}/users.acl", str(users)) for argument in container.spec["args"][1:]]
    # The path of a socket is short by law.
    with tempfile.TemporaryDirectory() as sockets:
        path = Path(sockets) / "valkey"
        own = ["--port", "0", "--unixsocket", str(path), "--dir", sockets]
        process = await asyncio.create_subprocess_exec(
            str(valkey_server()), *arguments, *own, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            while READY not in (line := await process.stdout.readline()):
                assert line, "Valkey ended before it was ready"
            yield partial(at_socket, path)
        finally:
            process.terminate()
            await process.communicate()


def at_socket(path: Path, url: str) -> str:
    """Turns an address into that of a server behind a socket, login kept."""
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    return f"unix://{login}{at}{quote(str(path))}"
