"""The command as a whole: fast to show its help, and never a traceback."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest
from click.testing import CliRunner

from chappe import __version__
from chappe.cli.act_show import delete_message, edit_message, react_to_message, reply_to_message
from chappe.cli.conversation import Reader, wait_for
from chappe.cli.main import main
from chappe.cli.refusals import in_words
from chappe.cli.terminal import Terminal, readable_errors
from chappe.client import Client, Message, Page, WaitsInOutboxError
from chappe.client.tasks import Tasks
from tests.cli.test_finding import message
from tests.client.model_edge import ME

HELP_CPU_S = 0.15
SLOW_MACHINE = 3


def test_help_takes_little_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "chappe.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent_s < HELP_CPU_S * SLOW_MACHINE


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; import chappe.cli.main; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert {"asyncio", "cryptography", "google.protobuf", "grpc", "picows", "psycopg", "sqlite3"}.isdisjoint(modules)


@pytest.mark.parametrize("command", sorted(main.commands.keys() - {"bench"}))
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])

    assert result.exit_code == 0
    assert "Usage: main" in result.output


def test_version_is_the_package_version() -> None:
    result = CliRunner().invoke(main, ["--version"])

    assert __version__ in result.output


def test_the_version_is_an_object_for_programs() -> None:
    result = CliRunner().invoke(main, ["--json", "version"])

    assert json.loads(result.output) == {"version": __version__}


def test_a_system_without_an_edge_is_refused() -> None:
    result = CliRunner().invoke(main, ["up", "--edges", "0"])

    assert result.exit_code == 2
    assert "0 is not in the range" in result.output


def test_a_command_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["sing"])

    assert result.exit_code == 2
    assert "No such command 'sing'" in result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["timer", "Bob", "999999999w"], "is too long; the longest is 90d"),
        (["send", "Bob", "hi", "--expires", "91d"], "'91d' is too long; the longest is 90d"),
        (["group", "create", "Hikers", "--timer", "13w"], "'13w' is too long; the longest is 90d"),
        (["group", "invite", "Hikers", "--for", "91d"], "'91d' is too long; the longest is 90d"),
        (["keep", "Bob", "--mute", "999999999w"], "is too long; the longest is 3650d"),
        (["timer", "Bob", "soon"], "is no time; type for example 30m"),
        (["revoke", "99999999999"], "is not in the range"),
        (["revoke", "0"], "is not in the range"),
    ],
)
def test_a_number_that_no_field_has_room_for_is_a_usage_error(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 2
    assert why in result.output


@pytest.mark.parametrize("name", ["CA", "tool"])
def test_a_bot_does_not_take_the_certificates_of_others(tmp_path: Path, name: str) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"pids": {"launcher": [os.getpid()]}}))

    result = CliRunner().invoke(main, ["bot", "create", name, "--data", str(tmp_path)])

    assert result.exit_code == 1
    assert f"{name.lower()!r} is the name of other certificates" in result.output


def test_what_is_no_text_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="no text in UTF-8"), readable_errors():
        "\udcff".encode()


def test_a_terminal_without_the_letters_of_an_answer_is_told_how_to_get_them() -> None:
    with pytest.raises(click.ClickException, match="letters of latin-1 only; set a locale") as told, readable_errors():
        "✓".encode("latin-1")

    assert told.value.exit_code == 1


def test_a_reader_that_has_had_enough_is_no_failure_to_speak_of() -> None:
    with pytest.raises(BrokenPipeError), readable_errors():
        raise BrokenPipeError


class Deaf:
    """A client whose server has gone."""

    def __init__(self) -> None:
        self.told: list[float | None] = []

    async def mark_read(self, _message: Message, *, timeout_s: float | None = None) -> None:
        self.told.append(timeout_s)
        raise WaitsInOutboxError("the server has not answered")


class Left:
    """A client whose server goes away while it waits for an answer."""

    def __init__(self, newest: Message) -> None:
        self._newest = newest

    async def history(self, _chat: str, **_page: object) -> Page:
        return Page(messages=[self._newest], next_page="")

    async def wait(self, *_what: object, timeout_s: float | None = None) -> None:
        assert timeout_s == 3.0, "it would wait for ever"
        raise WaitsInOutboxError("the server has not answered")

    edit = delete_for_everyone = delete_for_me = react = reply = wait


ACTS: dict[str, Callable[[Terminal, Client], Awaitable[None]]] = {
    "edit": lambda at, me: edit_message(at, me, "Bob", None, "hello", timeout_s=3.0),
    "delete": lambda at, me: delete_message(at, me, "Bob", None, is_for_me=False, timeout_s=3.0),
    "delete --for-me": lambda at, me: delete_message(at, me, "Bob", None, is_for_me=True, timeout_s=3.0),
    "react": lambda at, me: react_to_message(at, me, "Bob", None, ":)", timeout_s=3.0),
    "reply": lambda at, me: reply_to_message(at, me, "Bob", None, "hello", timeout_s=3.0),
}


@pytest.mark.parametrize("act", list(ACTS))
async def test_what_is_done_to_a_message_waits_in_the_outbox_when_the_server_goes_away(
    act: str, capsys: pytest.CaptureFixture[str]
) -> None:
    me = Left(message("01a1", "helo", is_mine=act not in {"react", "reply"}))

    with pytest.raises(click.exceptions.Exit) as ended:
        await ACTS[act](Terminal(home=Path(), profile="alice"), cast("Client", me))

    assert ended.value.exit_code == 5
    assert capsys.readouterr().out.startswith(
        "waits in the outbox: no server has answered in 3 s; the next command of the profile alice"
    )


async def test_nobody_waits_for_what_is_for_oneself(capsys: pytest.CaptureFixture[str]) -> None:
    sent = replace(message("01a1", "milk"), peer_id=ME)

    await wait_for(Terminal(home=Path()), cast("Client", SimpleNamespace(user_id=ME)), sent, "read", 60.0)

    assert "there is nobody else" in capsys.readouterr().err


async def test_a_listener_that_ends_does_not_wait_for_ever_for_a_server_that_has_gone() -> None:
    me, tasks = Deaf(), Tasks()
    reader = Reader(cast("Client", me), tasks)

    reader.saw(message("01a1", "hello", is_mine=False))
    await reader.tell()
    await tasks.aclose()

    assert me.told == [2.0]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ("INVALID_FIELD: message.envelope.content: must be set", "the text must not be empty"),
        ("INVALID_FIELD: link_code: has 4 characters, the least is 8", "the code has 4 characters, the least is 8"),
        ("INVALID_FIELD: something.new: must be set", "INVALID_FIELD: something.new: must be set"),
        ("NOT_A_MEMBER: you left", "NOT_A_MEMBER: you left"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_in_the_words_of_the_command(refusal: str, said: str) -> None:
    assert in_words(refusal) == said
