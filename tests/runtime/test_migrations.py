"""The migrations of a PostgreSQL database: applied once, in order, whole, and never edited."""

import asyncio
import hashlib
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.errors import UnavailableError
from chappe.runtime.migrations import SchemaOutdatedError, check, migrate, migrations

Write = Callable[[str, str], None]
QUOTED = "'postgresql://ledger:hunter2@db/ledger'"
"""An address between quotation marks, as it comes out of a file that a shell was to read."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with asyncio.Runner() as runner:
        engine = EmbeddedPostgres(tmp_path_factory.mktemp("migrations"))
        runner.run(engine.start())
        yield engine
        runner.run(engine.stop())


@pytest.fixture
async def dsn(engine: EmbeddedPostgres, request: pytest.FixtureRequest) -> str:
    """Returns the address of an empty database."""
    name = f"db_{abs(hash(request.node.name))}"
    return (await databases(engine.dsn, [name]))[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the schema folder of a service."""
    found = tmp_path / "svc_example" / "schema"
    found.mkdir(parents=True)
    return found


@pytest.fixture
def write(folder: Path) -> Write:
    """Returns a function that writes a migration."""

    def write(name: str, script: str) -> None:
        (folder / name).write_text(script)

    write("0001_first.sql", "CREATE TABLE first (id int); INSERT INTO first VALUES (1);")
    return write


async def count(dsn: str, table: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - names of this test
        row = await cursor.fetchone()
        return int(row[0]) if row else 0


async def test_missing_files_are_applied_once_in_order(dsn: str, folder: Path, write: Write) -> None:
    write("0002_second.sql", "INSERT INTO first VALUES (2);")

    assert await migrate(dsn, folder) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate(dsn, folder) == []
    assert await count(dsn, "first") == 2


async def test_a_newer_file_is_applied_alone(dsn: str, folder: Path, write: Write) -> None:
    await migrate(dsn, folder)
    write("0002_second.sql", "INSERT INTO first VALUES (2);")

    assert await migrate(dsn, folder) == ["0002_second.sql"]


async def test_a_file_that_fails_leaves_nothing(dsn: str, folder: Path, write: Write) -> None:
    write("0002_bad.sql", "INSERT INTO first VALUES (2); SELECT 1 / 0;")

    with pytest.raises(SchemaOutdatedError, match=r"0002_bad\.sql failed and nothing of it was kept: division by zero"):
        await migrate(dsn, folder)

    assert await count(dsn, "first") == 1
    assert await count(dsn, "schema_migrations") == 1


async def test_a_file_that_was_edited_is_refused(dsn: str, folder: Path, write: Write) -> None:
    await migrate(dsn, folder)
    write("0001_first.sql", "CREATE TABLE other (id int);")

    with pytest.raises(SchemaOutdatedError, match=r"0001_first\.sql was edited"):
        await migrate(dsn, folder)
    with pytest.raises(SchemaOutdatedError, match="put the change into a new file"):
        await check(dsn, folder)


async def test_the_comment_that_a_file_begins_with_may_change(dsn: str, folder: Path, write: Write) -> None:
    write("0001_first.sql", "-- What it holds.\n\nCREATE TABLE first (id int); -- whole numbers\n")
    await migrate(dsn, folder)

    write("0001_first.sql", "-- What it holds, and why.\nCREATE TABLE first (id int); -- whole numbers\n")
    await check(dsn, folder)

    assert await migrate(dsn, folder) == []

    write("0001_first.sql", "-- What it holds, and why.\nCREATE TABLE first (id int); -- numbers\n")
    with pytest.raises(SchemaOutdatedError, match="was edited"):
        await check(dsn, folder)


async def test_a_comment_may_be_put_before_what_an_earlier_program_counted_whole(
    dsn: str, folder: Path, write: Write
) -> None:
    script = "-- The first.\nCREATE TABLE first (id int);\n"
    write("0001_first.sql", script)
    await migrate(dsn, folder)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        whole = hashlib.sha256(script.encode()).digest()
        await connection.execute("UPDATE schema_migrations SET checksum = %s", (whole,))

    write("0001_first.sql", f"-- What it holds.\n--\n{script}")
    await check(dsn, folder)

    assert await migrate(dsn, folder) == []


async def test_several_at_once_apply_each_file_once(dsn: str, folder: Path, write: Write) -> None:
    applied = await asyncio.gather(*(migrate(dsn, folder) for _ in range(5)))

    assert sorted(applied) == [[], [], [], [], ["0001_first.sql"]]
    assert await count(dsn, "first") == 1


async def test_a_database_that_is_behind_is_refused_with_the_command(dsn: str, folder: Path, write: Write) -> None:
    with pytest.raises(SchemaOutdatedError, match=r"lacks 0001_first\.sql; run: python -m svc_example migrate"):
        await check(dsn, folder)

    await migrate(dsn, folder)
    await check(dsn, folder)


async def test_a_database_that_is_ahead_is_accepted(dsn: str, folder: Path, write: Write) -> None:
    write("0002_second.sql", "SELECT 1;")
    await migrate(dsn, folder)
    (folder / "0002_second.sql").unlink()

    await check(dsn, folder)

    assert await migrate(dsn, folder) == []


async def test_a_database_that_does_not_answer_is_unavailable(folder: Path, write: Write, tmp_path: Path) -> None:
    nowhere = f"postgresql://nobody@/nothing?host={tmp_path}"

    with pytest.raises(UnavailableError, match="PostgreSQL"):
        await migrate(nowhere, folder)
    with pytest.raises(UnavailableError, match="PostgreSQL"):
        await check(nowhere, folder)


@pytest.mark.usefixtures("write")
@pytest.mark.parametrize("work", [migrate, check])
async def test_what_is_no_address_is_refused_and_not_quoted(
    folder: Path, work: Callable[[str, Path], Awaitable[object]]
) -> None:
    with pytest.raises(UnavailableError, match="its address is no libpq string or URL") as refused:
        await work(QUOTED, folder)

    assert "hunter2" not in "".join(traceback.format_exception(refused.value, chain=True))


@pytest.mark.parametrize("name", ["0003_gap.sql", "0001_double.sql", "02_short.sql", "0002-dash.sql"])
def test_a_name_out_of_order_is_refused(folder: Path, write: Write, name: str) -> None:
    write(name, "")

    with pytest.raises(ValueError, match=r"call it 000[12]_"):
        migrations(folder)


def test_an_empty_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds no migrations"):
        migrations(folder)
