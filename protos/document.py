"""Writes what people read of the contracts: docs/api.md, docs/errors.md and the list of limits."""

import importlib
import re
from collections.abc import Iterator

from protos.contract import (
    PACKAGE,
    Access,
    Contract,
    EnumType,
    Field,
    MessageType,
    Rpc,
    Service,
    package_of,
)

_NOTICE = "<!-- Generated from protos/ by `make protos`; change the contracts, not this page. -->"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"`])")
_METADATA = re.compile(r"\s*Metadata: (?P<keys>.+?)\.$")
_IDEMPOTENCY = {
    "IDEMPOTENCY_UNKNOWN": "may not be repeated blindly",
    "NO_SIDE_EFFECTS": "reads only",
    "IDEMPOTENT": "idempotent",
}
_CONFIG_INTRODUCTION = """\
<!-- Generated from svc_*/config.py by `make protos`; change the docstrings there, not this page. -->

# Configuration

Services read their settings from the environment and from nowhere else.
A secret may also come from a file, named by the variable with `_FILE` at its end.
`python -m svc_message --print-config` shows what is in force, with secrets masked; every mistake is told at once.

"""
_API_INTRODUCTION = """\
Every service, call, message and enum of the contracts, with who may call and which limits hold.

- Callers `edge`, `message`, `presence`, `identity` and `fanout` are the identities of the services.
- Caller `client` is a signed-in device, and `open` a client that has no session yet, both through the \
edge's bridge.
- Caller `internal` is any service identity that the operator lets in.
- Principal `user`: a call through the edge carries the end user on whose behalf it is made.
- Limits are checked at the door, before the rules see a message.
- `len` counts bytes of a bytes field and characters of a string field.
- Limits of a repeated field hold for each element, apart from `min_items` and `max_items`."""
_ERRORS_INTRODUCTION = """\
Every failed call carries a `google.rpc.ErrorInfo` in the domain `chappe`.
Its reason is one of the names below.
Programs decide by the code and the reason; texts are for people and may change."""


def api_page(contract: Contract) -> str:
    """Returns docs/api.md."""
    lines = [_NOTICE, "# API reference", "", _API_INTRODUCTION]
    for package in contract.packages():
        lines += ["", f"## {package.removeprefix(PACKAGE).replace('.', '/')}"]
        for service in contract.services:
            if package_of(service.name) == package:
                lines += _service(service, contract)
        for message in contract.messages:
            if package_of(message.name) == package:
                lines += ["", *_message(message)]
        for enum in contract.enums:
            if package_of(enum.name) == package:
                lines += ["", *_enum(enum)]
    return "\n".join(lines) + "\n"


def errors_page(contract: Contract) -> str:
    """Returns docs/errors.md."""
    enums = {enum.name: enum for enum in contract.enums}
    reasons = enums[f"{PACKAGE}type.v1.ErrorReason"].values
    lines = [_NOTICE, "# Errors", "", _ERRORS_INTRODUCTION, ""]
    lines += ["| reason | number | meaning | metadata |", "|---|---|---|---|"]
    for value in reasons[1:]:
        found = _METADATA.search(" ".join(value.comment.split()))
        meaning = _METADATA.sub("", " ".join(value.comment.split()))
        name = value.name.removeprefix("ERROR_REASON_")
        lines.append(f"| `{name}` | {value.number} | {_cell(meaning)} | {found['keys'] if found else ''} |")
    close_codes = enums.get(f"{PACKAGE}edge.v1.CloseCode")
    if close_codes:
        lines += ["", "## Close codes of a client's connection", "", *_prose(close_codes.comment), ""]
        lines += ["| code | number | meaning |", "|---|---|---|"]
        for value in close_codes.values[1:]:
            name = value.name.removeprefix("CLOSE_CODE_")
            lines.append(f"| `{name}` | {value.number} | {_cell(value.comment)} |")
    return "\n".join(lines) + "\n"


def limits_list(contract: Contract) -> str:
    """Returns one line for each field that has limits, for the golden test."""
    lines = [
        f"{message.name.removeprefix(PACKAGE)}.{field.name} {_limits(field)}"
        for message in contract.messages
        for field in message.fields
        if field.rules
    ]
    return "\n".join(sorted(lines)) + "\n"


def _service(service: Service, contract: Contract) -> Iterator[str]:
    messages = {message.name: message for message in contract.messages}
    name = _short(service.name)
    yield from ("", f"### {name}", "", *_prose(service.comment))
    for rpc in service.rpcs:
        yield from ("", f"#### {name}.{rpc.name}", "", *_facts(rpc), "", *_prose(rpc.comment))
        for label, kind in (("Request", rpc.request), ("Response", rpc.response)):
            link = _link(kind)
            yield from ("", f"{label}: {link}" + ("" if messages[kind].fields else ", empty"))


def _facts(rpc: Rpc) -> Iterator[str]:
    shapes = {
        (False, False): "unary",
        (False, True): "server stream",
        (True, False): "client stream",
        (True, True): "bidirectional stream",
    }
    shape = shapes[rpc.is_request_stream, rpc.is_response_stream]
    yield f"- Kind: {shape}" + (f", {_IDEMPOTENCY[rpc.idempotency]}" if shape == "unary" else "")
    access = rpc.access or Access((), "none", "none")
    yield f"- Callers: {', '.join(access.callers) or 'nobody'}; principal: {access.principal}"
    if {"client", "open"} & set(access.callers):
        yield f"- Budget: {access.rate_class}"


def _message(message: MessageType) -> Iterator[str]:
    yield from (f"### {_short(message.name)}", "", *_prose(message.comment))
    if message.fields:
        yield from ("", "| field | type | limits | meaning |", "|---|---|---|---|")
    for field in message.fields:
        kind = _link(field.type_name) if field.is_defined_here else _short(field.type_name)
        repeated = "repeated " if field.is_repeated else ""
        oneof = f", one of `{field.oneof}`" if field.oneof else ""
        yield f"| `{field.name}` | {repeated}{kind}{oneof} | {_limits(field)} | {_cell(field.comment)} |"


def _enum(enum: EnumType) -> Iterator[str]:
    yield from (f"### {_short(enum.name)}", "", *_prose(enum.comment))
    yield from ("", "| value | number | meaning |", "|---|---|---|")
    for value in enum.values:
        yield f"| `{value.name}` | {value.number} | {_cell(value.comment)} |"


def _limits(field: Field) -> str:
    return " ".join(f"{name}={value}" if value else name for name, value in field.rules)


def _short(full_name: str) -> str:
    """Returns the name as it is called inside its package."""
    return full_name.removeprefix(f"{package_of(full_name)}.") if full_name.startswith(PACKAGE) else full_name


def _link(full_name: str) -> str:
    short = _short(full_name)
    return f"[{short}](#{short.lower().replace('.', '')})"


def _cell(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


def _prose(comment: str) -> Iterator[str]:
    """Yields a comment as Markdown, one sentence per line, paragraphs kept."""
    for number, paragraph in enumerate(comment.split("\n\n")):
        if number:
            yield ""
        yield from _SENTENCE_END.split(" ".join(paragraph.split()))


def config_page() -> str:
    """Returns docs/config.md: every variable of every service, from the configuration classes themselves."""
    # Read here: the configurations need the stubs, which may be out of date while they are being made.
    from chappe.runtime import config  # noqa: PLC0415 - see above

    parts = [_CONFIG_INTRODUCTION]
    for service in ("edge", "message", "presence", "fanout", "identity"):
        module = importlib.import_module(f"svc_{service}.config")
        parts.append(f"## svc_{service}\n\n| variable | type | default | what it is for |\n|---|---|---|---|\n")
        parts.append(config.document(module.Config, service).strip() + "\n\n")
    return "".join(parts).rstrip() + "\n"
