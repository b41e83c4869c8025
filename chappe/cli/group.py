"""The commands about groups: who is in which, and what they are called."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import click

from chappe.cli.duration import lifetime
from chappe.cli.terminal import Terminal, pass_terminal, shared_options

if TYPE_CHECKING:
    from chappe.cli.group_show import Board

_TIMER = click.option(
    "--timer",
    "expiry_s",
    type=lifetime,
    metavar="TIME",
    help="New messages disappear after 24h, 7d, 90d or any other time; `off` for never.",
)


@click.group()
def group() -> None:
    """Make groups, and be in them. `chappe send GROUP TEXT` writes to one.

    A GROUP is named by its name, by its id, or by the beginning of its id. A PERSON is a phone number or the name of a
    contact.
    """


@group.command()
@click.argument("name")
@click.argument("people", nargs=-1, metavar="[PERSON]...")
@click.option("--about", "description", default="", metavar="TEXT", help="What it is about.")
@click.option("--announcements", "is_announcement_only", is_flag=True, help="Only admins may write.")
@_TIMER
@shared_options
@pass_terminal
def create(terminal: Terminal, /, *, name: str, people: tuple[str, ...], expiry_s: int | None, **about: Any) -> None:
    """Make a group NAME that you own, with these people in it.

    For example:

    \b
        chappe group create Hikers Bob +441632960003
    """  # noqa: D301 - click reads the \b as "leave these lines as they are"

    async def work(board: "Board") -> None:
        made = await board.me.groups.create(name, people, expiry_s=expiry_s or 0, **about)
        board.group(made.group, "created")
        await board.refusals(made)

    _run(terminal, work)


@group.command(name="list")
@click.option("--with", "person", metavar="PERSON", help="Only those in which this person is, too.")
@shared_options
@pass_terminal
def list_groups(terminal: Terminal, /, *, person: str | None) -> None:
    """List the groups that you are in."""

    async def work(board: "Board") -> None:
        found = await board.me.groups.list()
        if person is not None:
            shared = {each.group_id for each in await board.me.account.groups_with(person)}
            found = [each for each in found if each.group_id in shared]
        for each in found:
            board.group(each, "group")
        if not found:
            whose = "you are in no group" if person is None else f"there is no group that {person} is in, too"
            terminal.note(f"{whose}; chappe group create NAME PERSON... makes one")

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@shared_options
@pass_terminal
def info(terminal: Terminal, /, *, group_name: str) -> None:
    """Show a group and its members: the owner, the admins, the others."""

    async def work(board: "Board") -> None:
        await board.info(group_name)

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@click.argument("people", nargs=-1, required=True, metavar="PERSON...")
@shared_options
@pass_terminal
def add(terminal: Terminal, /, *, group_name: str, people: tuple[str, ...]) -> None:
    """Add people to a group, as an admin. Who may be added is up to their settings; the others need an invite."""

    async def work(board: "Board") -> None:
        added = await board.me.groups.add(group_name, people)
        board.group(added.group, "added")
        await board.refusals(added)

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@click.argument("person")
@shared_options
@pass_terminal
def remove(terminal: Terminal, /, *, group_name: str, person: str) -> None:
    """Remove PERSON from a group, as an admin: it keeps what it had and gets nothing more."""

    async def work(board: "Board") -> None:
        board.group(await board.me.groups.remove(group_name, person), "removed")

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@shared_options
@pass_terminal
def leave(terminal: Terminal, /, *, group_name: str) -> None:
    """Leave a group. An owner hands over to the admin who has been there longest, or else to the member."""

    async def work(board: "Board") -> None:
        left = await board.me.groups.get(group_name)
        await board.me.groups.leave(left)
        terminal.show(f"you have left {left.name}", event="left", group=left.id, name=left.name)

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@click.argument("person")
@click.argument("role", type=click.Choice(["member", "admin", "owner"]))
@shared_options
@pass_terminal
def role(terminal: Terminal, /, *, group_name: str, person: str, role: str) -> None:
    """Make PERSON a member, an admin or the owner. Only the owner makes another the owner, and becomes an admin."""

    async def work(board: "Board") -> None:
        await board.give_role(group_name, person, role)

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@click.option("--name", metavar="TEXT", help="What the group is called.")
@click.option("--about", "description", metavar="TEXT", help="What it is about.")
@click.option("--announcements/--everyone", "is_announcement_only", default=None, help="Whether only admins write.")
@_TIMER
@shared_options
@pass_terminal
def update(terminal: Terminal, /, *, group_name: str, **wanted: Any) -> None:
    """Change what a group is called, what it is about, who may write, or its timer, as an admin."""
    if all(value is None for value in wanted.values()):
        raise click.UsageError("nothing is to be changed; say what: --name, --about, --announcements, --timer")

    async def work(board: "Board") -> None:
        board.group(await board.me.groups.update(group_name, **wanted), "updated")

    _run(terminal, work)


@group.command()
@click.argument("group_name", metavar="GROUP")
@click.option("--for", "lifetime_s", type=lifetime, default="7d", show_default=True, metavar="TIME", help="How long.")
@click.option("--uses", "use_limit", type=click.IntRange(1, 100_000), metavar="N", help="How many may join by it.")
@click.option("--revoke", "is_revoking", is_flag=True, help="End every invite of the group instead.")
@shared_options
@pass_terminal
def invite(
    terminal: Terminal, /, *, group_name: str, lifetime_s: int, use_limit: int | None, is_revoking: bool
) -> None:
    """Print a code with which whoever has it joins a group, as an admin."""

    async def work(board: "Board") -> None:
        if is_revoking:
            await board.me.groups.revoke_invites(group_name)
            terminal.show(f"no invite to {group_name} works any more", event="revoked", group=group_name)
        else:
            board.invite(await board.me.groups.invite(group_name, lifetime_s=lifetime_s, use_limit=use_limit or 0))

    _run(terminal, work)


@group.command()
@click.argument("code")
@shared_options
@pass_terminal
def join(terminal: Terminal, /, *, code: str) -> None:
    """Join the group that an invite opens. CODE is what `chappe group invite` printed."""

    async def work(board: "Board") -> None:
        board.group(await board.me.groups.join(code), "joined")

    _run(terminal, work)


def _run(terminal: Terminal, work: Any) -> None:
    async def connected() -> None:
        from chappe.cli.group_show import Board

        async with terminal.client() as me:
            done: Coroutine[Any, Any, None] = work(Board(terminal, me))
            await done

    terminal.run(connected())
