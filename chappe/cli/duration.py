"""Times as people type them: 30s, 10m, 24h, 7d, 2w, or `off`."""

import re
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_MOST_S: Final = 3650 * 86_400
"""Ten years: what is to last longer is to last for ever, and it fits into every field of the contracts."""


def seconds(text: str) -> int:
    """Returns a time in seconds; zero for `off`. The type of an option.

    Raises:
        BadParameter: It is no time.
    """
    if text == "off":
        return 0
    found = _FORM.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time; type for example 30m, 24h, 7d, or off")
    time_s = int(found[1]) * _UNITS[found[2]]
    if time_s > _MOST_S:
        raise click.BadParameter(f"{text!r} is too long; the longest is {spoken(_MOST_S)}")
    return time_s


def spoken(time_s: int) -> str:
    """Returns a time as it is typed, in its greatest whole unit."""
    if not time_s:
        return "off"
    unit = next(unit for unit, length in reversed(_UNITS.items()) if time_s % length == 0)
    return f"{time_s // _UNITS[unit]}{unit}"
