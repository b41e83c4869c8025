"""The schema files say which table or key of the source document they hold, and what was added."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CQL = sorted(ROOT.glob("svc_*/schema/*/*.cql"))
MIGRATIONS = [*sorted(ROOT.glob("svc_*/schema/*.sql")), *CQL]
SCRIPTS = sorted(ROOT.glob("svc_*/schema/*.lua"))
TABLES = {
    "Messages",
    "Message_Recipients",
    "Users",
    "User_Settings",
    "Contacts",
    "Blocked_Users",
    "Groups",
    "Group_Members",
}
KEYS = {"online", "connection", "lastseen", "typing"}
_HEADING = re.compile(
    r"^-- (?:(?P<names>[A-Z]\w+(?:(?:, | and )[A-Z]\w+)*) tables? of the source document)", re.MULTILINE
)


def header(path: Path) -> str:
    """Returns the comment that a file begins with, on one line."""
    lines = path.read_text().splitlines()
    code = next(number for number, line in enumerate(lines) if line and not line.startswith("--"))
    return " ".join(line.removeprefix("--").strip() for line in lines[:code])


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: f"{path.relative_to(ROOT).parts[0]}-{path.name}")
def test_a_migration_says_what_of_the_document_it_holds_and_what_was_added(path: Path) -> None:
    said = header(path)

    assert "source document" in said
    assert "dded" in said or said.startswith("Not in the source document")


@pytest.mark.parametrize("path", CQL, ids=lambda path: path.name)
def test_a_migration_of_cassandra_begins_with_the_documents_table_and_names_what_it_adds(path: Path) -> None:
    text, said = path.read_text(), header(path)
    tables = set(re.findall(r"^CREATE TABLE (\w+)", text, re.MULTILINE))

    assert _HEADING.match(text)
    assert {table for table in tables if not re.search(rf"\b{table}\b", said)} == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_which_keys_of_the_document_it_uses_and_what_was_added(path: Path) -> None:
    said = header(path)

    assert "source document" in said
    assert "dded" in said or "Not in the source document" in said


def test_every_table_of_the_document_is_held_and_no_other_is_named() -> None:
    named = {
        name
        for path in MIGRATIONS
        for found in _HEADING.finditer(path.read_text())
        for name in re.split(r", | and ", found["names"])
    }

    assert named == TABLES


def test_every_key_of_the_document_is_used() -> None:
    used = {key for path in SCRIPTS for key in re.findall(r"^--   (\w+):\{", path.read_text(), re.MULTILINE)}

    assert used >= KEYS
