"""A connection to PostgreSQL that leaves nothing behind when it cannot be made."""

from typing import Any, Self

import psycopg
from psycopg import AsyncConnection

Row = tuple[Any, ...]


class TidyConnection(AsyncConnection[Row]):
    """What a service dials with; otherwise psycopg's own.

    The error of a failed attempt holds the attempt, and the other way round, until the collector of cycles looks at
    them, which in a service takes a minute. Until then the socket stays open. A server that was away for a while meets
    every attempt that was made meanwhile, and keeps its places for those whose clients have long given up.
    """

    @classmethod
    async def connect(cls, conninfo: str = "", **settings: Any) -> Self:
        """Connects.

        Args:
            conninfo: The database, as a libpq connection string or URL.
            settings: Those of `psycopg.AsyncConnection.connect`.

        Raises:
            psycopg.Error: There is no connection, and nothing of the attempt is left.
        """
        try:
            return await super().connect(conninfo, **settings)
        except psycopg.Error as error:
            raise error.with_traceback(None) from None
