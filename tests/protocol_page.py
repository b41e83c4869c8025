"""Reads docs/protocol.md as a third client would: its examples, its placeholders and its formulas, and nothing else.

Nothing of Chappe is imported here. What a client needs to know has to be on the page, or this module could not speak.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Frame = dict[str, Any]
Row = tuple[str, ...]

_STEP = re.compile(
    r"^(?:(?P<who>[A-Z]\w+(?: and [A-Z]\w+ each)?)(?P<older>'s older connection)? "
    r"(?P<does>connects? and sends?|sends?|gets?):\n\n```json\n(?P<json>.*?)^```$"
    r"|(?P<leaver>[A-Z]\w+) closes\.$"
    r"|The edge closes (?P<closed>[A-Z]\w+)'s (?P<closed_older>older )?connection with (?P<code>\d{4})\.$)",
    re.MULTILINE | re.DOTALL,
)
_JSON = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VECTORS = re.compile(r"^<!-- vectors -->\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r"^\| `(?P<message>\w+)\.(?P<field>\w+)` \| `(?P<formula>\"chappe-[^`]+)` \|$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"<([^<>]+)>")
_STRANGERS = re.compile(r"<(\d+) strangers>")
_TERM = re.compile(r'"(?P<text>[^"]*)"|(?P<zero>00)\b|(?P<function>\w+)\((?P<inner>\w+)\)|(?P<name>\w+)')


class Step(NamedTuple):
    """One thing that happens in the conversation."""

    who: tuple[str, ...]
    does: str
    """`connect`, `send`, `get`, `close` or `closed`."""
    frame: Frame
    is_older: bool = False
    """It happens on the connection before the newest."""
    code: int = 0
    """The close code that is awaited."""


class Page:
    """The page, taken apart."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.vectors: dict[str, list[dict[str, Any]]] = json.loads(_VECTORS.findall(self.text)[0])
        self.steps = list(_steps(self.text))
        self.formulas = {(found["message"], found["field"]): found["formula"] for found in _FORMULA.finditer(self.text)}

    @property
    def unplayed(self) -> list[str]:
        """The blocks of JSON that no step plays and that are no vectors."""
        played = {found["json"] for found in _STEP.finditer(self.text)} | set(_VECTORS.findall(self.text))
        return [block for block in _JSON.findall(self.text) if block not in played]


def _steps(text: str) -> Iterator[Step]:
    for found in _STEP.finditer(text):
        if found["leaver"]:
            yield Step((found["leaver"],), "close", {})
        elif found["closed"]:
            yield Step((found["closed"],), "closed", {}, bool(found["closed_older"]), int(found["code"]))
        else:
            who = tuple(found["who"].removesuffix(" each").split(" and "))
            verb = found["does"]
            does = "connect" if verb.startswith("connect") else verb.removesuffix("s")
            yield Step(who, does, json.loads(found["json"]), bool(found["older"]))


def signed_bytes(formula: str, fields: dict[str, Any]) -> bytes:
    """Returns what a formula of the page stands for; fields are bytes, text or numbers by their names."""
    parts: list[bytes] = []
    for term in _TERM.finditer(formula):
        if term["text"] is not None:
            parts.append(term["text"].encode("ascii"))
        elif term["zero"]:
            parts.append(b"\0")
        else:
            value = fields[term["inner"] or term["name"]]
            parts.append(_applied(term["function"], value))
    return b"".join(parts)


def _applied(function: str | None, value: Any) -> bytes:
    if function in {"u32", "u64"}:
        return int(value).to_bytes(4 if function == "u32" else 8, "big")
    raw = value if isinstance(value, bytes) else str(value).encode()
    return hashlib.sha256(raw).digest() if function == "sha256" else raw


def text_content(text: str) -> bytes:
    """Returns a Content with a text, as the page describes it; of less than 128 bytes."""
    raw = text.encode()
    return bytes((0x0A, len(raw))) + raw


def message_id(ms: int, counter: int, tag: bytes, rest: int) -> bytes:
    """Puts a message id together from the parts of the page's table."""
    bits = ms
    for width, value in ((4, 0b0111), (12, counter), (2, 0b10), (48, int.from_bytes(tag, "big")), (14, rest)):
        bits = bits << width | value
    return bits.to_bytes(16, "big")


class Speaker:
    """One person of the conversation, with a device: the values of its placeholders."""

    def __init__(self, page: Page, phone: str, everybody: "dict[str, Speaker]") -> None:
        self.values: dict[str, Any] = {"phone": phone}
        self.strangers: list[str] = []
        """Whom the person has asked for without knowing them."""
        self.received = 0
        self.offset_ms = 0
        self._page = page
        self._everybody = everybody
        self._key = Ed25519PrivateKey.generate()
        self._last_ms = 0

    def fill(self, frame: Frame, host: str, now_ms: int) -> Frame:
        """Returns a frame to send, with every placeholder filled in."""
        filled: Frame = self._fill(frame, host, now_ms + self.offset_ms)
        return filled

    def _fill(self, value: Any, host: str, now_ms: int) -> Any:
        if isinstance(value, list):
            return [filled for item in value for filled in self._filled(item, host, now_ms)]
        if isinstance(value, dict):
            filled = {name: self._fill(item, host, now_ms) for name, item in value.items() if item != "<proof>"}
            return filled | {name: self._proof(filled, name) for name, item in value.items() if item == "<proof>"}
        found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        return self._made(found[1], host, now_ms) if found else value

    def _filled(self, item: Any, host: str, now_ms: int) -> list[Any]:
        found = _STRANGERS.fullmatch(item) if isinstance(item, str) else None
        if found is None:
            return [self._fill(item, host, now_ms)]
        missing = int(found[1]) - len(self.strangers)
        self.strangers += [_base64(os.urandom(16)) for _ in range(missing)]
        return self.strangers[: int(found[1])]

    def _made(self, name: str, host: str, now_ms: int) -> Any:
        if name.startswith("text: "):
            return _base64(text_content(name.removeprefix("text: ")))
        if re.fullmatch(r"id \d+", name) and name not in self.values:
            self.values[name] = _base64(self._mint(now_ms))
        made = {
            "host": host,
            "now": str(now_ms),
            "random": _base64(os.urandom(16)),
            "key": _base64(self._key.public_key().public_bytes_raw()),
            "count": str(self.received),
        }
        return made[name] if name in made else self.value(name)

    def value(self, name: str) -> Any:
        """Returns the value that a name has; another person's by `person.name`."""
        person, dot, rest = name.partition(".")
        return self._everybody[person].values[rest] if dot else self.values[name]

    def _proof(self, fields: dict[str, Any], name: str) -> str:
        formulas = [
            formula
            for (_, field), formula in self._page.formulas.items()
            if field == name and {_camel(word) for word in _names(formula)} <= fields.keys()
        ]
        assert len(formulas) == 1, fields
        raw = {word: _raw(word, fields[_camel(word)]) for word in _names(formulas[0])}
        return _base64(self._key.sign(signed_bytes(formulas[0], raw)))

    def _mint(self, now_ms: int) -> bytes:
        self._last_ms = max(now_ms, self._last_ms + 1)
        rest = int.from_bytes(os.urandom(2), "big") >> 2
        return message_id(self._last_ms, 0, base64.b64decode(self.values["tag"]), rest)

    def matches(self, example: Any, found: Any) -> bool:
        """Tells whether what arrived is what the page shows; names that are new take their values if it is."""
        taken: dict[str, Any] = {}
        if not self._matches(example, found, taken):
            return False
        self.values |= taken
        return True

    def _matches(self, example: Any, found: Any, taken: dict[str, Any]) -> bool:
        if isinstance(example, dict):
            return (
                isinstance(found, dict)
                and example.keys() == found.keys()
                and all(self._matches(item, found[name], taken) for name, item in example.items())
            )
        if isinstance(example, list):
            return (
                isinstance(found, list)
                and len(example) == len(found)
                and all(self._matches(item, other, taken) for item, other in zip(example, found, strict=True))
            )
        placeholder = _PLACEHOLDER.fullmatch(example) if isinstance(example, str) else None
        if placeholder is None:
            return bool(example == found)
        name = placeholder[1]
        if name == "...":
            return found is not None
        if name.startswith("text: "):
            return bool(found == _base64(text_content(name.removeprefix("text: "))))
        known = self.value(name) if "." in name else taken.get(name, self.values.get(name))
        if known is None:
            taken[name] = found
        return known is None or bool(known == found)


def _names(formula: str) -> set[str]:
    return {term["inner"] or term["name"] for term in _TERM.finditer(formula) if term["inner"] or term["name"]}


def _camel(word: str) -> str:
    first, *rest = word.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _raw(word: str, value: Any) -> Any:
    """Returns a field as it is signed: bytes out of their base64, text and numbers as they are."""
    is_bytes = word in {"registration_token", "user_id", "nonce"}
    return base64.b64decode(value) if is_bytes else value


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
