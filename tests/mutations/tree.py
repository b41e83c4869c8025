"""A copy of the sources, in which edits are made and unmade without touching the ones that people work on."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "pyproject.toml",
    "chappe",
    "svc_edge",
    "svc_fanout",
    "svc_identity",
    "svc_message",
    "svc_presence",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/mutations",
    "tests/simulation",
    "tests/svc_message",
    "tests/system/books.py",
    "tests/system/counting.py",
)


class Edit(NamedTuple):
    """One place in the sources, and what stands there once a repair is taken out."""

    path: str
    old: str
    """Occurs exactly once in the file."""
    new: str

    def apply(self, text: str) -> str:
        """Returns the text of the file with the edit made.

        Raises:
            CannotApplyError: The old text is not there exactly once.
        """
        count = text.count(self.old)
        if count != 1:
            raise CannotApplyError(
                f"{self.path} holds this {count} times and not once: {self.old.strip()!r}. "
                "The source has changed: find where the repair is now, and change tests/mutations/catalogue.py"
            )
        return text.replace(self.old, self.new)


class CannotApplyError(Exception):
    """A mutation does not fit the sources any more."""


class Tree:
    """One copy of the sources."""

    def __init__(self, folder: Path) -> None:
        """Copies everything that a scene needs into an empty folder."""
        self.folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    @contextmanager
    def edited(self, edits: Iterable[Edit]) -> Iterator[None]:
        """Makes edits for as long as the block lasts.

        Raises:
            CannotApplyError: One does not fit.
        """
        before: dict[Path, str] = {}
        try:
            for edit in edits:
                path = self.folder / edit.path
                text = path.read_text(encoding="utf-8")
                before.setdefault(path, text)
                self._write(path, edit.apply(text))
            yield
        finally:
            for path, text in before.items():
                self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # Compiled files know their source by size and full seconds, which two edits may share.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def check(edits: Iterable[Edit]) -> None:
    """Makes sure that edits fit the present sources, one after the other.

    Raises:
        CannotApplyError: One does not.
    """
    texts: dict[str, str] = {}
    for edit in edits:
        text = texts.get(edit.path)
        if text is None:
            text = (ROOT / edit.path).read_text(encoding="utf-8")
        texts[edit.path] = edit.apply(text)
