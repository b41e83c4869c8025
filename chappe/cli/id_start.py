"""How the id of a message begins, as people type it."""

import re
from typing import Final

import click

_FORM: Final = re.compile(r"[0-9a-f]{1,32}")


def id_start(text: str) -> str:
    """Returns how an id begins, in lower case and without dashes. The type of an option.

    Raises:
        BadParameter: No id begins so.
    """
    start = text.strip().lower().replace("-", "")
    if not _FORM.fullmatch(start):
        raise click.BadParameter(
            f"{text!r} begins no id; `chappe --json history` prints ids, 32 digits of 0 to 9 and a to f"
        )
    return start
