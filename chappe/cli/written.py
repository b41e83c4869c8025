"""What people wrote, made fit for a terminal: it moves no cursor, hides nothing, and looks like no line of another."""

import re
from typing import Final

_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that reorder what follows them, and halves of characters; blanks and ends of lines not."""
_SIGN: Final = "\N{REPLACEMENT CHARACTER}"
_BELOW: Final = "\n" + " " * 21
"""A further line begins where the first does, behind its time: at the margin only a new message begins."""
_SHORT: Final = 40


def written(text: str) -> str:
    """Returns a text as it is shown behind a time, with all of its lines."""
    return _UNFIT.sub(_SIGN, text.replace("\r\n", "\n")).replace("\n", _BELOW)


def shortened(text: str) -> str:
    """Returns as much of a text as fits on a line beside other things."""
    line = _UNFIT.sub(_SIGN, " ".join(text.split()))
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"


def escaped(line: str) -> str:
    """Returns a line of JSON that says the same, without the characters that a terminal would obey."""
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
