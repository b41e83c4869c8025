import dataclasses
import enum
from pathlib import Path

import pytest

from chappe.runtime import config
from chappe.runtime.config import ConfigError, LogLevel, Secret, ServerSettings


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PaintConfig:
    """What an operator can set."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    store_url: Secret
    """Where the paint is kept."""
    colour: Colour = Colour.RED
    """Which paint."""
    coats: int = config.limited(2, least=1, most=9)
    """How many layers,
    one over the other."""
    dry_s: float = 1.5
    """How long a coat dries."""
    is_glossy: bool = False
    """Whether it shines."""
    brushes: tuple[str, ...] = ("flat",)
    """With what."""
    folder: Path | None = None
    """Where drawings are kept."""
    note: str = ""


NEEDED = {"CHAPPE_PAINT_STORE_URL": "postgresql://paint:pot@db/paint"}


def load(**more: str) -> PaintConfig:
    environ = NEEDED | {f"CHAPPE_PAINT_{name}": value for name, value in more.items()}
    return config.load(PaintConfig, "paint", environ)


def mistakes_of(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(PaintConfig, "paint", environ)
    return caught.value.mistakes


def test_defaults_hold_when_nothing_is_set() -> None:
    loaded = load()

    assert loaded.coats == 2
    assert loaded.brushes == ("flat",)
    assert loaded.server == ServerSettings()


def test_every_type_is_read() -> None:
    loaded = load(
        COLOUR="BLUE",
        COATS="3",
        DRY_S="0.25",
        IS_GLOSSY="yes",
        BRUSHES="a, b,,",
        FOLDER="/srv",
        NOTE="x",
        LOG_LEVEL="error",
    )

    assert loaded.colour is Colour.BLUE
    assert (loaded.coats, loaded.dry_s, loaded.is_glossy) == (3, 0.25, True)
    assert (loaded.brushes, loaded.folder, loaded.note) == (("a", "b"), Path("/srv"), "x")
    assert loaded.server.log_level is LogLevel.ERROR


def test_an_empty_value_means_none_where_none_is_allowed() -> None:
    assert load(FOLDER="").folder is None
    assert load(BRUSHES="").brushes == ()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("COATS", "two", "is 'two': write a whole number"),
        ("COATS", "10", "is 10: the most is 9"),
        ("COATS", "0", "is 0: the least is 1"),
        ("DRY_S", "-1", "is -1.0: the least is 0"),
        ("DRY_S", "nan", "write a finite number"),
        ("DRY_S", "soon", "write a number"),
        ("IS_GLOSSY", "maybe", "write true or false"),
        ("COLOUR", "green", "choose one of red, blue"),
        ("COLOR", "red", "did you mean CHAPPE_PAINT_COLOUR?"),
        ("ZZZZZZ", "1", "is not a setting: --print-config lists what there is"),
        ("COOK", "1", "is not a setting: --print-config lists what there is"),
        ("STORE_URL_FILE", "/nowhere/url", "are both set"),
        ("TLS_CERT_FILE", "/tls/cert.pem", "belong together"),
    ],
)
def test_a_mistake_names_its_variable_and_what_to_do(name: str, value: str, why: str) -> None:
    mistakes = mistakes_of(NEEDED | {f"CHAPPE_PAINT_{name}": value})

    assert len(mistakes) == 1
    assert name in mistakes[0]
    assert why in mistakes[0]


def test_all_mistakes_are_told_at_once() -> None:
    mistakes = mistakes_of({"CHAPPE_PAINT_COATS": "x", "CHAPPE_PAINT_DRY_S": "y", "CHAPPE_PAINT_CLOR": "z"})

    assert len(mistakes) == 4
    assert any("CHAPPE_PAINT_STORE_URL is not set: Where the paint is kept." in mistake for mistake in mistakes)


def test_the_text_of_an_error_lists_every_mistake() -> None:
    with pytest.raises(ConfigError, match=r"svc_paint is not configured rightly, 2 mistakes:\n  - .+\n  - .+"):
        config.load(PaintConfig, "paint", {"CHAPPE_PAINT_COATS": "x"})


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://secret\n")

    loaded = config.load(PaintConfig, "paint", {"CHAPPE_PAINT_STORE_URL_FILE": str(tmp_path / "url")})

    assert loaded.store_url.reveal() == "postgresql://secret"


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"\xff\xfe", "not UTF-8")])
def test_a_secret_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)

    mistakes = mistakes_of({"CHAPPE_PAINT_STORE_URL_FILE": str(path)})

    assert why in mistakes[0]


def test_a_secret_never_shows_itself() -> None:
    secret = Secret("canary-7")

    assert "canary" not in f"{secret} {secret!r} {[secret]}"
    assert "canary" not in config.describe(load(), "paint")
    assert secret == Secret("canary-7")
    assert hash(secret) == hash(Secret("canary-7"))
    assert not Secret()


def test_what_is_printed_can_be_loaded_again() -> None:
    first = load(COATS="4", IS_GLOSSY="true", BRUSHES="a,b", FOLDER="/srv", COLOUR="blue")

    printed = dict(line.split("=", 1) for line in config.describe(first, "paint").splitlines())
    again = config.load(PaintConfig, "paint", printed | NEEDED)

    assert printed["CHAPPE_PAINT_STORE_URL"] == "***"
    assert again == first


def test_the_documentation_has_a_row_for_every_variable() -> None:
    rows = config.document(PaintConfig, "paint").splitlines()

    assert "| `CHAPPE_PAINT_STORE_URL` | secret | required | Where the paint is kept. |" in rows
    assert "| `CHAPPE_PAINT_COATS` | whole number | `2` | How many layers, one over the other. |" in rows
    assert "| `CHAPPE_PAINT_COLOUR` | red or blue | `red` | Which paint. |" in rows
    assert "| `CHAPPE_PAINT_FOLDER` | path | empty | Where drawings are kept. |" in rows
    assert len(rows) == len(list(config.settings(PaintConfig, "paint")))


def test_every_server_setting_is_documented() -> None:
    assert all(setting.doc for setting in config.settings(ServerSettings, "paint"))


def test_two_fields_with_one_variable_are_a_bug() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class DoubleConfig:
        server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
        listen: str = ""

    with pytest.raises(TypeError, match="CHAPPE_PAINT_LISTEN"):
        list(config.settings(DoubleConfig, "paint"))


def test_a_type_that_no_variable_holds_is_a_bug() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class OddConfig:
        table: dict[str, str] | None = None

    with pytest.raises(TypeError, match="no variable can hold that"):
        list(config.settings(OddConfig, "paint"))
