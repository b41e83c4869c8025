"""What the stores on PostgreSQL share: the pool, transactions, the log of changes, and the rows of devices."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from chappe.runtime.errors import UnavailableError
from chappe.runtime.postgres import TidyConnection
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, Charge, DeviceId, DeviceRef, UserId
from svc_identity.protocol.limit import check_charge, day_of

NAME = "postgres"
DOES_NOT_SERVE = (psycopg.OperationalError, psycopg.InternalError)
"""What the driver raises when the database cannot do what it is asked. Among the second are a server that takes no
writes, as a primary after another one took over, and one that ended a transaction for its time."""

Row = tuple[Any, ...]
Connection = AsyncConnection[Row]
_Result = TypeVar("_Result")

_TIMEOUT_S = 5.0
_REDIAL_S = 1.0
"""For so long a pool dials again by itself, and after that when it is asked for a connection. It waits twice as long
before each dial as before the last: after a long outage that would be as long as the outage."""
_TRIES = 4
_RECORD = """
    WITH bumped AS (UPDATE users SET version = version + 1 WHERE user_id = %s RETURNING version)
    INSERT INTO identity_changes (kind, entity, version, device_id, session_id)
    VALUES (%s, %s, coalesce((SELECT version FROM bumped), 0), %s, %s)
"""


class _UuidLoader(Loader):
    """Gives uuid columns as 16 bytes, which is what ids are everywhere else."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class Work:
    """One connection, as the stores use it; inside a transaction when it was given by `Database.write`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, query: str, *parameters: object) -> list[Row]:
        """Returns the rows of a query."""
        # Queries are literals of this package; values go as parameters only.
        cursor = await self._connection.execute(query.encode(), parameters, binary=True)
        return await cursor.fetchall()

    async def row(self, query: str, *parameters: object) -> Row | None:
        """Returns the first row of a query."""
        cursor = await self._connection.execute(query.encode(), parameters, binary=True)
        return await cursor.fetchone()

    async def run(self, query: str, *parameters: object) -> int:
        """Runs a statement; returns how many rows it touched."""
        cursor = await self._connection.execute(query.encode(), parameters, binary=True)
        return cursor.rowcount

    async def lock_phone(self, phone: str, *, is_shared: bool = False) -> None:
        """Waits until nobody else decides about a number; ends with the transaction."""
        suffix = "_shared" if is_shared else ""
        await self.run(f"SELECT pg_advisory_xact_lock{suffix}(hashtextextended(%s::text, 0))", phone)

    async def record(self, kind: ChangeKind, user_id: UserId, *, device_id: int = 0, session_id: bytes = b"") -> None:
        """Raises the version of an account and appends to the log."""
        entity = uuid_of(user_id)
        session = uuid_of(session_id) if session_id else None
        await self.run(_RECORD, entity, int(kind), entity, device_id, session)

    async def charge(self, user_id: UserId, charge: Charge) -> None:
        """Takes a charge from a budget, or refuses it."""
        account, today = uuid_of(user_id), day_of(charge.now_ms)
        await self.run(
            "INSERT INTO account_budgets VALUES (%s, %s, %s, 0) ON CONFLICT DO NOTHING",
            account,
            charge.budget,
            today,
        )
        row = await self.row(
            "SELECT day, used FROM account_budgets WHERE user_id = %s AND budget = %s FOR UPDATE",
            account,
            charge.budget,
        )
        # A day that has begun does not end because here, by another clock, it is still the one before.
        used = row[1] if row is not None and row[0] >= today else 0
        await self.run(
            "UPDATE account_budgets SET day = greatest(day, %s), used = %s WHERE user_id = %s AND budget = %s",
            *(today, check_charge(charge, used), account, charge.budget),
        )

    async def add_device(self, user_id: UserId, public_key: bytes, platform: str, now_ms: int) -> DeviceRef:
        """Links a device under an id that was never used."""
        account = uuid_of(user_id)
        row = await self.row(
            "UPDATE users SET next_device_id = next_device_id + 1 WHERE user_id = %s RETURNING next_device_id - 1",
            account,
        )
        if row is None:
            raise UserNotFoundError("the account does not exist any more")
        await self.run(
            "INSERT INTO devices (user_id, device_id, public_key, platform, link_ms) VALUES (%s, %s, %s, %s, %s)",
            *(account, row[0], public_key, platform, now_ms),
        )
        await self.record(ChangeKind.DEVICES, user_id, device_id=row[0])
        return DeviceRef(user_id, DeviceId(row[0]))

    async def count_devices(self, user_id: UserId) -> int:
        """Returns how many devices an account has linked; holds the account until the end of the transaction."""
        account = uuid_of(user_id)
        await self.row("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", account)
        row = await self.row("SELECT count(*) FROM devices WHERE user_id = %s AND unlink_ms IS NULL", account)
        return 0 if row is None else int(row[0])

    async def revoke(self, device: DeviceRef, now_ms: int, *, is_unlinked: bool) -> bool:
        """Ends the session of a device, and its link if asked; returns whether there is such a device at all."""
        key = (uuid_of(device.user_id), device.device_id)
        known = await self.row(
            "SELECT unlink_ms FROM devices WHERE (user_id, device_id) = (%s, %s) FOR NO KEY UPDATE", *key
        )
        if known is None:
            return False
        ended = await self.row(
            "UPDATE auth_sessions SET revoke_ms = %s WHERE (user_id, device_id) = (%s, %s) AND revoke_ms IS NULL "
            "RETURNING session_id",
            *(now_ms, *key),
        )
        is_going = is_unlinked and known[0] is None
        if ended is None and not is_going:
            return True
        await self.run(
            "UPDATE devices SET generation = generation + 1, unlink_ms = coalesce(unlink_ms, %s) "
            "WHERE (user_id, device_id) = (%s, %s)",
            *(now_ms if is_unlinked else None, *key),
        )
        if ended is not None:
            kind = ChangeKind.SESSION_REVOKED
            await self.record(kind, device.user_id, device_id=device.device_id, session_id=ended[0])
        if is_going:
            await self.record(ChangeKind.DEVICES, device.user_id, device_id=device.device_id)
        return True


class Database:
    """The pool of connections to the directory's database."""

    def __init__(self, dsn: str, *, size: int, changed: asyncio.Event) -> None:
        """Prepares; nothing is dialled before it is entered.

        Args:
            dsn: The address of the database.
            size: How many connections there may be.
            changed: Set after every write.
        """
        self.dsn = dsn
        self._changed = changed
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            dsn,
            connection_class=TidyConnection,
            min_size=min(2, size),
            max_size=size,
            open=False,
            timeout=_TIMEOUT_S,
            reconnect_timeout=_REDIAL_S,
            kwargs={"autocommit": True, "connect_timeout": int(_TIMEOUT_S)},
            configure=prepare,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._pool.open(wait=True, timeout=_TIMEOUT_S)
        except PoolTimeout as error:
            await self._pool.close()
            raise UnavailableError(NAME, f"no connection within {_TIMEOUT_S:.0f} s; is it running?") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.close()

    async def check(self) -> None:
        """Returns when the database answers.

        Raises:
            UnavailableError: It does not.
        """
        async with self.read() as work:
            await work.row("SELECT 1")

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Work]:
        """Gives a connection outside a transaction: every query is its own."""
        async with _Translated(), self._pool.connection() as connection:
            yield Work(connection)

    async def write(self, work: Callable[[Work], Awaitable[_Result]]) -> _Result:
        """Does work in a transaction, again when it met another one; all of it happens or nothing.

        Raises:
            UnavailableError: The database does not answer, and whether it was done is not known.
        """
        for attempt in range(_TRIES):
            try:
                async with _Translated(), self._pool.connection() as connection, connection.transaction():
                    result = await work(Work(connection))
            except _ClashedError:
                if attempt == _TRIES - 1:
                    raise UnavailableError(NAME, "the transaction met others again and again") from None
            else:
                self._changed.set()
                return result
        raise AssertionError("unreachable: the last attempt returns or raises")


class _ClashedError(Exception):
    """The transaction was undone because of another one."""


class _Translated:
    """Turns the driver's errors into ours."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.UniqueViolation):
            raise _ClashedError from error
        if isinstance(error, errors.ForeignKeyViolation):
            raise UserNotFoundError("the account does not exist any more") from error
        if isinstance(error, (*DOES_NOT_SERVE, PoolTimeout)):
            raise UnavailableError(NAME, detail=f"{type(error).__name__}: {str(error).strip()}") from error


def uuid_of(raw: bytes) -> UUID:
    """Returns 16 bytes as the driver wants them."""
    return UUID(bytes=raw)


async def prepare(connection: Connection) -> None:
    """Makes a connection give ids as bytes."""
    connection.adapters.register_loader("uuid", _UuidLoader)
