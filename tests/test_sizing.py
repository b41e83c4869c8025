"""The sums of the sizing in docs/operate.md are those of the figures above them, and the figures are the document's."""

import pytest

from tests.sizing_page import BEGIN, END, PAGE, SUMS, figures, sums, table

DOCUMENT = {
    "messages_per_s": 1_200_000,
    "peak_messages_per_s": 5_000_000,
    "messages_per_year": 36.5e12,
    "touches_per_s": 33_000_000,
    "lookups_per_s": 580_000,
}


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


def test_the_sums_are_those_of_the_figures(page: str) -> None:
    written = page.partition(BEGIN)[2].partition(END)[0]

    assert written == table(page), "run: .venv/bin/python -m tests.sizing_page"


def test_the_load_is_that_of_the_source_document(page: str) -> None:
    given = figures(page)

    assert {name: given[name] for name in DOCUMENT} == DOCUMENT


def test_every_figure_is_used(page: str) -> None:
    used = {"peak_messages_per_s", *" ".join(one.terms for one in SUMS).split()}

    assert set(figures(page)) - used == set()


def test_sums_follow_the_figures(page: str) -> None:
    given = figures(page)
    once, twice = sums(given), sums(given | {"replicas": 2 * given["replicas"]})

    assert once["edge_cores"] == pytest.approx(given["messages_per_s"] * given["edge_us"] / 1e6)
    assert twice["cassandra_tb_kept"] == pytest.approx(2 * once["cassandra_tb_kept"])
    assert twice["edge_cores"] == once["edge_cores"]


def test_a_figure_that_is_missing_is_an_error(page: str) -> None:
    given = figures(page)
    del given["edge_us"]

    with pytest.raises(KeyError, match="edge_us"):
        sums(given)
