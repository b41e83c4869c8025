"""The commands about other people: contacts, block, unblock."""

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options


@click.group(invoke_without_command=True)
@shared_options
@click.pass_context
def contacts(context: click.Context, /) -> None:
    """Keep the address book: who may then be named instead of numbered. Without a command: list it."""
    if context.invoked_subcommand is None:
        context.invoke(list_contacts)


@contacts.command(name="list")
@shared_options
@pass_terminal
def list_contacts(terminal: Terminal, /) -> None:
    """List the contacts by phone number."""

    async def work() -> None:
        async with terminal.client() as me:
            found = await me.people.list()
        for contact in found:
            _show_contact(terminal, contact.phone_number, contact.name, contact.user_id)
        if not found:
            terminal.note("the address book is empty; chappe contacts add +NUMBER NAME")

    terminal.run(work())


@contacts.command()
@click.argument("phone_number", metavar="PHONE")
@click.argument("name")
@shared_options
@pass_terminal
def add(terminal: Terminal, /, *, phone_number: str, name: str) -> None:
    """Add the person with this phone number as NAME, or rename one."""

    async def work() -> None:
        async with terminal.client() as me:
            contact = await me.people.add(phone_number, name)
        _show_contact(terminal, contact.phone_number, contact.name, contact.user_id)

    terminal.run(work())


@contacts.command()
@click.argument("phone_number", metavar="PHONE")
@shared_options
@pass_terminal
def remove(terminal: Terminal, /, *, phone_number: str) -> None:
    """Remove the person with this phone number."""

    async def work() -> None:
        async with terminal.client() as me:
            await me.people.remove(phone_number)
        terminal.show(f"{phone_number} is no contact any more", event="removed", phone=phone_number)

    terminal.run(work())


@click.command()
@click.argument("person")
@shared_options
@pass_terminal
def block(terminal: Terminal, /, *, person: str) -> None:
    """Hear nothing from PERSON any more, who is not told and sees one tick for ever."""

    async def work() -> None:
        async with terminal.client() as me:
            await me.account.block(person)
        terminal.show(f"{person} is blocked", event="blocked", person=person)

    terminal.run(work())


@click.command()
@click.argument("person")
@shared_options
@pass_terminal
def unblock(terminal: Terminal, /, *, person: str) -> None:
    """Hear from PERSON again, from the next message on."""

    async def work() -> None:
        async with terminal.client() as me:
            await me.account.unblock(person)
        terminal.show(f"{person} is not blocked", event="unblocked", person=person)

    terminal.run(work())


def _show_contact(terminal: Terminal, phone_number: str, name: str, user_id: bytes) -> None:
    terminal.show(
        f"{phone_number:<17} {name}{'' if user_id else '  (no account yet)'}",
        event="contact",
        phone=phone_number,
        name=name,
        user=user_id.hex(),
    )
