"""The commands, the schema and the configuration."""

import asyncio
import json
from collections.abc import Iterator

import psycopg
import pytest

from chappe.runtime import migrations
from chappe.runtime.config import ConfigError, load
from chappe.runtime.engines import databases
from chappe.runtime.migrations import SchemaOutdatedError
from svc_identity.__main__ import main
from svc_identity.app import SCHEMA
from svc_identity.config import Config

ENVIRONMENT = {
    "CHAPPE_IDENTITY_STORE_DSN": "postgresql:///none",
    "CHAPPE_IDENTITY_MESSAGE_TARGET": "localhost:1",
    "CHAPPE_IDENTITY_PEPPER": "p" * 32,
}


@pytest.fixture
def fresh_dsn(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Returns the address of a database without a schema, and sets the environment to it."""
    administrator = postgres_dsn.replace("svc_identity@/svc_identity", "chappe@/postgres")
    dsn = asyncio.run(databases(administrator, ["svc_identity_fresh"]))["svc_identity_fresh"]
    for name, value in (ENVIRONMENT | {"CHAPPE_IDENTITY_STORE_DSN": dsn}).items():
        monkeypatch.setenv(name, value)
    yield dsn
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute("DROP DATABASE svc_identity_fresh WITH (FORCE)")


def test_schema_that_is_missing_names_the_command(fresh_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SchemaOutdatedError, match="python -m svc_identity"):
        asyncio.run(migrations.check(fresh_dsn, SCHEMA))

    assert main(["migrate"]) == 0
    assert main(["migrate"]) == 0

    asyncio.run(migrations.check(fresh_dsn, SCHEMA))
    assert capsys.readouterr().out.count("applied") == len(migrations.migrations(SCHEMA))


def test_keys_are_rotated_by_a_command(fresh_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["migrate"])

    codes = [main(["rotate-keys"]), main(["rotate-keys"])]

    assert codes == [0, 1]
    assert "come back" in capsys.readouterr().err


def test_epoch_is_begun_by_a_command(fresh_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [main(["raise-epoch"]), main(["migrate"]), main(["raise-epoch"])]

    assert codes == [1, 0, 0]
    told = capsys.readouterr()
    assert "python -m svc_identity migrate" in told.err
    with psycopg.connect(fresh_dsn) as connection:
        assert connection.execute("SELECT epoch, mark FROM identity_log").fetchone() == (epoch_in(told.out), None)


def epoch_in(told: str) -> int:
    """Returns the epoch that a command named."""
    return int(told.partition("the epoch is ")[2].partition(";")[0])


def bot(*arguments: str) -> list[str]:
    return ["bot", "create", "--name", "Weather", *arguments]


WEATHER = "spiffe://chappe.test/ns/chappe/sa/weather"


def test_bot_is_made_once_by_a_command(fresh_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["migrate"])
    capsys.readouterr()

    codes = [main(bot("--spiffe-id", WEATHER, "--json")) for _ in range(2)]
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    codes.append(main(bot("--spiffe-id", WEATHER)))

    assert codes == [0, 0, 0]
    assert first == second
    assert (len(first["user_id"]), first["device_id"], first["spiffe_id"]) == (32, 1, WEATHER)
    assert first["user_id"] in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--spiffe-id", "weather"],
        ["--spiffe-id", "spiffe://elsewhere.example/ns/chappe/sa/weather"],
        ["--spiffe-id", WEATHER, "--name", " "],
        ["--spiffe-id", WEATHER, "--name", "x" * 65],
        ["--spiffe-id", WEATHER, "--name", "a\nb"],
    ],
)
def test_what_cannot_be_a_bot_is_refused(
    fresh_dsn: str, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    main(["migrate"])

    assert main(bot(*arguments)) == 1

    assert "svc_identity bot: " in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in ("migrate", "rotate-keys", "raise-epoch", "bot"))


def test_misspelt_command_shows_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bot", "make"])

    assert "usage: python -m svc_identity bot" in capsys.readouterr().err


def test_database_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CHAPPE_IDENTITY_STORE_DSN", "postgresql://127.0.0.1:1/none")

    assert main(["migrate"]) == 1

    assert "svc_identity migrate: " in capsys.readouterr().err


def test_short_pepper_is_refused_with_the_way_to_make_one() -> None:
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        load(Config, "identity", ENVIRONMENT | {"CHAPPE_IDENTITY_PEPPER": "short"})


def test_secrets_are_never_printed() -> None:
    loaded = load(Config, "identity", ENVIRONMENT)

    assert "p" * 32 not in repr(loaded)
    assert not loaded.development_codes


def test_every_migration_says_what_it_holds() -> None:
    for path in SCHEMA.glob("*.sql"):
        first = path.read_text().splitlines()[0]

        assert first.startswith("-- ")
        assert "source document" in first
