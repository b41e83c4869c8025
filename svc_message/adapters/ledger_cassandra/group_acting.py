"""Carries out actions on messages of groups: as on direct ones, with entries in the journal instead of a peer."""

from collections.abc import Iterator, Sequence

from svc_message.adapters.inbox_rows import ACTION
from svc_message.adapters.ledger_cassandra.acting import Carried, carry_out, write_out
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.entries import EntryRow
from svc_message.adapters.ledger_cassandra.group_accepting import enter
from svc_message.adapters.ledger_cassandra.shards import Shards
from svc_message.model.action import Acted, ActionKind, NewAction
from svc_message.model.group import Shard


async def act(
    connection: Connection, bounds: Bounds, shards: Shards, shard: Shard, batch: Sequence[NewAction]
) -> list[Acted]:
    """Makes actions durable, and then their entries: whoever reads one finds what it is about."""
    carried = await carry_out(connection, bounds, batch)
    await write_out(connection, carried)
    await enter(connection, shards, shard, list(_entries(carried)))
    return [one.acted for one in carried]


def _entries(carried: Sequence[Carried]) -> Iterator[EntryRow]:
    """Yields what members are told: nothing of what one of them has hidden, or what was done to no message."""
    for action, acted, deed, _, _ in carried:
        if deed is None or deed.kind is ActionKind.HIDE or not acted.members_version:
            continue
        place = (action.position, action.conversation_id, action.action_id)
        yield EntryRow(*place, deed.user_id, acted.members_version, ACTION)
