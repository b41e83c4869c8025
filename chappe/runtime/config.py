"""Loads a service's configuration from the environment, and tells every mistake in it at once."""

import ast
import dataclasses
import difflib
import enum
import functools
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from chappe.runtime.errors import ChappeError

_MASK = "***"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_DURATION_SUFFIXES = ("_s", "_ms")
_FILE_SUFFIX = "_FILE"
_Config = TypeVar("_Config")


class Secret:
    """A string that shows itself only when asked; its repr, str and format are masked."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the secret; never log what it returns."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({_MASK if self._value else ''})"

    __str__ = __repr__


class ConfigError(Exception):
    """Lists every mistake of a configuration; each names its variable, what is wrong and what to do."""

    def __init__(self, service: str, mistakes: list[str]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        super().__init__(f"svc_{service} is not configured rightly, {count}:\n{lines}")
        self.mistakes = tuple(mistakes)


class LogLevel(enum.Enum):
    """From which severity on lines are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def limited(default: object, *, least: float = -math.inf, most: float = math.inf) -> Any:
    """Returns a dataclass field for a number that the loader refuses below `least` and above `most`."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """What every service lets an operator set, under the service's own prefix."""

    listen: str = "127.0.0.1:0"
    """Where the gRPC server listens, host:port; port 0 takes a free one, which the ready line names."""
    tls_cert_file: Path | None = None
    """The service's certificate chain, PEM, whose only URI is its SPIFFE id."""
    tls_key_file: Path | None = None
    """The private key of the certificate, PEM."""
    tls_ca_file: Path | None = None
    """The authorities that sign the certificates of the mesh, PEM."""
    trust_domain: str = "chappe.test"
    """The trust domain of the SPIFFE ids that are let in."""
    namespace: str = "chappe"
    """The namespace of the SPIFFE ids of the five services."""
    internal_callers: tuple[str, ...] = ("*",)
    """Who counts as an internal caller: names of service accounts, or * for all that do not start with svc-."""
    health_listen: str = ""
    """Where gRPC health is also answered without TLS, host:port, for Kubernetes probes; empty for nowhere."""
    metrics_listen: str = ""
    """Where Prometheus metrics and /healthz are served over HTTP, host:port; empty for nowhere."""
    otlp_endpoint: str = ""
    """Where traces and metrics go by OTLP over gRPC, as http://host:port; empty for nowhere."""
    trace_file: Path | None = None
    """Where spans are appended as JSON lines, for `chappe trace`; for development, bounded, empty for nowhere."""
    trace_sample_ratio: float = limited(0.01, least=0, most=1)
    """Of which part of the messages that enter here a trace is made, from 0 for none to 1 for all; the other services
    follow the one where a message enters."""
    log_level: LogLevel = LogLevel.INFO
    """From which severity on lines are logged: debug, info, warning or error."""
    peer_name: str = ""
    """The name of this process for people, in streams, logs and traces; empty for host name and process id."""
    drain_s: float = limited(10.0, least=0, most=600)
    """How long a stopping process waits for its streams and calls to end, seconds."""
    may_reflect: bool = False
    """Whether gRPC reflection is answered; for development."""

    def __post_init__(self) -> None:
        files = (self.tls_cert_file, self.tls_key_file, self.tls_ca_file)
        if any(files) and not all(files):
            raise ValueError("TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE belong together: set all three, or none")


class Setting(NamedTuple):
    """One variable of a configuration."""

    name: str
    """The name of the environment variable."""
    path: tuple[str, ...]
    """The names of the fields that lead to it."""
    kind: Any
    """Its type, without None."""
    is_optional: bool
    """Whether None is a value."""
    field: dataclasses.Field[Any]
    doc: str
    """What it is for, from the docstring under the field."""

    @property
    def default(self) -> Any:
        """The value when nothing is set; dataclasses.MISSING when it must be."""
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default


def load(config_type: type[_Config], service: str, environ: Mapping[str, str]) -> _Config:
    """Builds a configuration from the variables CHAPPE_<SERVICE>_<FIELD>.

    Args:
        config_type: A dataclass; fields that are dataclasses themselves are flattened under the same prefix.
        service: The service's name without its prefix, like "message".
        environ: The variables; a Secret may also come from the file that <VARIABLE>_FILE names.

    Raises:
        ConfigError: Something is missing, wrong or unknown; all mistakes are listed.
    """
    found = list(settings(config_type, service))
    mistakes = _unknown(found, _prefix(service), environ)
    values: dict[tuple[str, ...], Any] = {}
    for setting in found:
        try:
            value = _read(setting, environ)
            _check_limits(setting, value)
        except ValueError as error:
            mistakes.append(f"{setting.name} {error}")
        else:
            values[setting.path] = value
    if mistakes:
        raise ConfigError(service, mistakes)
    try:
        built: _Config = _build(config_type, (), values)
    except (ValueError, ChappeError) as error:
        raise ConfigError(service, [f"{_prefix(service)}*: {error}"]) from error
    return built


def settings(config_type: type, service: str) -> Iterator[Setting]:
    """Yields every variable of a configuration, in the order of its fields.

    Raises:
        TypeError: Two fields have the same variable, or a field has a type that no variable can hold.
    """
    names: set[str] = set()
    for setting in _walk(config_type, _prefix(service), ()):
        if setting.name in names:
            raise TypeError(f"two fields of {config_type.__name__} are called {setting.name}: rename one")
        names.add(setting.name)
        yield setting


def describe(config: object, service: str) -> str:
    """Returns the effective values as lines of NAME=value, secrets masked; what --print-config prints."""
    lines: list[str] = []
    for setting in settings(type(config), service):
        value: Any = config
        for name in setting.path:
            value = getattr(value, name)
        lines.append(f"{setting.name}={_show(value)}")
    return "\n".join(lines)


def document(config_type: type, service: str) -> str:
    """Returns the rows of a Markdown table: variable, type, default, what it is for."""
    rows: list[str] = []
    for setting in settings(config_type, service):
        default = "required" if setting.default is dataclasses.MISSING else _show(setting.default)
        shown = "required" if default == "required" else f"`{default}`" if default else "empty"
        rows.append(f"| `{setting.name}` | {_kind_name(setting.kind)} | {shown} | {setting.doc} |")
    return "\n".join(rows)


def _prefix(service: str) -> str:
    return f"CHAPPE_{service.upper()}_"


def _walk(config_type: type, prefix: str, path: tuple[str, ...]) -> Iterator[Setting]:
    hints = typing.get_type_hints(config_type)
    docs = field_docs(config_type)
    for field in dataclasses.fields(config_type):
        kind, is_optional = _without_none(hints[field.name])
        here = (*path, field.name)
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast("type", kind), prefix, here)
            continue
        if not _is_supported(kind):
            raise TypeError(f"{config_type.__name__}.{field.name} is {kind}: no variable can hold that")
        doc = docs.get(field.name, "")
        yield Setting(prefix + field.name.upper(), here, kind, is_optional, field, doc)


@functools.cache
def field_docs(config_type: type) -> Mapping[str, str]:
    """Returns the string that stands under each field of a class, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config_type)))
    body = typing.cast("ast.ClassDef", tree.body[0]).body
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return types.MappingProxyType(docs)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in {typing.Union, types.UnionType}:
        return hint, False
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return (kinds[0], True) if len(kinds) == 1 else (hint, False)


def _is_supported(kind: Any) -> bool:
    if kind == tuple[str, ...]:
        return True
    return isinstance(kind, type) and issubclass(kind, (str, int, float, Path, Secret, enum.Enum))


def _unknown(found: list[Setting], prefix: str, environ: Mapping[str, str]) -> list[str]:
    known = {setting.name for setting in found}
    known |= {setting.name + _FILE_SUFFIX for setting in found if setting.kind is Secret}
    mistakes: list[str] = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in known:
            # The prefix, which all have, would make anything look alike.
            endings = [other.removeprefix(prefix) for other in known]
            near = difflib.get_close_matches(name.removeprefix(prefix), endings, n=1, cutoff=0.75)
            hint = f"did you mean {prefix}{near[0]}?" if near else "--print-config lists what there is; remove it"
            mistakes.append(f"{name} is not a setting: {hint}")
    return mistakes


def _read(setting: Setting, environ: Mapping[str, str]) -> Any:
    text = environ.get(setting.name)
    if setting.kind is Secret:
        text = _read_secret(setting.name, text, environ)
    if text is None:
        if setting.default is dataclasses.MISSING:
            raise ValueError(f"is not set: {setting.doc or 'it has no default'}")
        return setting.default
    if setting.is_optional and not text:
        return None
    return _parse(setting.kind, text)


def _read_secret(name: str, text: str | None, environ: Mapping[str, str]) -> str | None:
    path = environ.get(name + _FILE_SUFFIX)
    if path is None:
        return text
    if text is not None:
        raise ValueError(f"and {name}{_FILE_SUFFIX} are both set: keep the file, remove the variable")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"cannot be read from {name}{_FILE_SUFFIX}={path}: {why}") from error


def _parse(kind: Any, text: str) -> Any:
    if kind == tuple[str, ...]:
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if kind is bool:
        return _parse_bool(text)
    if issubclass(kind, enum.Enum):
        return _parse_enum(kind, text)
    if kind in {int, float}:
        return _parse_number(kind, text)
    return kind(text)


def _parse_bool(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise ValueError(f"is {text!r}: write true or false")


def _parse_enum(kind: type[enum.Enum], text: str) -> enum.Enum:
    for member in kind:
        if text.strip().lower() in {member.name.lower(), str(member.value).lower()}:
            return member
    choices = ", ".join(str(member.value) for member in kind)
    raise ValueError(f"is {text!r}: choose one of {choices}")


def _parse_number(kind: type[int | float], text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        article = "a whole number" if kind is int else "a number"
        raise ValueError(f"is {text!r}: write {article}, like {kind(15)}") from None
    if not math.isfinite(value):
        raise ValueError(f"is {text!r}: write a finite number")
    return value


def _check_limits(setting: Setting, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    floor = 0.0 if setting.field.name.endswith(_DURATION_SUFFIXES) else -math.inf
    least = setting.field.metadata.get("least", floor)
    most = setting.field.metadata.get("most", math.inf)
    if value < least:
        raise ValueError(f"is {value}: the least is {least:g}")
    if value > most:
        raise ValueError(f"is {value}: the most is {most:g}")


def _build(config_type: Any, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> Any:
    hints = typing.get_type_hints(config_type)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        here = (*path, field.name)
        given[field.name] = (
            values[here] if here in values else _build(_without_none(hints[field.name])[0], here, values)
        )
    return config_type(**given)


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Secret):
        return _MASK if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(str(item) for item in typing.cast("tuple[object, ...]", value))
    return str(value)


def _kind_name(kind: Any) -> str:
    if kind == tuple[str, ...]:
        return "list, by commas"
    if issubclass(kind, enum.Enum):
        return " or ".join(str(member.value) for member in kind)
    names = {Path: "path", Secret: "secret", int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names[kind]
