"""What the pages name exists: tests, mutations, figures, metrics, settings, commands, and the lines of logs."""

import re
from pathlib import Path

import pytest

from tests.mutations.catalogue import MUTATIONS
from tests.test_docs import blocks, pages, prose

GUARANTEES = tuple(f"G{number}" for number in range(1, 13))
QUOTING = ("guarantees.md", "operate.md", "reference-design.md")
"""The pages that quote figures, by links to the benchmarks."""
SERVICES = ("edge", "message", "presence", "fanout", "identity")

_TEST = re.compile(r"`(test_\w+)`")
_MUTATION = re.compile(r"`([a-z]+(?:-[a-z]+)*)`")
_FIGURE = re.compile(r"\[([^\]]+)\]\(benchmarks\.md#")
_NUMBER = re.compile(r"(?<![\d.,])\d[\d,]*(?:\.\d+)?(?![\d,])")
_METRIC = re.compile(r"\bchappe_(?:edge|message|presence|fanout|identity|<service>)_[a-z_]+")
_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
_SETTING = re.compile(r"\bCHAPPE_[A-Z][A-Z_]+[A-Z]\b")
_COMMAND = re.compile(r"python -m (svc_\w+) ([a-z][a-z-]+)")
_WORKLOAD = re.compile(r"\b(?:deployment|job|cronjob)[/ ]((?:svc-[a-z-]+ ?(?:job/)?)+)")
_LOG = re.compile(r"“([^”]+)”")


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, str]:
    """Returns the rows of the guarantees, by their number."""
    lines = (root / "docs" / "guarantees.md").read_text().splitlines()
    return {line.split(" | ")[0][2:]: line for line in lines if re.match(r"\| G\d+ \|", line)}


def test_every_test_that_a_page_names_exists(root: Path) -> None:
    files = [path.read_text() for path in (root / "tests").rglob("test_*.py")]
    defined = {name for text in files for name in re.findall(r"def (test_\w+)\(", text)}

    missing = {page.name: set(_TEST.findall(prose(page))) - defined for page in pages(root)}

    assert {name: names for name, names in missing.items() if names} == {}


@pytest.mark.parametrize("name", QUOTING)
def test_every_figure_that_a_page_quotes_stands_in_the_benchmarks(root: Path, name: str) -> None:
    measured = set(_NUMBER.findall((root / "docs" / "benchmarks.md").read_text()))
    quoted = set(_FIGURE.findall((root / "docs" / name).read_text()))

    assert {figure for figure in quoted if _NUMBER.fullmatch(figure)} - measured == set()


def test_every_metric_that_a_page_names_is_shown(root: Path) -> None:
    table = (root / "docs" / "observe.md").read_text().partition("## Every metric")[2]
    shown = set(_METRIC.findall(table))

    missing = {
        f"{page.name}: {metric}"
        for page in pages(root)
        for metric in _METRIC.findall(page.read_text())
        if shown.isdisjoint(_generalised(_HISTOGRAM.sub("", metric)) | {metric})
        if not metric.endswith("_")
    }

    assert missing == set()


def _generalised(metric: str) -> set[str]:
    """Returns a metric's name as it is, and as that of every service."""
    return {metric, re.sub(rf"^chappe_({'|'.join(SERVICES)})_", "chappe_<service>_", metric)}


def test_every_setting_that_a_page_names_can_be_set(root: Path) -> None:
    known = set(_SETTING.findall((root / "docs" / "config.md").read_text())) | {"CHAPPE_HOME"}

    missing = {
        f"{page.name}: {setting}"
        for page in pages(root)
        for setting in _SETTING.findall(page.read_text())
        if setting.removesuffix("_FILE") not in known and setting not in known
    }

    assert missing == set()


def test_every_command_of_a_service_that_a_page_names_is_one(root: Path) -> None:
    missing = {
        f"{page.name}: {service} {command}"
        for page in pages(root)
        for service, command in _COMMAND.findall(page.read_text())
        if f'"{command}": ' not in (root / service / "__main__.py").read_text()
    }

    assert missing == set()


def test_every_line_of_a_log_that_operators_look_for_is_written(root: Path) -> None:
    sources = "\n".join(
        path.read_text()
        for folder in ("chappe", *(f"svc_{name}" for name in SERVICES))
        for path in (root / folder).rglob("*.py")
    )
    lines = {line for block in _LOG.findall((root / "docs" / "operate.md").read_text()) for line in block.split(" … ")}

    assert lines
    assert {line for line in lines if line not in sources} == set()


def test_every_guarantee_names_tests_that_hold_it(rows: dict[str, str]) -> None:
    assert tuple(rows) == GUARANTEES
    assert [number for number, row in rows.items() if len(_TEST.findall(row)) < 2] == []


def test_every_mutation_stands_beside_the_guarantee_that_it_breaks(root: Path, rows: dict[str, str]) -> None:
    catalogued = {mutation.name for mutation in MUTATIONS}
    named = {name for row in rows.values() for name in _MUTATION.findall(row.rsplit(" | ", 1)[1])}

    assert named == catalogued


def test_every_workload_that_operators_name_is_in_the_manifests(root: Path) -> None:
    manifests = "\n".join(path.read_text() for path in (root / "k8s" / "base").glob("*.yaml"))
    present = set(re.findall(r"^  name: (svc-[a-z-]+)$", manifests, re.MULTILINE))
    text = (root / "docs" / "operate.md").read_text()
    named = {name for found in _WORKLOAD.findall(text) for name in found.replace("job/", "").split()}

    assert len(named) >= len(SERVICES)
    assert named - present == set()


def test_no_page_that_operators_type_from_has_a_block_of_unknown_kind(root: Path) -> None:
    kinds = {block.kind for block in blocks(root / "docs" / "operate.md")}

    assert kinds <= {"sh", "promql", "text"}
