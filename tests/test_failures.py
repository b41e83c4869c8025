"""The page of failures has a row for each, and names tests that exist."""

import re
from pathlib import Path

import pytest

NOT_BUILT = {"F27"}
"""Failures of what is not there yet: their rows say so instead of naming a test."""
_ROW = re.compile(r"^\| (F\d\d) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(test_\w+)`")
_DEFINED = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, list[str]]:
    page = (root / "docs" / "failures.md").read_text()
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in _ROW.findall(page)}


@pytest.fixture(scope="module")
def defined(root: Path) -> set[str]:
    return {name for path in (root / "tests").rglob("test_*.py") for name in _DEFINED.findall(path.read_text())}


def test_every_failure_has_a_row_of_four_cells(rows: dict[str, list[str]]) -> None:
    assert sorted(rows) == [f"F{number:02}" for number in range(1, 33)]
    assert {name: cells for name, cells in rows.items() if len(cells) != 4} == {}


def test_every_test_that_is_named_exists(rows: dict[str, list[str]], defined: set[str]) -> None:
    named = {test for cells in rows.values() for test in _TEST.findall(cells[-1])}

    assert named - defined == set()


def test_every_failure_names_a_test_or_says_that_there_is_none(rows: dict[str, list[str]]) -> None:
    bare = {name for name, cells in rows.items() if not _TEST.search(cells[-1])}

    assert bare == NOT_BUILT
    assert all("*Not" in rows[name][-1] for name in bare)
