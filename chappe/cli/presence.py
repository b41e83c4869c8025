"""The command that asks how people are."""

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options


@click.command()
@click.argument("people", metavar="PERSON...", nargs=-1, required=True)
@shared_options
@pass_terminal
def presence(terminal: Terminal, /, *, people: tuple[str, ...]) -> None:
    """Show whether each PERSON is online, or when it was last seen, as far as it lets you see that."""

    async def work() -> None:
        import datetime as dt

        from chappe.cli.presence_words import in_words

        async with terminal.client() as me:
            found = await me.presence.of(*people)
            names = [await me.people.name_of(one.user_id) for one in found]
        now = dt.datetime.now().astimezone()
        for name, one in zip(names, found, strict=True):
            terminal.show(
                f"{name}: {in_words(one, now)}",
                event="presence",
                user=one.user_id.hex(),
                name=name,
                presence=one.presence.name.lower(),
                last_seen_ms=one.last_seen_ms or None,
            )

    terminal.run(work())
