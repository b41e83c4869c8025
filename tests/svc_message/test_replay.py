"""An entry of the journal that cannot be decoded is parked, and the command brings it to the members once it can."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import directory_service_pb2
from chappe.api.type.v1 import envelope_pb2
from chappe.runtime import migrations
from chappe.runtime.config import Secret
from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.errors import UnavailableError
from svc_message.__main__ import main
from svc_message.adapters.group_store_postgres import PostgresGroupStore
from svc_message.adapters.message_store_postgres import SCHEMA
from tests.svc_message.group_desk import GroupDesk, spoil_postgres
from tests.svc_message.test_app import Ledger, configure
from tests.svc_message.test_message_store_postgres import query, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from svc_message.model import UserId
    from svc_message.model.group import NewGroupMessage


class House:
    """A ledger on a database of its own, and what another process of it has left there."""

    def __init__(self, ledger: Ledger, dsn: str) -> None:
        self.ledger, self.dsn = ledger, dsn
        self.desk = GroupDesk()
        self.ledger.identity.groups[self.desk.group_id] = directory_service_pb2.DirectoryGroup(
            group_id=self.desk.group_id,
            exists=True,
            version=1,
            member_user_ids=self.desk.members,
            roles=[item_pb2.GROUP_ROLE_OWNER, item_pb2.GROUP_ROLE_MEMBER, item_pb2.GROUP_ROLE_MEMBER],
            joined_versions=[1, 1, 1],
        )

    async def leave_behind(self) -> NewGroupMessage:
        """Writes a message as a process that then falls silent, before any member has it."""
        sealed = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=b"hello")
        message = self.desk.say(sealed.SerializeToString())
        groups = PostgresGroupStore(self.dsn)
        await groups.accept(self.desk.shard, [message])
        await groups.aclose()
        return message

    async def abandon(self) -> None:
        """Lets what was left behind look as if nobody had worked on it for long."""
        await query(self.dsn, "UPDATE journal_shards SET checkpointed_at = '-infinity'")

    async def parked(self) -> list[tuple[str, int]]:
        """Returns why entries are parked, and by which transaction."""
        rows = await query(self.dsn, "SELECT why, xmin::text::bigint FROM journal_parked")
        return [(str(why), int(xmin)) for why, xmin in rows]

    async def parked_again(self, before: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Waits until something is parked that was not before."""
        found = before

        async def is_new() -> None:
            nonlocal found
            found = await self.parked()
            if not found or found == before:
                raise UnavailableError("ledger", "nothing was parked")

        await within(20, is_new)
        return found

    async def has(self, user_id: UserId) -> list[bytes]:
        """Returns the messages in somebody's inbox."""
        items = [item_pb2.Item.FromString(item) for item in (await self.ledger.inbox(user_id)).items]
        return [item.message.message_id for item in items if item.HasField("message")]


@pytest.fixture
async def house(ledger_engine: EmbeddedPostgres) -> AsyncIterator[House]:
    # Of its own: what is replayed is everything that anybody has parked.
    dsn = (await databases(ledger_engine.dsn, ["svc_message_replayed"]))["svc_message_replayed"]
    await migrations.migrate(dsn, SCHEMA)
    async with contextlib.AsyncExitStack() as stack:
        yield House(Ledger(stack, store_dsn=Secret(dsn)), dsn)


async def test_what_could_not_be_decoded_reaches_the_members_by_the_command_once_it_can(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure(monkeypatch, house.dsn)
    message = await house.leave_behind()
    mend = await spoil_postgres(house.dsn)(message.position)
    await house.abandon()
    await house.ledger.start()

    parked = await house.parked_again([])
    # Nobody has mended it: the ledger says once more why it cannot be read, and keeps it.
    await asyncio.to_thread(main, ["replay-parked"])
    still = await house.parked_again(parked)
    nobody = [await house.has(user_id) for user_id in house.desk.members[1:]]
    await mend()
    await asyncio.to_thread(main, ["replay-parked"])
    await house.ledger.fanout.until(lambda: bool(house.ledger.fanout.items))
    members = [await house.has(user_id) for user_id in house.desk.members[1:]]
    await asyncio.to_thread(main, ["replay-parked"])

    assert ["kind 99" in why for why, _ in (*parked, *still)] == [True, True]
    assert nobody == [[], []]
    assert members == [[message.message_id]] * 2
    assert await house.parked() == []
    assert capsys.readouterr().out.splitlines() == ["replayed 1 entries", "replayed 1 entries", "replayed 0 entries"]
    assert caplog.text.count("`replay-parked` puts it back") == 2
