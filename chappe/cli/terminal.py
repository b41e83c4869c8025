"""What every command has in common: whose profile, which servers, how to print, how to fail."""

import contextlib
import functools
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chappe.cli.refusals import in_words
from chappe.cli.written import escaped

if TYPE_CHECKING:
    from chappe.client import Client

REFUSED: Final = 3
NO_SERVER: Final = 4
WAITING: Final = 5
INTERRUPTED: Final = 130

ONLINE_S: Final = 10.0
"""How long a command waits for a server."""
LOCAL_AFTER_S: Final = 5.0
"""Whoever may be shown what the profile holds waits no longer for one."""
_DRAIN_S: Final = 2.0

DEFAULT_PROFILE: Final = "default"
HOME: Final = "chappe.cli.home"
"""Under this key the group leaves the folder of all profiles."""

_TOLD: Final = "chappe.cli.told."
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(kw_only=True, slots=True)
class Terminal:
    """Who sits at it, and how it prints."""

    home: Path
    """The folder of all profiles."""
    profile: str = DEFAULT_PROFILE
    servers: tuple[str, ...] = ()
    """WebSocket addresses; empty for those of the profile."""
    is_json: bool = False

    @property
    def folder(self) -> Path:
        """Where the profile is kept."""
        return self.home / "profiles" / self.profile

    def show(self, text: str, /, **fields: Any) -> None:
        """Prints one thing: the text for people, or the fields as one object on one line."""
        click.echo(escaped(json.dumps(fields, ensure_ascii=False)) if self.is_json else text)

    def note(self, text: str) -> None:
        """Prints something that is only for people, beside the result."""
        if not self.is_json:
            click.echo(text, err=True)

    @contextlib.asynccontextmanager
    async def client(self, *, may_be_offline: bool = False, wait_s: float = ONLINE_S) -> AsyncGenerator["Client"]:
        """Connects the device of the profile; in the end gives what waits in the outbox a moment to be answered.

        Args:
            may_be_offline: Go on without a server, with what the profile holds.
            wait_s: How long to wait for a server where one is needed.
        """
        from chappe.client import ClientParts, connect

        parts = ClientParts(may_start_offline=may_be_offline, online_s=wait_s)
        async with connect(self.servers, profile=self.folder, parts=parts) as me:
            yield me
            await me.drained(_DRAIN_S)

    def say_offline(self, error: Exception) -> None:
        """Says that what follows is no more than what the profile holds."""
        if self.is_json:
            self.show("", event="offline")
        self.note(f"offline: {error}; this is what the profile {self.profile} holds")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a command's work to its end; its failures become one line on stderr and an exit code."""
        with readable_errors(), contextlib.closing(work):
            import asyncio

            asyncio.run(work)


class Refusal(click.ClickException):
    """The server said no, and would say it again."""

    exit_code = REFUSED


class NoServer(click.ClickException):
    """Nobody answered."""

    exit_code = NO_SERVER


@contextlib.contextmanager
def readable_errors() -> Generator[None]:
    """Turns what the SDK and the system raise into a line that says what to do, and the exit code for it."""
    from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, SessionEndedError

    try:
        yield
    except (RefusedError, SessionEndedError) as error:
        raise Refusal(in_words(str(error))) from error
    except NotConnectedError as error:
        raise NoServer(f"{error}. `chappe doctor` looks what is wrong here; --server names another edge") from error
    except UnicodeEncodeError as error:
        raise _unwritable(error) from error
    except BrokenPipeError:
        # Whoever reads, like `head`, has had enough; click says nothing of it.
        raise
    except (ChappeClientError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _unwritable(error: UnicodeEncodeError) -> click.ClickException:
    """Returns what cannot be said in the letters that there are: what was typed on the wire, or an answer here."""
    if error.encoding == "utf-8":
        return click.UsageError("what was typed is no text in UTF-8")
    return click.ClickException(
        f"this terminal has letters of {error.encoding} only; set a locale that has all, like LC_ALL=C.UTF-8"
    )


def shared_options(command: _Command) -> _Command:
    """Lets a command be told what the group can be told too: profile, servers and JSON."""
    profile = click.option("--profile", "-p", metavar="NAME", expose_value=False, callback=_keep, help="Whose profile.")
    server = click.option(
        "--server",
        metavar="ws://HOST:PORT",
        multiple=True,
        expose_value=False,
        callback=_keep,
        help="Where to connect; several may be given. Without it: where the profile was registered.",
    )
    return json_option(server(profile(command)))


def json_option(command: _Command) -> _Command:
    """Lets a command be told to print JSON."""
    keep = click.option(
        "--json", "is_json", is_flag=True, expose_value=False, callback=_keep, help="Print one object per line."
    )
    return keep(command)


def pass_terminal(command: Callable[..., None]) -> Callable[..., None]:
    """Hands a command the terminal, as the first argument, made of what the group and the command were told."""

    @functools.wraps(command)
    def with_terminal(*args: Any, **options: Any) -> None:
        told = click.get_current_context().meta
        servers = tuple(told.get(f"{_TOLD}server", ()))
        terminal = Terminal(
            home=told[HOME],
            profile=told.get(f"{_TOLD}profile", DEFAULT_PROFILE),
            servers=servers,
            is_json=told.get(f"{_TOLD}is_json", False),
        )
        command(terminal, *args, **options)

    return with_terminal


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Takes what was given here; what was not given stays as the group was told."""
    if parameter.name == "profile" and value and not _PROFILE.fullmatch(value):
        raise click.BadParameter(f"{value!r}: use letters, digits, - and _, at most 40")
    if value:
        context.meta[f"{_TOLD}{parameter.name}"] = value
