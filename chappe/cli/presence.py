"""The command that asks how people are, and the words for it."""

import datetime as dt

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options
from chappe.client.presence_views import PersonPresence, Presence


@click.command()
@click.argument("people", metavar="PERSON...", nargs=-1, required=True)
@shared_options
@pass_terminal
def presence(terminal: Terminal, /, *, people: tuple[str, ...]) -> None:
    """Show whether each PERSON is online, or when it was last seen, as far as it lets you see that."""

    async def work() -> None:
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


def in_words(one: PersonPresence, now: dt.datetime) -> str:
    """Returns how somebody is in the words of people; times are those of the zone of `now`."""
    match one.presence:
        case Presence.ONLINE:
            return "online"
        case Presence.HIDDEN:
            return "hidden (it is not for you to see)"
        case Presence.UNKNOWN:
            return "unknown (nobody can say at the moment)"
        case _:
            return last_seen(one.last_seen_ms, now) if one.last_seen_ms else "offline"


def last_seen(last_seen_ms: int, now: dt.datetime) -> str:
    """Returns when somebody was last there: today, yesterday, or on a day."""
    seen = dt.datetime.fromtimestamp(last_seen_ms / 1000, now.tzinfo)
    days = (now.date() - seen.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"on {seen:%Y-%m-%d}")
    return f"last seen {day} at {seen:%H:%M}"
