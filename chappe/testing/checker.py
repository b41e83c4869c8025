"""Judges delivery histories: `python -m chappe.testing.checker FILE...`.

Prints one line of counts, then the story of each broken promise; the exit status is 1 if there is any, and
2 if a file cannot be understood. `chappe.testing.history` says what a history is. From Python:

    report = check(["alice.jsonl", "bob.jsonl"])
    assert report.is_silent, report.stories()
"""

import argparse
import json
import sys
from collections.abc import Sequence

from chappe.testing.checker_report import PROMISES, Guarantee, Report, Violation
from chappe.testing.checker_state import Limits
from chappe.testing.checker_verdict import check, check_lines
from chappe.testing.history import HistoryError

__all__ = ["PROMISES", "Guarantee", "Limits", "Report", "Violation", "check", "check_lines", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the files named on the command line and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m chappe.testing.checker",
        description="Judges the delivery histories of one run: loss, doubles, order, ticks that lie.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a history, one JSON object per line")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    chosen = parser.parse_args(argv)
    try:
        report = check(chosen.files)
    except (HistoryError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(report.to_json()) + "\n")
    else:
        stories = report.stories()
        sys.stdout.write(report.summary() + "\n" + (f"\n{stories}\n" if stories else ""))
    return 0 if report.is_silent else 1


if __name__ == "__main__":
    sys.exit(main())
