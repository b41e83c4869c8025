"""Text in cells: how wide it is, how it is cut and wrapped. Wide letters take two cells, marks above others none."""

from collections.abc import Iterable

from wcwidth import wcwidth

Fragment = tuple[str, str]
"""A style and a text that has it."""
Line = list[Fragment]
"""One row of the screen."""


def width(text: str) -> int:
    """Returns how many cells a text takes, letter by letter as prompt_toolkit draws it, whatever stands beside it."""
    return sum(max(0, wcwidth(letter)) for letter in text)


def plain(text: str) -> str:
    """Returns a text without anything that could move the cursor or change colours."""
    return "".join(letter if letter.isprintable() or letter in "\u200d\ufe0f" else " " for letter in text)


def cut(text: str, cells: int) -> str:
    """Returns as much of a text as fits, with an ellipsis when something is missing."""
    if width(text) <= cells:
        return text
    kept, used = "", 0
    for letter in text:
        used += max(0, wcwidth(letter))
        if used > cells - 1:
            break
        kept += letter
    return f"{kept}…" if cells > 0 else ""


def wrap(text: str, cells: int) -> list[str]:
    """Returns a text as lines that fit, broken at spaces where there are any; its own ends of lines stay."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        lines += _wrap_paragraph(plain(paragraph), max(1, cells))
    return lines


def padded(line: Line, cells: int) -> Line:
    """Returns a row that takes exactly so many cells."""
    out: Line = []
    left = cells
    for style, text in line:
        kept = cut(text, left) if width(text) > left else text
        if kept:
            out.append((style, kept))
            left -= width(kept)
    if left > 0:
        out.append(("", " " * left))
    return out


def flat(line: Iterable[Fragment]) -> str:
    """Returns a row as text."""
    return "".join(text for _, text in line)


def _wrap_paragraph(text: str, cells: int) -> list[str]:
    lines, line = [], ""
    for part in (part for word in text.split(" ") for part in _pieces(word, cells)):
        if line and width(line) + 1 + width(part) <= cells:
            line += f" {part}"
            continue
        if line:
            lines.append(line)
        line = part
    return [*lines, line]


def _pieces(word: str, cells: int) -> list[str]:
    """Returns a word in pieces that fit."""
    if width(word) <= cells:
        return [word]
    pieces, piece, used = [], "", 0
    for letter in word:
        size = max(0, wcwidth(letter))
        if used + size > cells and piece:
            pieces.append(piece)
            piece, used = "", 0
        piece += letter
        used += size
    return [*pieces, piece]
