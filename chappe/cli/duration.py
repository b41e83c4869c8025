"""Times as people type them: 30s, 10m, 24h, 7d, 2w, or `off`."""

import re
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_MOST_S: Final = 3650 * 86_400
"""Ten years: what is to last longer is to last for ever, and it fits into every field of the contracts."""
_MOST_KEPT_S: Final = 90 * 86_400
"""For so long the contracts let messages that disappear and invites live."""


def seconds(text: str) -> int:
    """Returns a time in seconds; zero for `off`. The type of an option.

    Raises:
        BadParameter: It is no time, or longer than ten years.
    """
    return _read(text, _MOST_S)


def lifetime(text: str) -> int:
    """Returns how long a message or an invite lives, in seconds; zero for `off`. The type of an option.

    Raises:
        BadParameter: It is no time, or longer than 90 days.
    """
    return _read(text, _MOST_KEPT_S)


def _read(text: str, most_s: int) -> int:
    if text == "off":
        return 0
    found = _FORM.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time; type for example 30m, 24h, 7d, or off")
    time_s = int(found[1]) * _UNITS[found[2]]
    if time_s > most_s:
        raise click.BadParameter(f"{text!r} is too long; the longest is {most_s // _UNITS['d']}d")
    return time_s


def spoken(time_s: int) -> str:
    """Returns a time as it is typed, in its greatest whole unit."""
    if not time_s:
        return "off"
    unit = next(unit for unit, length in reversed(_UNITS.items()) if time_s % length == 0)
    return f"{time_s // _UNITS[unit]}{unit}"
