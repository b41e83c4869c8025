"""`chappe bench`: runs the benchmarks of a checkout."""

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, /, *, arguments: tuple[str, ...]) -> None:
    """Measure the system on this machine: real processes, real engines. Needs a checkout.

    Everything that follows is handed on; `chappe bench --help` is answered by the benchmarks.
    """
    import importlib.util
    import subprocess
    import sys

    if importlib.util.find_spec("tests") is None or importlib.util.find_spec("tests.bench") is None:
        raise click.ClickException(
            "the benchmarks stand in a checkout of Chappe: clone it, and type `make bench` in it"
        )
    # Our own interpreter and module; the arguments are the person's who typed them.
    done = subprocess.run([sys.executable, "-m", "tests.bench", *arguments], check=False)  # noqa: S603 - see above
    context.exit(done.returncode)
