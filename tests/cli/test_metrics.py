"""Every process shows its metrics, and docs/observe.md knows all of them and every attribute of spans."""

import json
from pathlib import Path

import pytest

from chappe.runtime.tracing import ATTRIBUTES, PREFIX
from tests.cli.conftest import Running
from tests.metrics_page import BEGIN, END, shown, table


def addresses(system: Running) -> dict[str, list[str]]:
    state: dict[str, dict[str, list[str]]] = json.loads((system.data / "up.json").read_text())
    return state["grpc"]


@pytest.mark.system
def test_the_page_has_every_metric_with_its_meaning(system: Running, root: Path) -> None:
    page = (root / "docs" / "observe.md").read_text()

    told = page.partition(BEGIN)[2].partition(END)[0]

    assert told == table(shown(addresses(system))), "run: .venv/bin/python -m tests.metrics_page"


@pytest.mark.system
def test_every_metric_explains_itself_in_a_sentence(system: Running) -> None:
    metrics = [metric for found in shown(addresses(system)).values() for metric in found]

    assert len(metrics) > 50
    assert [metric.name for metric in metrics if not metric.doc.endswith(".")] == []


def test_the_page_has_every_attribute_of_spans_with_its_meaning(root: Path) -> None:
    page = (root / "docs" / "observe.md").read_text()

    missing = [name for name, doc in ATTRIBUTES.items() if f"| `{PREFIX}{name}` | {doc} |\n" not in page]

    assert missing == []
