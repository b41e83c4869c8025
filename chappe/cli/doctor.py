"""`chappe doctor`: looks at everything that can be wrong on this machine and says what to do."""

from pathlib import Path

import click

from chappe.cli.terminal import Terminal, json_option, pass_terminal


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder of `chappe up`; without it one that runs is looked for here, above, and in CHAPPE_HOME.",
)
@json_option
@pass_terminal
def doctor(terminal: Terminal, /, *, data: Path | None) -> None:
    """Examine engines, services, certificates, clock and versions, and say what to do.

    Exit code 1 when something fails, 0 otherwise.
    """
    import asyncio
    import sys

    from chappe.cli.data_folder import find_system
    from chappe.cli.doctor_checks import Finding, examine

    found = find_system(data, terminal.home)

    async def run() -> bool:
        has_failed = False
        async for finding in examine(found.patient, found.looked_in):
            has_failed |= finding.state == "failed"
            click.echo(finding.json() if terminal.is_json else show(finding))
        return has_failed

    def show(finding: Finding) -> str:
        color = {"ok": "green", "warning": "yellow", "failed": "red"}[finding.state]
        line = f"{click.style(f'{finding.state:<8}', fg=color)}{finding.check:<16}{finding.text}"
        return line if not finding.advice else f"{line}\n{'':24}do this: {finding.advice}"

    sys.exit(int(asyncio.run(run())))
