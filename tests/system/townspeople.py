"""People who have an account and never connect: as many as a large group needs, in one statement."""

import psycopg

from chappe.cli.launcher import Mesh
from chappe.runtime.engines import databases

_IDENTITY = "chappe_identity"
_REGISTER = """
    INSERT INTO users (user_id, profile_name)
    SELECT gen_random_uuid(), 'townsperson ' || n FROM generate_series(1, %s) n RETURNING user_id
"""


async def settle(mesh: Mesh, count: int) -> list[bytes]:
    """Registers people without a device or a phone number; returns their ids."""
    if not count:
        return []
    dsn = (await databases(mesh.foundation.postgres.dsn, [_IDENTITY]))[_IDENTITY]
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(_REGISTER, (count,))
        return [user_id.bytes for (user_id,) in await cursor.fetchall()]
