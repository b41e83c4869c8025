"""The commands about who one is: register, login, link, sessions, revoke, hello."""

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options

DEFAULT_SERVER = "ws://127.0.0.1:7000"
_MOST_DEVICES = 2**32 - 1
"""The greatest number that the contract has room for."""


@click.command()
@click.argument("phone_number", metavar="PHONE")
@click.option("--name", required=True, help="What others see.")
@click.option("--replace", "is_replacing", is_flag=True, help="Replace the profile that is there, with its messages.")
@shared_options
@pass_terminal
def register(terminal: Terminal, /, *, phone_number: str, name: str, is_replacing: bool) -> None:
    """Make an account of a phone number, like +12025550101, and this profile its device.

    The one-time code is asked for; a development system fills it in by itself. The profile keeps the servers.
    Earlier devices of the number are unlinked.
    """

    async def work() -> None:
        from chappe.client import registration

        about = await registration.register(
            terminal.servers or (DEFAULT_SERVER,),
            phone_number,
            name=name,
            profile=terminal.folder,
            ask_code=_ask_code,
            is_replacing=is_replacing,
        )
        terminal.show(
            f"{name} is registered as {phone_number}; profile {terminal.profile}, device {about.device_id}",
            event="registered",
            profile=terminal.profile,
            user=about.user_id,
            device=about.device_id,
            phone=phone_number,
            name=name,
        )
        if about.device_id > 1:
            terminal.note(
                f"the devices on which {phone_number} was registered before are unlinked, their profiles of no use now"
            )

    terminal.run(work())


def _ask_code() -> str:
    """Asks for the one-time code; Ctrl-C ends the command, and not, as it would here, only what waits for the code."""
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return str(click.prompt("The code that was sent to the phone", err=True))
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


@click.command()
@shared_options
@pass_terminal
def login(terminal: Terminal, /) -> None:
    """Sign in, and say as whom and on which edge: proves that key, servers and clock are right."""

    async def work() -> None:
        async with terminal.client() as me:
            profile = await me.account.profile()
        terminal.show(
            f"signed in as {profile.profile_name}, {profile.phone_number}",
            event="signed_in",
            profile=terminal.profile,
            user=profile.user_id.hex(),
            name=profile.profile_name,
            phone=profile.phone_number,
        )

    terminal.run(work())


@click.command()
@click.argument("code", required=False)
@click.option("--replace", "is_replacing", is_flag=True, help="Replace the profile that is there, with its messages.")
@shared_options
@pass_terminal
def link(terminal: Terminal, /, *, code: str | None, is_replacing: bool) -> None:
    """Make a profile a further device of an account.

    Without CODE, on a device that is signed in: print a code, which lives for 5 minutes and works once.
    With CODE, on the new one: join. For example:

    \b
        chappe --profile alice link
        chappe --profile alice2 link K7QM2XWP
    """  # noqa: D301 - click reads the \b as "leave these lines as they are"

    async def give() -> None:
        async with terminal.client() as me:
            made = await me.account.create_link_code()
        terminal.show(
            f"{made}\nOn the other device, within 5 minutes: chappe --profile NAME link {made}",
            event="link_code",
            code=made,
        )

    async def join(given: str) -> None:
        from chappe.client import registration

        servers = terminal.servers or (DEFAULT_SERVER,)
        about = await registration.link(servers, given, profile=terminal.folder, is_replacing=is_replacing)
        terminal.show(
            f"profile {terminal.profile} is device {about.device_id} of the account",
            event="linked",
            profile=terminal.profile,
            user=about.user_id,
            device=about.device_id,
        )

    terminal.run(give() if code is None else join(code))


@click.command()
@shared_options
@pass_terminal
def sessions(terminal: Terminal, /) -> None:
    """List where this account is signed in."""

    async def work() -> None:
        from chappe.cli.times import moment
        from chappe.client.profiles import read_about

        async with terminal.client() as me:
            found = await me.account.sessions()
        own = read_about(terminal.folder).device_id
        for session in found:
            terminal.show(
                f"device {session.device_id}  session {session.session_id.hex()}  "
                f"signed in {moment(session.create_ms)}, last token {moment(session.refresh_ms)}"
                f"{'  (this device)' if session.device_id == own else ''}",
                event="session",
                is_this_device=session.device_id == own,
                device=session.device_id,
                session=session.session_id.hex(),
                create_ms=session.create_ms,
                refresh_ms=session.refresh_ms,
            )

    terminal.run(work())


@click.command()
@click.argument("device", type=click.IntRange(1, _MOST_DEVICES))
@click.option("--unlink", "is_unlinking", is_flag=True, help="Take the device out of the account for good.")
@shared_options
@pass_terminal
def revoke(terminal: Terminal, /, *, device: int, is_unlinking: bool) -> None:
    """End the sign-ins of a device; its connections close within 2 seconds.

    DEVICE is a number of `chappe sessions`. The device may sign in again unless it is unlinked.
    """

    async def work() -> None:
        async with terminal.client() as me:
            if is_unlinking:
                await me.account.unlink(device)
            else:
                await me.account.revoke(device_id=device)
        terminal.show(
            f"device {device} is unlinked for good"
            if is_unlinking
            else f"device {device} is signed out; it signs in again with its next command; "
            "with --unlink it is taken out of the account for good",
            event="unlinked" if is_unlinking else "revoked",
            device=device,
        )

    terminal.run(work())


@click.command()
@shared_options
@pass_terminal
def hello(terminal: Terminal, /) -> None:
    """Print a signed Hello as JSON, to paste into `wscat -s chappe.v1.json -c ws://...`.

    It is good for one connection within 60 seconds. Whoever has it can be this device for that long: keep it to
    yourself.
    """

    async def work() -> None:
        from chappe.cli.hello_frame import signed_hello

        click.echo(await signed_hello(terminal.folder, terminal.servers))

    terminal.run(work())
