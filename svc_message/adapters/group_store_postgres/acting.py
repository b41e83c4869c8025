"""Carries out actions on messages of groups: as on direct ones, with entries in the journal instead of a peer."""

from collections.abc import Sequence
from typing import Final

from psycopg.types.numeric import Int8

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_postgres.accepting import begin
from svc_message.adapters.inbox_rows import ACTION
from svc_message.adapters.journal_postgres import shard_number
from svc_message.adapters.message_store_postgres.acting import carry_out, hashes_of, names_of, outcomes_of
from svc_message.adapters.message_store_postgres.connections import DEPENDENCY, Connections, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model.action import Acted, NewAction
from svc_message.model.group import Shard

# For what is new, and again for what was found; nobody but its user learns of what was hidden. The lock on the shard's
# row lasts until the commit: whoever ends the shard waits for it and sees the entries.
_ENTER: Final = woven(
    """
    WITH shard AS MATERIALIZED (
        SELECT shard FROM journal_shards WHERE shard = %b FOR KEY SHARE
    ), entries AS (
        INSERT INTO journal (shard, pos, conversation_id, message_id, sender_id, members_version, kind)
        SELECT shard.shard, t.pos, a.conversation_id, a.action_id, a.user_id, m.members_version, {action}
        FROM shard, unnest(%b, %b, %b, %b) AS t (conversation_id, action_id, pos, content_hash)
        JOIN actions a ON a.conversation_id = t.conversation_id AND a.action_id = t.action_id
            AND a.kind NOT IN (4, 15) AND a.content_hash = t.content_hash
        CROSS JOIN LATERAL (
            SELECT m.members_version FROM messages m
            WHERE m.conversation_id = a.conversation_id AND m.message_id = a.message_id AND {is_there} LIMIT 1
        ) m
    )
    SELECT count(*) FROM shard
""",
    action=ACTION,
)


async def act(connections: Connections, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
    """Makes actions durable with their entries; one round trip."""
    if not batch:
        return []
    number = Int8(shard_number(shard))
    *effects, outcome = carry_out(batch)
    enter = Statement(_ENTER, (number, *names_of(batch), hashes_of(batch)))
    *_, ((shards,),), rows = await connections.run_together(begin(number), *effects, enter, outcome)
    if not shards:
        raise UnavailableError(DEPENDENCY, "somebody ended the journal of this process meanwhile; send again")
    return outcomes_of(batch, rows)
