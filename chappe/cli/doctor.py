"""`chappe doctor`: looks at everything that can be wrong on this machine and says what to do."""

from pathlib import Path

import click

from chappe.cli.terminal import Terminal, json_option, pass_terminal
from chappe.cli.up import DEFAULT_DATA


@click.command()
@click.option(
    "--data",
    default=DEFAULT_DATA,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder of `chappe up`.",
)
@json_option
@pass_terminal
def doctor(terminal: Terminal, /, *, data: Path) -> None:
    """Examine engines, services, certificates, clock and versions, and say what to do.

    Exit code 1 when something fails, 0 otherwise.
    """
    import asyncio
    import sys

    from chappe.cli.doctor_checks import Finding, examine

    folder = data.absolute()

    async def run() -> bool:
        has_failed = False
        async for finding in examine(folder):
            has_failed |= finding.state == "failed"
            click.echo(finding.json() if terminal.is_json else show(finding))
        return has_failed

    def show(finding: Finding) -> str:
        color = {"ok": "green", "warning": "yellow", "failed": "red"}[finding.state]
        line = f"{click.style(f'{finding.state:<8}', fg=color)}{finding.check:<16}{finding.text}"
        return line if not finding.advice else f"{line}\n{'':24}do this: {finding.advice}"

    sys.exit(int(asyncio.run(run())))
