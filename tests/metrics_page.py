"""The table of every metric in docs/observe.md, made from what running processes show.

`python -m tests.metrics_page` starts a system and writes the table; a test says when that is due.
"""

import asyncio
import os
import re
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from chappe.cli.launcher import Mesh, Plan
from chappe.cli.launcher.plan import metrics_url

PAGE = Path(__file__).resolve().parent.parent / "docs" / "observe.md"

BEGIN, END = "<!-- written by python -m tests.metrics_page -->\n", "<!-- end of the metrics -->\n"

_HELP = re.compile(r"^# HELP (\S+) (.+)$", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_ORDER = ("edge", "message", "fanout", "presence", "identity")


class Metric(NamedTuple):
    """One metric as a process shows it."""

    name: str
    kind: str
    doc: str


def shown(addresses: Mapping[str, Sequence[str]]) -> dict[str, list[Metric]]:
    """Asks the first process of every service for its metrics; addresses are of gRPC, by service."""
    found: dict[str, list[Metric]] = {}
    for service in _ORDER:
        with urllib.request.urlopen(metrics_url(addresses[service][0]), timeout=10) as answer:  # noqa: S310 - our own
            text = answer.read().decode()
        kinds = dict(_TYPE.findall(text))
        found[service] = [Metric(name, kinds[name], doc) for name, doc in _HELP.findall(text)]
    return found


def table(metrics: dict[str, list[Metric]]) -> str:
    """Returns the table: what every service has once, then what each has alone."""
    general = [{_placed(service, metric) for metric in metrics[service]} for service in _ORDER]
    shared = set.intersection(*general)
    rows = [metric for metric in (_placed("edge", metric) for metric in metrics["edge"]) if metric in shared]
    for service in _ORDER:
        rows += [metric for metric in metrics[service] if _placed(service, metric) not in shared]
    lines = [f"| `{metric.name}` | {metric.kind} | {metric.doc} |\n" for metric in rows]
    return "".join(["| metric | kind | what it is |\n", "|---|---|---|\n", *lines])


def _placed(service: str, metric: Metric) -> Metric:
    return metric._replace(name=metric.name.replace(f"chappe_{service}_", "chappe_<service>_", 1))


async def _write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Mesh(Plan(data=Path(folder) / "data", environ=dict(os.environ))) as mesh:
            rows = table(await asyncio.to_thread(shown, mesh.grpc))
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{rows}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    asyncio.run(_write())
